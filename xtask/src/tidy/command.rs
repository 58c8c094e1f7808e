//! Rules of the `firebrick` command: it reads arguments and shows progress, and holds no stage.

use std::path::Path;

use super::{Problem, Tree};

const COMMAND: &str = "crates/firebrick-cli";
/// Where stages live. The rules hold once it is there.
const STAGES: &str = "crates/firebrick-stages";
/// Lines of Rust that the command may have in all.
const MOST: usize = 3000;

pub(super) fn problems(tree: &Tree) -> Vec<Problem> {
    if !tree.keys().any(|path| path.starts_with(STAGES)) {
        return Vec::new();
    }
    let rust = |path: &Path| path.starts_with(COMMAND) && path.extension().is_some_and(|extension| extension == "rs");
    let files = tree.iter().filter(|(path, _)| rust(path)).filter_map(|(path, text)| Some((path, text.as_ref()?)));
    let (mut found, mut lines) = (Vec::new(), 0);
    for (path, text) in files {
        lines += text.lines().count();
        let stages = (1..).zip(text.lines()).filter(|(_, line)| implements_a_stage(line));
        found.extend(stages.map(|(number, _)| Problem::new(path, number, format!("a stage; move it to {STAGES}"))));
    }
    if lines > MOST {
        let message =
            format!("{lines} lines of Rust, {MOST} at most; what is no argument and no progress belongs to a library");
        found.push(Problem::new(COMMAND, 1, message));
    }
    found
}

/// Whether a line begins `impl Stage for X` or `impl Stage<E> for X`, with parameters of its own or without.
fn implements_a_stage(line: &str) -> bool {
    let is_named = |name| line.contains(name);
    line.trim_start().starts_with("impl")
        && [" Stage<", " Stage for ", "::Stage<", "::Stage for "].into_iter().any(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let tree = files.iter().map(|(path, text)| (path.into(), Some((*text).to_string()))).collect();
        assert_eq!(problems(&tree).iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    const LIBRARY: (&str, &str) = ("crates/firebrick-stages/src/lib.rs", "impl Stage<Env> for Train {\n");

    #[test]
    fn the_command_holds_no_stage_once_there_is_a_library_of_them() {
        let stage = ("crates/firebrick-cli/src/a.rs", "//! x\nimpl Stage<Env> for Train {\n");
        check(&[stage], &[]);
        check(&[LIBRARY], &[]);
        let moved = "crates/firebrick-cli/src/a.rs:2: a stage; move it to crates/firebrick-stages";
        check(&[LIBRARY, stage], &[moved]);
    }

    #[test]
    fn every_way_to_write_a_stage_is_seen() {
        for line in [
            "impl Stage for Train {",
            "impl<E> Stage<E> for Train",
            "    impl firebrick_pipeline::Stage<Env> for Train {",
        ] {
            assert!(implements_a_stage(line), "{line}");
        }
        for line in [
            "// impl Stage for Train",
            "impl Train {",
            "impl From<Stage> for Name {",
            "impl Backstage for Train {",
            "fn f(stage: impl Stage) {",
        ] {
            assert!(!implements_a_stage(line), "{line}");
        }
    }

    #[test]
    fn the_command_has_3000_lines_at_most() {
        let [fine, long] = [1500, 1501].map(|lines| "\n".repeat(lines));
        let with = |text| {
            [
                LIBRARY,
                ("crates/firebrick-cli/src/a.rs", text),
                ("crates/firebrick-cli/tests/b.rs", &*fine),
                ("crates/firebrick-cli/r.toml", &*long),
            ]
        };
        check(&with(&*fine), &[]);
        let told = "crates/firebrick-cli:1: 3001 lines of Rust, 3000 at most; what is no argument and no progress belongs to a library";
        check(&with(&*long), &[told]);
    }
}
