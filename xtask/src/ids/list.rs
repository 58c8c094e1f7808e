//! The list as it is written: families of ids, and an entry of each.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::id::Id;
use super::{LIST, Problem};

/// All families and entries.
#[derive(Debug, Default)]
pub(super) struct List {
    /// In the order of the file.
    pub(super) families: Vec<Family>,
    pub(super) entries: BTreeMap<Id, Entry>,
}

impl List {
    /// The family of an id.
    pub(super) fn family(&self, id: Id) -> Option<&Family> {
        self.families.iter().find(|family| family.letter == id.family)
    }
}

/// Ids of one letter, numbered from 1 to `last`.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) letter: char,
    pub(super) title: String,
    pub(super) about: String,
    last: u32,
    line: usize,
}

/// What an id stands for.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it begins in the list.
    pub(super) line: usize,
    pub(super) title: String,
    pub(super) about: String,
    /// Section, equation or figure of its source.
    pub(super) source: Option<String>,
    pub(super) state: State,
    /// Functions and types that are it, or the part of it that stands.
    pub(super) functions: Vec<String>,
    /// Tests that fail without it; those that are named after its number need not be listed.
    pub(super) tests: Vec<String>,
    /// What is still to come of it.
    pub(super) lacks: Option<String>,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum State {
    /// There is code, and a test that fails without it.
    Built,
    /// Runs are held to these metrics.
    Measured(Vec<String>),
    /// It will come with this kind of piece.
    Planned(String),
    /// It will not come, and why.
    NotPlanned(String),
}

/// The list, and what is wrong with it by itself.
pub(super) fn parse(text: &str) -> (List, Vec<Problem>) {
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|&byte| byte == b'\n').count() + 1;
            return (List::default(), vec![Problem::new(LIST, line, error.message())]);
        }
    };
    let mut found = Vec::new();
    let mut list = List::default();
    for (name, value) in &table {
        if name == "family" {
            for (letter, value) in value.as_table().into_iter().flatten() {
                let line = line_of(text, &format!("family.{letter}"));
                let fields = Fields { name: format!("family {letter}"), line, value, found: &mut found };
                list.families.extend(fields.family(letter));
            }
        } else {
            let fields = Fields { name: name.clone(), line: line_of(text, name), value, found: &mut found };
            list.entries.extend(fields.entry());
        }
    }
    found.extend(gaps(&list));
    (list, found)
}

/// The line of a table's header.
fn line_of(text: &str, table: &str) -> usize {
    let header = format!("[{table}]");
    text.lines().position(|line| line.trim_end() == header).map_or(1, |index| index + 1)
}

/// Numbers without an entry, and entries without a number.
fn gaps(list: &List) -> Vec<Problem> {
    let mut found = Vec::new();
    for &Family { letter, last, line, .. } in &list.families {
        let ids = (1..=last).map(|number| Id { family: letter, number });
        let missing = ids.filter(|id| !list.entries.contains_key(id));
        found.extend(missing.map(|id| {
            Problem::new(LIST, line, format!("{id} is missing, though {letter} goes to {last}: add `[{id}]`"))
        }));
    }
    for (id, entry) in &list.entries {
        match list.family(*id) {
            Some(family) if (1..=family.last).contains(&id.number) => {}
            Some(family) => {
                let message =
                    format!("{id} is no number from 1 to {}; raise `last` of family {}", family.last, id.family);
                found.push(Problem::new(LIST, entry.line, message));
            }
            None => found.push(Problem::new(
                LIST,
                entry.line,
                format!("{id} is of no family; add `[family.{}]`", id.family),
            )),
        }
    }
    found
}

/// The fields of a table that are read one by one.
struct Fields<'a> {
    name: String,
    line: usize,
    value: &'a Value,
    found: &'a mut Vec<Problem>,
}

