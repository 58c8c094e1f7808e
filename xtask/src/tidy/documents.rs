//! Rules of the Markdown pages: links lead somewhere, and the book lists every page by its title.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{Problem, Tree};
use crate::markdown;

const BOOK: &str = "docs/book/src";

pub(super) fn problems(tree: &Tree) -> Vec<Problem> {
    let pages = tree.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "md"));
    let texts = pages.filter_map(|(path, text)| Some((path, text.as_ref()?)));
    let mut found = texts.flat_map(|(path, text)| dead_links(path, text, tree)).collect::<Vec<_>>();
    found.extend(unlisted_pages(tree));
    found
}

fn dead_links(page: &Path, text: &str, tree: &Tree) -> Vec<Problem> {
    let dead = |(line, target): (usize, String)| {
        let reason = link_error(page, &target, tree)?;
        Some(Problem::new(page, line, format!("link `{target}`: {reason}")))
    };
    markdown::links(text).into_iter().filter_map(dead).collect()
}

/// Why the link leads nowhere, if so. Links to the web and to items of Rust code are for other tools to check.
fn link_error(page: &Path, target: &str, tree: &Tree) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") || target.contains("::") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let file = if path.is_empty() { page.to_path_buf() } else { resolve(page, path) };
    let exists = tree.contains_key(&file) || tree.keys().any(|known| known.starts_with(&file));
    if !exists {
        return Some(format!("there is no {}", file.display()));
    }
    let text = tree.get(&file)?.as_ref()?;
    let is_page = file.extension().is_some_and(|extension| extension == "md");
    match anchor {
        Some(anchor) if is_page && !markdown::anchors(text).iter().any(|known| known == anchor) => {
            Some(format!("{} has no heading `{anchor}`", file.display()))
        }
        _ => None,
    }
}

/// The path from the root that a page means by a relative path.
fn resolve(page: &Path, relative: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_path_buf();
    for component in Path::new(relative).components() {
        match component {
            Component::ParentDir => _ = path.pop(),
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

/// Pages that the book's summary does not list, or lists under another title than their own.
fn unlisted_pages(tree: &Tree) -> Vec<Problem> {
    let summary = Path::new(BOOK).join("SUMMARY.md");
    let Some(Some(text)) = tree.get(&summary) else {
        return vec![Problem::new(summary, 1, "the book has no summary")];
    };
    let listed = titles(text).map(|(line, title, target)| (resolve(&summary, target), (line, title)));
    let listed = listed.collect::<BTreeMap<_, _>>();
    let is_page = |path: &Path| path.starts_with(BOOK) && path.extension().is_some_and(|extension| extension == "md");
    let mut found = Vec::new();
    for (path, page) in tree.iter().filter(|(path, _)| is_page(path) && **path != summary) {
        let own = page.iter().flat_map(|page| page.lines()).find_map(|line| line.strip_prefix("# "));
        match (listed.get(path), own) {
            (None, _) => {
                let message = format!("{} does not list this page", summary.display());
                found.push(Problem::new(path, 1, message));
            }
            (Some(_), None) => found.push(Problem::new(path, 1, "a page without a title, `# …`")),
            (Some(&(line, title)), Some(own)) if title != own => {
                let message =
                    format!("{} is titled \"{own}\", not \"{title}\"; use one of them in both", path.display());
                found.push(Problem::new(&summary, line, message));
            }
            _ => {}
        }
    }
    found
}

/// The line, title and target of every entry of a summary, `- [title](target)`.
fn titles(summary: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    (1..).zip(summary.lines()).filter_map(|(number, line)| {
        let (title, target) = line.trim_start().strip_prefix("- [")?.rsplit_once("](")?;
        Some((number, title, target.strip_suffix(')')?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        files.iter().map(|(path, text)| (PathBuf::from(path), Some((*text).to_string()))).collect()
    }

    #[test]
    fn links_lead_to_files_folders_and_headings() {
        let tree = tree(&[("README.md", "# Top\n"), ("docs/a.md", "# One two\n"), ("src/x.rs", "")]);
        let error = |target: &str| link_error(Path::new("docs/a.md"), target, &tree);
        for good in
            ["../README.md", "../README.md#top", "#one-two", "a.md", "../src", "../src/x.rs#L10", "https://x.y#z"]
        {
            assert_eq!(error(good), None, "{good}");
        }
        assert_eq!(error("crate::gae"), None);
        assert_eq!(error("b.md").unwrap(), "there is no docs/b.md");
        assert_eq!(error("../README.md#bottom").unwrap(), "README.md has no heading `bottom`");
        assert_eq!(error("#three").unwrap(), "docs/a.md has no heading `three`");
    }

    #[test]
    fn a_dead_link_is_reported_with_its_line() {
        let tree = tree(&[("a.md", "")]);
        let found = dead_links(Path::new("a.md"), "fine\n[x](gone.md)\n", &tree);
        assert_eq!(found, [Problem::new("a.md", 2, "link `gone.md`: there is no gone.md")]);
    }

    #[test]
    fn the_book_lists_every_page_by_its_title() {
        let summary = ("docs/book/src/SUMMARY.md", "# Summary\n\n- [One](one.md)\n  - [Two of `x`](deep/two.md)\n");
        let pages = [
            summary,
            ("docs/book/src/one.md", "# One\n"),
            ("docs/book/src/deep/two.md", "Note\n# Two of `x`\n# Not this\n"),
        ];
        assert_eq!(unlisted_pages(&tree(&pages)), []);
        let more = [&pages[..], &[("docs/book/src/three.md", "")]].concat();
        assert_eq!(unlisted_pages(&tree(&more))[0].path, Path::new("docs/book/src/three.md"));
        assert_eq!(unlisted_pages(&tree(&[]))[0].message, "the book has no summary");
        let renamed = unlisted_pages(&tree(&[summary, ("docs/book/src/one.md", "# First\n"), pages[2]]));
        let message = "docs/book/src/one.md is titled \"First\", not \"One\"; use one of them in both";
        assert_eq!(renamed, [Problem::new("docs/book/src/SUMMARY.md", 3, message)]);
        let untitled = unlisted_pages(&tree(&[summary, ("docs/book/src/one.md", "One\n"), pages[2]]));
        assert_eq!(untitled, [Problem::new("docs/book/src/one.md", 1, "a page without a title, `# …`")]);
    }
}
