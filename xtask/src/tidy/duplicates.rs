//! Crates that the lock file holds in several versions: each is listed with its reason in `skip` of `deny.toml`, and no other is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::{Table, Value};

use super::{Problem, Tree};

const LOCK: &str = "Cargo.lock";
const LIST: &str = "deny.toml";

/// A version and the line of its name in the lock file.
type Version<'a> = (&'a str, usize);

pub(super) fn problems(tree: &Tree) -> Vec<Problem> {
    let text = |path: &str| tree.get(Path::new(path)).and_then(|text| text.as_deref());
    match (text(LOCK), text(LIST)) {
        (Some(lock), Some(list)) => duplicates(lock, list),
        (None, _) => vec![Problem::new(LOCK, 1, "missing; it tells the versions of all dependencies")],
        (_, None) => vec![Problem::new(LIST, 1, "missing; it lists the crates that may be there in several versions")],
    }
}

fn duplicates(lock: &str, list: &str) -> Vec<Problem> {
    let (listed, mut found) = match listed(list) {
        Ok(listed) => listed,
        Err(problem) => return vec![problem],
    };
    let locked = versions(lock);
    for (name, versions) in locked.iter().filter(|(name, versions)| versions.len() > 1 && !listed.contains(**name)) {
        let numbers = versions.iter().map(|(version, _)| *version).collect::<Vec<_>>().join(", ");
        let message = format!(
            "`{name}` is there in {} versions, {numbers}; settle on one, or list it with its reason in `skip` of {LIST}",
            versions.len()
        );
        found.push(Problem::new(LOCK, versions[1].1, message));
    }
    for name in listed {
        let message = match locked.get(name.as_str()).map(Vec::as_slice) {
            None => format!("`{name}` is not in {LOCK} any more; take it off the list"),
            Some([(version, _)]) => format!("`{name}` is in {LOCK} once, {version}; take it off the list"),
            Some(_) => continue,
        };
        found.push(Problem::new(LIST, line_of(list, &name), message));
    }
    found
}

/// The versions of every crate.
fn versions(lock: &str) -> BTreeMap<&str, Vec<Version<'_>>> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    let mut name = None;
    for (number, line) in (1..).zip(lock.lines()) {
        let quoted = |key| line.strip_prefix(key)?.strip_suffix('"');
        if let Some(package) = quoted("name = \"") {
            name = Some((package, number));
        } else if let Some(version) = quoted("version = \"")
            && let Some((package, number)) = name.take()
        {
            found.entry(package).or_default().push((version, number));
        }
    }
    found
}

/// The crates of the list, and those that have no reason.
fn listed(list: &str) -> Result<(BTreeSet<String>, Vec<Problem>), Problem> {
    let table = list.parse::<Table>().map_err(|error| Problem::new(LIST, 1, error.message()))?;
    let skipped = table.get("bans").and_then(|bans| bans.get("skip")).and_then(Value::as_array).into_iter().flatten();
    let (mut names, mut found) = (BTreeSet::new(), Vec::new());
    for entry in skipped {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = text("crate");
        if text("reason").trim().is_empty() {
            let message = format!("`{name}` is listed without a reason; add `reason`: who brings which version");
            found.push(Problem::new(LIST, line_of(list, name), message));
        }
        names.insert(name.to_string());
    }
    Ok((names, found))
}

fn line_of(list: &str, name: &str) -> usize {
    let entry = format!("crate = \"{name}\"");
    list.lines().position(|line| line.contains(&entry)).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\n \"b 0.2.0\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"0.2.0\"\n\n[[package]]\nname = \"b\"\nversion = \"0.3.1\"\n";

    fn check(skip: &str, expected: &[&str]) {
        let found = duplicates(LOCK, &format!("[bans]\nskip = [\n{skip}]\n"));
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_duplicate_is_listed_with_its_reason() {
        check("{ crate = \"b\", reason = \"a stays behind\" },\n", &[]);
        let message = "Cargo.lock:15: `b` is there in 2 versions, 0.2.0, 0.3.1; settle on one, or list it with its reason in `skip` of \
                       deny.toml";
        check("", &[message]);
        let message = "deny.toml:3: `b` is listed without a reason; add `reason`: who brings which version";
        check("{ crate = \"b\" },\n", &[message]);
    }

    #[test]
    fn what_is_no_duplicate_any_more_leaves_the_list() {
        let b = "{ crate = \"b\", reason = \"x\" },\n";
        let once = "deny.toml:4: `a` is in Cargo.lock once, 1.0.0; take it off the list";
        check(&format!("{b}{{ crate = \"a\", reason = \"x\" }},\n"), &[once]);
        let gone = "deny.toml:4: `c` is not in Cargo.lock any more; take it off the list";
        check(&format!("{b}{{ crate = \"c\", reason = \"x\" }},\n"), &[gone]);
    }

    #[test]
    fn both_files_are_needed() {
        let file = |path: &str| (path.into(), Some(String::new()));
        assert_eq!(problems(&Tree::from([file("deny.toml")]))[0].path, Path::new("Cargo.lock"));
        assert_eq!(problems(&Tree::from([file("Cargo.lock")]))[0].path, Path::new("deny.toml"));
        assert_eq!(problems(&Tree::from([file("Cargo.lock"), file("deny.toml")])), []);
    }
}