impl Fields<'_> {
    fn family(mut self, letter: &str) -> Option<Family> {
        self.only(&["title", "about", "last"]);
        let last = self.value.get("last").and_then(Value::as_integer).and_then(|last| u32::try_from(last).ok());
        let (letter, last) = match (letter.as_bytes(), last) {
            ([letter @ b'A'..=b'Z'], Some(last @ 1..=99)) => (char::from(*letter), last),
            _ => {
                self.problem("a family is one capital letter with `last` from 1 to 99");
                return None;
            }
        };
        Some(Family { letter, title: self.text("title"), about: self.text("about"), last, line: self.line })
    }

    fn entry(mut self) -> Option<(Id, Entry)> {
        let Some(id) = Id::parse(&self.name) else {
            self.problem("no id; one is a capital letter, a hyphen and two digits");
            return None;
        };
        let (state, key) = match self.text("state").as_str() {
            "built" => (State::Built, None),
            "measured" => (State::Measured(self.texts("metrics", true)), Some("metrics")),
            "planned" => (State::Planned(self.text("plan")), Some("plan")),
            "not planned" => (State::NotPlanned(self.text("reason")), Some("reason")),
            _ => {
                self.problem("`state` is one of `built`, `measured`, `planned`, `not planned`");
                return None;
            }
        };
        let known = ["title", "about", "source", "state", "functions", "tests", "lacks"].into_iter().chain(key);
        self.only(&known.collect::<Vec<_>>());
        let entry = Entry {
            line: self.line,
            title: self.text("title"),
            about: self.text("about"),
            source: self.value.get("source").map(|_| self.text("source")),
            state,
            functions: self.texts("functions", false),
            tests: self.texts("tests", false),
            lacks: self.value.get("lacks").map(|_| self.text("lacks")),
        };
        Some((id, entry))
    }

    fn problem(&mut self, message: &str) {
        self.found.push(Problem::new(LIST, self.line, format!("{}: {message}", self.name)));
    }

    /// Refuses every other key.
    fn only(&mut self, known: &[&str]) {
        let keys = self.value.as_table().into_iter().flat_map(Table::keys);
        for key in keys.filter(|key| !known.contains(&key.as_str())) {
            self.problem(&format!("no place for `{key}` here; the keys are {}", known.join(", ")));
        }
    }

    fn text(&mut self, key: &str) -> String {
        let text = self.value.get(key).and_then(Value::as_str).map(str::trim).unwrap_or_default();
        if text.is_empty() {
            self.problem(&format!("`{key}` is missing, empty or no text"));
        }
        text.to_string()
    }

    fn texts(&mut self, key: &str, needed: bool) -> Vec<String> {
        let Some(value) = self.value.get(key) else {
            if needed {
                self.problem(&format!("`{key}` is missing"));
            }
            return Vec::new();
        };
        let texts = value.as_array().map(|values| values.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        match texts.flatten() {
            Some(texts) if !needed || !texts.is_empty() => texts.into_iter().map(str::to_string).collect(),
            _ => {
                self.problem(&format!("`{key}` is a list of texts"));
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: &str = "[family.Q]\ntitle = \"x\"\nabout = \"x\"\nlast = 2\n";
    const ONE: &str = "[Q-01]\ntitle = \"x\"\nabout = \"x\"\nstate = \"planned\"\nplan = \"x\"\n";

    fn check(text: &str, expected: &[(usize, &str)]) {
        let found = parse(text).1;
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (problem, (line, message)) in found.iter().zip(expected) {
            assert_eq!((problem.line, problem.message.as_str()), (*line, *message));
        }
    }

    #[test]
    fn numbers_that_are_left_out_are_named() {
        let two = ONE.replace("Q-01", "Q-02");
        check(&format!("{FAMILY}{ONE}{two}"), &[]);
        check(&format!("{FAMILY}{ONE}"), &[(1, "Q-02 is missing, though Q goes to 2: add `[Q-02]`")]);
        let three = ONE.replace("Q-01", "Q-03");
        let beyond = (15, "Q-03 is no number from 1 to 2; raise `last` of family Q");
        check(&format!("{FAMILY}{ONE}{two}{three}"), &[beyond]);
        check(ONE, &[(1, "Q-01 is of no family; add `[family.Q]`")]);
    }

    #[test]
    fn each_state_has_its_own_key() {
        let family = FAMILY.replace('2', "1");
        let with = |state: &str| format!("{family}[Q-01]\ntitle = \"x\"\nabout = \"x\"\n{state}\n");
        check(&with("state = \"not planned\"\nreason = \"x\""), &[]);
        check(&with("state = \"measured\"\nmetrics = [\"x\"]"), &[]);
        check(&with("state = \"built\"\nfunctions = [\"f\"]\ntests = [\"t\"]\nlacks = \"x\""), &[]);
        check(&with("state = \"planned\""), &[(5, "Q-01: `plan` is missing, empty or no text")]);
        check(&with("state = \"measured\"\nmetrics = []"), &[(5, "Q-01: `metrics` is a list of texts")]);
        let keys = "Q-01: no place for `plan` here; the keys are title, about, source, state, functions, tests, lacks";
        check(&with("state = \"built\"\nplan = \"x\""), &[(5, keys)]);
        let states = "Q-01: `state` is one of `built`, `measured`, `planned`, `not planned`";
        check(&with("state = \"done\""), &[(5, states), (1, "Q-01 is missing, though Q goes to 1: add `[Q-01]`")]);
    }

    #[test]
    fn what_is_no_list_is_told_with_its_line() {
        check("[Q-01\n", &[(1, parse("[Q-01\n").1[0].message.clone().as_str())]);
        assert_eq!(parse("[family.Q]\ntitle = 'x\n").1[0].line, 2);
        check("[Q-1]\nstate = \"built\"\n", &[(1, "Q-1: no id; one is a capital letter, a hyphen and two digits")]);
        check("[family.QQ]\nlast = 1\n", &[(1, "family QQ: a family is one capital letter with `last` from 1 to 99")]);
    }
}
