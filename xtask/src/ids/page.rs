//! The page of the book.

use std::collections::BTreeMap;

use super::id::Id;
use super::list::{Entry, Family, List, State};
use super::sources::Definition;
use super::{LIST, Places};

const INTRODUCTION: &str = "\
# What the ids stand for

Code, tests and pages cite systems, traps and parts by an id: `A` and `B` are the systems of the two papers this project follows, `C` those
of its vision, `T` traps that a test must be able to fall into. An id in the documentation of a function leads here, and from here to the
code that is it and to the tests that fail without it; tests that are named after an id, such as `t15_…`, belong to it.

- **built**: there is code, and a test that fails without it;
- **measured**: it is a number, and runs are [held to it](expected.md);
- **planned**: it will come, with the kind of piece that is named; what stands of it already is listed;
- **not planned**: it will not come, and why.
";

/// The whole page.
pub(super) fn render(list: &List, places: &BTreeMap<Id, Places>) -> String {
    let note = format!("<!-- `cargo xtask ids` writes this page from {LIST}: edit that. -->\n\n");
    let families = list.families.iter().map(|family| section(family, list, places)).collect::<String>();
    format!("{note}{INTRODUCTION}\n{}\n{}", overview(list), families.trim_end()) + "\n"
}

/// How many are how far, family by family.
fn overview(list: &List) -> String {
    let mut text =
        String::from("| ids | built | measured | planned | not planned |\n| --- | ---: | ---: | ---: | ---: |\n");
    for family in &list.families {
        let mut counts = [0; 4];
        entries(family, list).for_each(|(_, entry)| counts[rank(&entry.state)] += 1);
        let counts = counts.map(|count| count.to_string()).join(" | ");
        text += &format!("| `{}`, {} | {counts} |\n", family.letter, family.title);
    }
    text
}

fn rank(state: &State) -> usize {
    match state {
        State::Built => 0,
        State::Measured(_) => 1,
        State::Planned(_) => 2,
        State::NotPlanned(_) => 3,
    }
}

fn entries<'a>(family: &Family, list: &'a List) -> impl Iterator<Item = (&'a Id, &'a Entry)> {
    let letter = family.letter;
    list.entries.iter().filter(move |(id, _)| id.family == letter)
}

fn section(family: &Family, list: &List, places: &BTreeMap<Id, Places>) -> String {
    let entries = entries(family, list).map(|(id, entry)| paragraph(*id, entry, &places[id]));
    format!("## {}: {}\n\n{}\n\n{}", family.letter, family.title, family.about, entries.collect::<String>())
}

fn paragraph(id: Id, entry: &Entry, places: &Places) -> String {
    let Entry { title, about, source, state, lacks, .. } = entry;
    let source = source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
    let functions = links(&places.functions);
    let state = match state {
        State::Built => format!("built: {functions}"),
        State::Measured(metrics) => {
            let metrics = metrics.iter().map(|metric| format!("`{metric}`")).collect::<Vec<_>>().join(", ");
            format!("measured: {metrics}{}", prefixed("; by ", &functions))
        }
        State::Planned(plan) => format!("planned: {plan}{}", prefixed("\n- so far ", &functions)),
        State::NotPlanned(reason) => format!("not planned: {reason}"),
    };
    let tests = prefixed("- held by ", &links(&places.tests));
    let lacks = prefixed("- lacks ", lacks.as_deref().unwrap_or_default());
    let lines = [format!("- {state}"), tests, lacks].into_iter().filter(|line| !line.is_empty());
    format!("### {id}\n\n**{title}**{source}. {about}\n\n{}\n\n", lines.collect::<Vec<_>>().join("\n"))
}

fn prefixed(prefix: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{prefix}{text}") }
}

/// Links from the page to the files.
fn links(definitions: &[Definition]) -> String {
    let link = |one: &Definition| format!("[`{}`](../../../{})", one.name, one.path.display());
    definitions.iter().map(link).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ids::list::parse;

    #[test]
    fn a_paragraph_leads_to_code_and_tests() {
        let text = "[family.Q]\ntitle = \"Made up\"\nabout = \"For tests.\"\nlast = 2\n[Q-01]\ntitle = \"One\"\nabout = \"It ranks.\"\n\
                    source = \"§1\"\nstate = \"built\"\nlacks = \"speed.\"\n[Q-02]\ntitle = \"Two\"\nabout = \"It sorts.\"\nstate = \"planned\"\nplan = \"studies.\"\n";
        let list = parse(text).0;
        let one = |name| vec![Definition { name, path: Path::new("crates/a/src/b.rs"), line: 3 }];
        let first = Places { functions: one("ranked"), tests: one("ranks_well") };
        let [id, other] = ["Q-01", "Q-02"].map(|id| Id::parse(id).unwrap());
        let page = render(&list, &BTreeMap::from([(id, first), (other, Places::default())]));
        let expected = "## Q: Made up\n\nFor tests.\n\n### Q-01\n\n**One** (§1). It ranks.\n\n- built: [`ranked`](../../../crates/a/src/b.rs)\n\
                        - held by [`ranks_well`](../../../crates/a/src/b.rs)\n- lacks speed.\n\n### Q-02\n\n**Two**. It sorts.\n\n- planned: studies.\n";
        assert!(page.ends_with(expected), "{page}");
        assert!(page.contains("\n| `Q`, Made up | 1 | 0 | 1 | 0 |\n"), "{page}");
    }
}
