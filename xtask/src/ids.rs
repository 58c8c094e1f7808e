//! `cargo xtask ids`: what the numbers that code and documents cite stand for.
//!
//! The list is `docs/ids.toml`, the page of the book is made of it. `cargo xtask tidy` holds both against the sources: every id that is
//! cited has an entry, every function and test that an entry names is there, and no number is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::workspace_root;
use crate::tidy::{Problem, Tree, count, read_tree};

mod id;
mod list;
mod page;
mod sources;

use id::Id;
use list::{Entry, List, State};
use sources::{Definition, Sources};

const LIST: &str = "docs/ids.toml";
const PAGE: &str = "docs/book/src/ids.md";

/// What an entry's references were found to be.
#[derive(Debug, Default)]
struct Places<'a> {
    functions: Vec<Definition<'a>>,
    tests: Vec<Definition<'a>>,
}

/// Writes the page.
pub(crate) fn run() -> Result<()> {
    let tree = read_tree(workspace_root())?;
    let (page, problems) = check(&tree);
    problems.iter().for_each(|problem| println!("{problem}"));
    let Some(page) = page else { bail!("{PAGE} was not written: {}", count(problems.len(), "problem")) };
    fs::write(workspace_root().join(PAGE), page).with_context(|| format!("cannot write {PAGE}"))?;
    println!("wrote {PAGE}");
    Ok(())
}

/// All that is wrong with the list, the citations and the page.
pub(crate) fn problems(tree: &Tree) -> Vec<Problem> {
    let (page, mut found) = check(tree);
    found.extend(page.and_then(|page| stale(tree, &page)));
    found
}

/// The page as the list and the sources give it, unless an entry has a problem; and every problem of the list and the citations.
fn check(tree: &Tree) -> (Option<String>, Vec<Problem>) {
    let Some(Some(text)) = tree.get(Path::new(LIST)) else {
        return (None, vec![Problem::new(LIST, 1, "missing; it says what ids such as those of the papers stand for")]);
    };
    let (list, mut found) = list::parse(text);
    let sources = Sources::of(tree);
    let mut places = BTreeMap::new();
    for (id, entry) in &list.entries {
        let (found_places, problems) = resolve(*id, entry, &sources);
        places.insert(*id, found_places);
        found.extend(problems);
    }
    let page = found.is_empty().then(|| page::render(&list, &places));
    found.extend(dead_citations(tree, &list));
    found.extend(unlisted_tests(&list, &sources));
    (page, found)
}

/// Where an entry's functions, tests and metrics are, and which are nowhere.
fn resolve<'a>(id: Id, entry: &'a Entry, sources: &Sources<'a>) -> (Places<'a>, Vec<Problem>) {
    let mut places = Places { functions: Vec::new(), tests: sources.numbered(id) };
    let mut found = Vec::new();
    let mut problem = |message: String| found.push(Problem::new(LIST, entry.line, format!("{id}: {message}")));
    for reference in &entry.functions {
        match sources.function(reference) {
            Ok(function) => places.functions.push(function),
            Err(message) => problem(message),
        }
    }
    for reference in &entry.tests {
        match sources.tests(reference) {
            Ok(tests) => places.tests.extend(tests),
            Err(message) => problem(message),
        }
    }
    places.tests.sort_unstable();
    places.tests.dedup();
    if let State::Measured(metrics) = &entry.state {
        for metric in metrics.iter().filter(|metric| !sources.has_band(metric)) {
            problem(format!("no `*.bands.toml` holds a metric `{metric}`; name one that a run is held to"));
        }
    }
    let is_untested = entry.tests.is_empty() && places.tests.is_empty();
    if matches!(entry.state, State::Built) && (entry.functions.is_empty() || is_untested) {
        let numbered = id.test_prefix();
        problem(format!(
            "`built` needs `functions` and a test, in `tests` or by its name, `{numbered}…`; else it is `planned`"
        ));
    }
    (places, found)
}

