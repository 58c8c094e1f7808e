//! Rules of single files.

use std::path::Path;

use super::{Problem, Tree};

/// The longest Rust file, in lines.
const LONGEST: usize = 700;

/// The extensions whose white space is ours to keep; data files may mean theirs.
const WRITTEN: [&str; 7] = ["rs", "md", "toml", "py", "sh", "yml", "yaml"];

/// Folders that exist on one machine only, in two pieces, so that this file passes its own check.
const LOCAL_FOLDERS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];

pub(super) fn problems(tree: &Tree) -> Vec<Problem> {
    let texts = tree.iter().filter_map(|(path, text)| Some((path, text.as_ref()?)));
    texts.flat_map(|(path, text)| file_problems(path, text)).collect()
}

fn file_problems(path: &Path, text: &str) -> Vec<Problem> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let rust = extension == "rs";
    let mut found = Vec::new();
    if rust && !(text.starts_with("//!") || text.starts_with("#![doc")) {
        found.push(Problem::new(path, 1, "opens without `//!`; say in a line what the file is"));
    }
    let length = text.lines().count();
    if rust && length > LONGEST {
        found.push(Problem::new(path, LONGEST, format!("{length} lines, {LONGEST} at most; cut it by topic")));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if WRITTEN.contains(&&*extension) && line.trim_end() != line {
            found.push(Problem::new(path, number, "white space at the end of the line"));
        }
        if rust && line.contains('\t') {
            found.push(Problem::new(path, number, "a tab; indent with spaces, write `\\t` in strings"));
        }
        if let Some(folder) = local_folder(line) {
            found.push(Problem::new(path, number, format!("`{folder}` names a folder of one machine")));
        }
    }
    found
}

/// The first folder of one machine in the line. An absolute path begins a word; `<root>/work/` and URLs do not.
fn local_folder(line: &str) -> Option<&'static str> {
    let begins_word =
        |at: usize| line[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || "\"'`(=:[".contains(c));
    LOCAL_FOLDERS.into_iter().find(|folder| line.match_indices(folder).any(|(at, _)| begins_word(at)))
}

/// The names of all tests of a trap, `t15_…`.
pub(super) fn trap_tests(tree: &Tree) -> Vec<&str> {
    let rust = tree.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"));
    rust.filter_map(|(_, text)| text.as_deref()).flat_map(trap_names).collect()
}

fn trap_names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("fn ")?.split('(').next()?;
        let number = name.strip_prefix('t')?.split('_').next()?;
        (number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()) && name.len() > 4).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
        let found = file_problems(Path::new(path), text);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (problem, (line, part)) in found.iter().zip(expected) {
            assert!(problem.line == *line && problem.message.contains(part), "{problem}");
        }
    }

    #[test]
    fn a_rust_file_opens_with_its_documentation() {
        check("a.rs", "//! What it is.\nfn f() {}\n", &[]);
        check("a.rs", "#![doc = include_str!(\"../README.md\")]\n", &[]);
        check("a.rs", "use x;\n//! Too late.\n", &[(1, "opens without")]);
        check("a.py", "import x\n", &[]);
    }

    #[test]
    fn a_rust_file_is_at_most_700_lines() {
        let lines = |count: usize| format!("//! x\n{}", "\n".repeat(count - 1));
        check("a.rs", &lines(700), &[]);
        check("a.rs", &lines(701), &[(700, "701 lines")]);
    }

    #[test]
    fn white_space_is_checked_where_we_write() {
        check("a.md", "a \nb\n", &[(1, "white space")]);
        check("a.toml", "a\r\n", &[]); // `lines` takes CRLF for one line end
        check("a.txt", "Human: \n", &[]);
        check("a.rs", "//! x\n\tlet y;\n", &[(2, "tab")]);
    }

    #[test]
    fn folders_of_one_machine_are_found_at_the_start_of_a_path() {
        let folder = LOCAL_FOLDERS[3];
        check("a.json", &format!("\"{folder}x\""), &[(1, folder)]);
        check("a.md", &format!("{folder}x"), &[(1, folder)]);
        check("a.md", &format!("runs/a{folder} or <stage>{folder} or https://a.b{folder}"), &[]);
    }

    #[test]
    fn traps_are_found_by_their_names() {
        let text = "    fn t15_gae_terminal() {\nfn t5_short() {}\nfn t15() {}\nfn tab_x() {}\n// fn t16_comment\nfn t03_a() {}";
        assert_eq!(trap_names(text).collect::<Vec<_>>(), ["t15_gae_terminal", "t03_a"]);
    }
}
