//! What the sources define, and which ids they cite.

use std::collections::BTreeMap;
use std::path::Path;

use super::id::Id;
use super::{PAGE, Tree};

/// A function, type or test, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Definition<'a> {
    pub(super) name: &'a str,
    pub(super) path: &'a Path,
    pub(super) line: usize,
}

/// All definitions by their names.
pub(super) struct Sources<'a> {
    tree: &'a Tree,
    /// Of the crates, tests apart; each with whether it is public.
    functions: BTreeMap<&'a str, Vec<(Definition<'a>, bool)>>,
    tests: BTreeMap<&'a str, Vec<Definition<'a>>>,
}

impl<'a> Sources<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        let mut sources = Self { tree, functions: BTreeMap::new(), tests: BTreeMap::new() };
        for (path, text) in tree.iter().filter_map(|(path, text)| Some((path, text.as_ref()?))) {
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            for (line, name, kind) in definitions(text) {
                let definition = Definition { name, path, line };
                if kind == Kind::Test {
                    sources.tests.entry(name).or_default().push(definition);
                } else if is_of_a_crate(path) {
                    sources.functions.entry(name).or_default().push((definition, kind == Kind::Public));
                }
            }
        }
        sources
    }

    /// The function or type that a reference means: a name, or `module::name` or `Type::name` where several files have the name. One
    /// that is public goes before those that are not.
    pub(super) fn function<'r>(&self, reference: &'r str) -> Result<Definition<'r>, String>
    where
        'a: 'r,
    {
        let (qualifier, name) = match reference.rsplit_once("::") {
            Some((qualifier, name)) => (Some(qualifier), name),
            None => (None, reference),
        };
        let all = self.functions.get(name).into_iter().flatten();
        let mut fitting =
            all.filter(|(one, _)| qualifier.is_none_or(|it| self.is_in(one.path, it))).collect::<Vec<_>>();
        if fitting.iter().any(|(_, is_public)| *is_public) {
            fitting.retain(|(_, is_public)| *is_public);
        }
        fitting.dedup_by_key(|(one, _)| one.path);
        match fitting[..] {
            [(one, _)] => Ok(Definition { name: reference, ..*one }),
            [] => Err(format!(
                "no `fn`, `struct`, `enum` or `trait` `{reference}` in crates/*/src; name what does it now"
            )),
            ref several => {
                let paths = several.iter().map(|(one, _)| one.path.display().to_string()).collect::<Vec<_>>();
                Err(format!("`{reference}` is in {}; write `module::{name}` or `Type::{name}`", paths.join(" and ")))
            }
        }
    }

    /// Whether a file is the module, or has methods of the type.
    fn is_in(&self, path: &Path, qualifier: &str) -> bool {
        let is = |part: Option<&std::ffi::OsStr>| part.is_some_and(|part| part == qualifier);
        let text = self.tree[path].as_deref().unwrap_or_default();
        let words = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == qualifier);
        let mut blocks =
            text.lines().filter(|line| ["impl", "trait", "pub trait"].iter().any(|start| line.starts_with(start)));
        is(path.file_stem()) || is(path.parent().and_then(Path::file_name)) || blocks.any(words)
    }

    /// The tests that a reference means: all of this name, or whose names begin with what stands before a `*`.
    pub(super) fn tests(&self, reference: &str) -> Result<Vec<Definition<'a>>, String> {
        let found = match reference.strip_suffix('*') {
            Some(start) => self
                .tests
                .range(start..)
                .take_while(|(name, _)| name.starts_with(start))
                .flat_map(|(_, all)| all)
                .copied()
                .collect(),
            None => self.tests.get(reference).cloned().unwrap_or_default(),
        };
        if found.is_empty() { Err(format!("no test `{reference}`; name one that holds it now")) } else { Ok(found) }
    }

    /// The tests that are named after an id.
    pub(super) fn numbered(&self, id: Id) -> Vec<Definition<'a>> {
        self.all_numbered().filter(|(other, _)| *other == id).map(|(_, test)| test).collect()
    }

    /// Every test that is named after an id.
    pub(super) fn all_numbered(&self) -> impl Iterator<Item = (Id, Definition<'a>)> {
        self.tests.values().flatten().filter_map(|test| Some((Id::of_test(test.name)?, *test)))
    }

    /// Whether runs are held to a metric.
    pub(super) fn has_band(&self, metric: &str) -> bool {
        let bands = self.tree.iter().filter(|(path, _)| path.to_string_lossy().ends_with(".bands.toml"));
        let start = format!("\"{metric}\" =");
        bands.filter_map(|(_, text)| text.as_deref()).any(|text| text.lines().any(|line| line.starts_with(&start)))
    }
}