fn dead_citations(tree: &Tree, list: &List) -> Vec<Problem> {
    let cited = tree.iter().filter(|(path, _)| sources::cites(path));
    let texts = cited.filter_map(|(path, text)| Some((path, text.as_ref()?)));
    let dead = |(path, text): (&PathBuf, &String)| {
        let dead = sources::citations(text).into_iter().filter(|(_, id)| !list.entries.contains_key(id));
        dead.map(|(line, id)| Problem::new(path, line, unlisted(id))).collect::<Vec<_>>()
    };
    texts.flat_map(dead).collect()
}

/// Tests whose names begin with a number of a family that has no such entry.
fn unlisted_tests(list: &List, sources: &Sources) -> Vec<Problem> {
    let is_dead = |id: &Id| list.family(*id).is_some() && !list.entries.contains_key(id);
    let dead = sources.all_numbered().filter(|(id, _)| is_dead(id));
    dead.map(|(id, test)| Problem::new(test.path, test.line, format!("test `{}`: {}", test.name, unlisted(id))))
        .collect()
}

fn unlisted(id: Id) -> String {
    format!(
        "{id} leads nowhere: {LIST} has no such entry; correct the number, or add `[{id}]` and run `cargo xtask ids`"
    )
}

/// The page that is there, unless it is the one that should be.
fn stale(tree: &Tree, page: &str) -> Option<Problem> {
    let fix = format!("`cargo xtask ids` writes it from {LIST}");
    let Some(Some(there)) = tree.get(Path::new(PAGE)) else {
        return Some(Problem::new(PAGE, 1, format!("missing; {fix}")));
    };
    let differs = |(old, new): (&str, &str)| old != new;
    let line =
        there.lines().zip(page.lines()).position(differs).unwrap_or(there.lines().count().min(page.lines().count()));
    (there != page).then(|| Problem::new(PAGE, line + 1, format!("stale; {fix}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: &str = "[family.Q]\ntitle = \"Made up\"\nabout = \"For tests.\"\nlast = 1\n";
    const CODE: &str =
        "//! x\npub fn ranked() {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn ranks_well() {}\n}\n";

    fn built(functions: &str, tests: &str) -> String {
        format!(
            "{FAMILY}\n[Q-01]\ntitle = \"One\"\nabout = \"It ranks.\"\nsource = \"§1\"\nstate = \"built\"\nfunctions = [{functions}]\ntests = [{tests}]\n"
        )
    }

    fn planned() -> String {
        format!("{FAMILY}\n[Q-01]\ntitle = \"One\"\nabout = \"It ranks.\"\nstate = \"planned\"\nplan = \"rankings\"\n")
    }

    fn tree(files: &[(&str, &str)]) -> Tree {
        files.iter().map(|(path, text)| (PathBuf::from(path), Some((*text).to_string()))).collect()
    }

    /// The problems of a list and files beside it, where the page is as it should be.
    fn check_problems(list: &str, files: &[(&str, &str)], expected: &[&str]) {
        let mut tree = tree(&[files, &[(LIST, list), ("crates/a/src/rank.rs", CODE)]].concat());
        if let (Some(page), _) = check(&tree) {
            tree.insert(PAGE.into(), Some(page));
        }
        let found = problems(&tree).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_built_has_a_function_and_a_test() {
        check_problems(&built("\"ranked\"", "\"ranks_well\""), &[], &[]);
        check_problems(&built("\"rank::ranked\"", "\"ranks_*\""), &[], &[]);
        let numbered = ("tests/a.rs", "#[test]\nfn q01_ranks() {}\n");
        check_problems(&built("\"ranked\"", ""), &[numbered], &[]);
        let needs = "docs/ids.toml:6: Q-01: `built` needs `functions` and a test, in `tests` or by its name, `q01_…`; else it is \
                     `planned`";
        check_problems(&built("\"ranked\"", ""), &[], &[needs]);
        check_problems(&built("", "\"ranks_well\""), &[], &[needs]);
    }

    #[test]
    fn a_function_or_test_that_is_gone_is_named() {
        let dead = "docs/ids.toml:6: Q-01: no `fn`, `struct`, `enum` or `trait` `sorted` in crates/*/src; name what does it now";
        check_problems(&built("\"ranked\", \"sorted\"", "\"ranks_well\""), &[], &[dead]);
        let dead = "docs/ids.toml:6: Q-01: no test `ranks_badly`; name one that holds it now";
        check_problems(&built("\"ranked\"", "\"ranks_well\", \"ranks_badly\""), &[], &[dead]);
        let test = "docs/ids.toml:6: Q-01: no `fn`, `struct`, `enum` or `trait` `ranks_well` in crates/*/src; name what does it now";
        check_problems(&built("\"ranked\", \"ranks_well\"", "\"ranks_well\""), &[], &[test]);
    }

    #[test]
    fn a_name_of_two_things_is_not_enough() {
        let other = ("crates/b/src/order.rs", "//! x\nimpl Order {\n    pub const fn ranked() {}\n}\n");
        let both = "docs/ids.toml:6: Q-01: `ranked` is in crates/a/src/rank.rs and crates/b/src/order.rs; write `module::ranked` or \
                    `Type::ranked`";
        check_problems(&built("\"ranked\"", "\"ranks_well\""), &[other], &[both]);
        check_problems(&built("\"order::ranked\"", "\"ranks_well\""), &[other], &[]);
        check_problems(&built("\"Order::ranked\"", "\"ranks_well\""), &[other], &[]);
        let private = ("crates/b/src/order.rs", "//! x\nfn ranked() {}\n");
        check_problems(&built("\"ranked\"", "\"ranks_well\""), &[private], &[]);
    }

    #[test]
    fn what_is_measured_names_a_metric_with_a_band() {
        let list = planned()
            .replace("state = \"planned\"\nplan = \"rankings\"", "state = \"measured\"\nmetrics = [\"q/share\"]");
        check_problems(&list, &[("a.bands.toml", "[metrics]\n\"q/share\" = { low = 0.1 }\n")], &[]);
        let dead = "docs/ids.toml:6: Q-01: no `*.bands.toml` holds a metric `q/share`; name one that a run is held to";
        check_problems(&list, &[("a.bands.toml", "\"q/share/all\" = 1\n")], &[dead]);
    }

    #[test]
    fn an_id_that_leads_nowhere_is_told_with_its_line() {
        let nowhere = "Q-02 leads nowhere: docs/ids.toml has no such entry; correct the number, or add `[Q-02]` and run `cargo xtask \
                       ids`";
        let cited = ("docs/a.md", "Q-01, and\nthen (Q-02).\n");
        check_problems(&planned(), &[cited], &[&format!("docs/a.md:2: {nowhere}")]);
        let test = ("tests/a.rs", "\n#[test]\nfn q02_is_new() {}\n");
        check_problems(&planned(), &[test], &[&format!("tests/a.rs:3: test `q02_is_new`: {nowhere}")]);
        check_problems(
            &planned(),
            &[("tests/a.rs", "#[test]\nfn z02_is_no_family() {}\nfn q02_is_no_test() {}\n")],
            &[],
        );
    }

    #[test]
    fn a_stale_page_is_told_with_the_command_that_writes_it() {
        let list = planned();
        let page = check(&tree(&[(LIST, &list)])).0.unwrap();
        let told = |page: &str| {
            problems(&tree(&[(LIST, &list), (PAGE, page)])).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(&page), [""; 0]);
        let line = page.lines().position(|line| line.contains("It ranks.")).unwrap() + 1;
        let stale =
            |line: usize| format!("docs/book/src/ids.md:{line}: stale; `cargo xtask ids` writes it from docs/ids.toml");
        assert_eq!(told(&page.replace("It ranks.", "It sorts.")), [stale(line)]);
        assert_eq!(told(&format!("{page}More.\n")), [stale(page.lines().count() + 1)]);
        let missing = problems(&tree(&[(LIST, &list)]));
        assert_eq!(
            missing[0].to_string(),
            "docs/book/src/ids.md:1: missing; `cargo xtask ids` writes it from docs/ids.toml"
        );
    }

    #[test]
    fn without_a_list_nothing_is_known() {
        assert_eq!(problems(&tree(&[("docs/a.md", "")])).len(), 1);
    }
}
