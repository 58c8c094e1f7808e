//! `cargo xtask tidy`: the rules of the workspace that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::ids;
use crate::process::workspace_root;

mod command;
mod crates;
mod documents;
mod duplicates;
mod sources;

/// A broken rule and its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(path: impl Into<PathBuf>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// Every file of the workspace by its path from the root; `None` where it is no text.
pub(crate) type Tree = BTreeMap<PathBuf, Option<String>>;

pub(crate) fn run() -> Result<()> {
    let tree = read_tree(workspace_root())?;
    let problems = problems(&tree)?;
    for problem in &problems {
        println!("{problem}");
    }
    let tests = sources::trap_tests(&tree);
    let traps = tests.iter().map(|name| format!("T-{}", &name[1..3])).collect::<BTreeSet<_>>();
    let traps = traps.into_iter().collect::<Vec<_>>();
    println!("tidy: {} files; {} tests of {} traps: {}", tree.len(), tests.len(), traps.len(), traps.join(" "));
    if !problems.is_empty() {
        bail!("tidy found {}", count(problems.len(), "problem"));
    }
    Ok(())
}

pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn problems(tree: &Tree) -> Result<Vec<Problem>> {
    let packages = crates::packages()?;
    let mut found = sources::problems(tree);
    found.extend(documents::problems(tree));
    found.extend(crates::problems(&packages, tree));
    found.extend(command::problems(tree));
    found.extend(duplicates::problems(tree));
    found.extend(ids::problems(tree));
    Ok(found)
}

/// Reads every file under the root except what builds and runs leave there.
pub(crate) fn read_tree(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let (path, kind) = (entry.path(), entry.file_type().context("cannot read a file's type")?);
            let local = path.strip_prefix(root).expect("the walk stays under the root").to_path_buf();
            if is_left_out(&local) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                tree.insert(local, String::from_utf8(bytes).ok());
            }
        }
    }
    Ok(tree)
}

/// What the root's `.gitignore` names, caches, and the hidden files of other tools.
fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ours = [".cargo", ".ci", ".config", ".github", ".gitignore", ".gitattributes"];
    let generated = ["target", "runs", "docs/book/book"].iter().any(|folder| path == Path::new(folder));
    generated || name == "__pycache__" || name.ends_with(".tmp") || (name.starts_with('.') && !ours.contains(&&*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let tree = read_tree(workspace_root()).unwrap();
        let problems = problems(&tree).unwrap();
        assert!(problems.is_empty(), "{}", problems.iter().map(|p| format!("\n{p}")).collect::<String>());
    }

    #[test]
    fn what_builds_leave_is_left_out() {
        for path in ["target", "runs", ".git", "docs/book/book", "crates/x/goldens/__pycache__", "a.tmp"] {
            assert!(is_left_out(Path::new(path)), "{path}");
        }
        for path in [".ci", ".gitignore", "crates/x/src/target.rs", "docs/book", "crates/x/src/runs"] {
            assert!(!is_left_out(Path::new(path)), "{path}");
        }
    }
}