/// Whether a file is a library's or a program's, and no test beside it.
fn is_of_a_crate(path: &Path) -> bool {
    let mut parts = path.components().map(|part| part.as_os_str());
    parts.next().is_some_and(|part| part == "crates") && parts.nth(1).is_some_and(|part| part == "src")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Test,
    Public,
    Private,
}

/// The line, the name and the kind of every function and type.
fn definitions(text: &str) -> Vec<(usize, &str, Kind)> {
    let mut found = Vec::new();
    let mut is_test = false;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let kind = match (is_test, line.starts_with("pub ")) {
            (true, _) => Kind::Test,
            (false, true) => Kind::Public,
            (false, false) => Kind::Private,
        };
        found.extend(defined(line).map(|name| (number, name, kind)));
        let is_above_an_item = line.starts_with('#') || line.starts_with("//");
        is_test = line == "#[test]" || (is_test && is_above_an_item);
    }
    found
}

/// The name of the function or type that a line begins to define.
fn defined(line: &str) -> Option<&str> {
    const BEFORE: [&str; 6] = ["pub ", "pub(crate) ", "pub(super) ", "const ", "unsafe ", "async "];
    let mut rest = line;
    while let Some(after) = BEFORE.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = after;
    }
    let rest = ["fn ", "struct ", "enum ", "trait "].iter().find_map(|word| rest.strip_prefix(word))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

/// Whether ids in a file have to lead somewhere. Those of this program's own tests are made up.
pub(super) fn cites(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    ["rs", "md", "toml", "py"].contains(&&*extension) && path != Path::new(PAGE) && !path.starts_with("xtask")
}

/// The ids in a text, each with its line.
pub(super) fn citations(text: &str) -> Vec<(usize, Id)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
        found.extend(words.filter_map(Id::parse).map(|id| (number, id)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_types_and_tests_are_told_apart() {
        let text = "pub fn a() {}\n    pub(crate) const fn b<T>() {}\n// fn c()\nstruct D;\npub enum E {}\n#[test]\n/// It is.\n#[should_panic]\nfn f() {}\nfn g() {}\nlet fn_h = 1;\nfnord\n";
        let (public, private) = (Kind::Public, Kind::Private);
        let expected = [
            (1, "a", public),
            (2, "b", private),
            (4, "D", private),
            (5, "E", public),
            (9, "f", Kind::Test),
            (10, "g", private),
        ];
        assert_eq!(definitions(text), expected);
    }

    #[test]
    fn only_what_lies_in_src_is_of_a_crate() {
        assert!(is_of_a_crate(Path::new("crates/a/src/b/c.rs")));
        for other in ["crates/a/tests/src/b.rs", "xtask/src/main.rs", "tests/src/a.rs", "crates/a.rs"] {
            assert!(!is_of_a_crate(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn ids_are_found_between_other_signs_and_not_within_words() {
        let cited =
            |text: &str| citations(text).into_iter().map(|(line, id)| format!("{line} {id}")).collect::<Vec<_>>();
        assert_eq!(cited("(Q-01, Q-02)\n`Q-03`: Q-04/Q-05.\n"), ["1 Q-01", "1 Q-02", "2 Q-03", "2 Q-04", "2 Q-05"]);
        assert_eq!(cited("UTF-16 Q-015 Q-01-02 Q-1 q-01 XQ-01 Q-01x Q_Q-01"), [""; 0]);
    }
}
