//! Comparisons as people publish them: HH transcripts and TRL's layouts (B-06).

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use firebrick_text::dialogue::{HUMAN, parse, render};
use firebrick_types::{Dialogue, LabelledComparison, Message, Role};
use serde::{Deserialize, Serialize};

use crate::conversations::prompt;
use crate::jsonl::{self, Record};
use crate::rows::{Dropped, Row, Rows};
use crate::{Error, store};

const SHAPE: &str = "{\"chosen\": …, \"rejected\": …} of two transcripts \"\\n\\nHuman: …\\n\\nAssistant: …\", \
                     or {\"prompt\": …, \"chosen\": …, \"rejected\": …}, \
                     or the same with lists of {\"role\", \"content\"}";

/// How many comparisons of a file were kept, and how many were dropped for what (B-06).
///
/// A comparison with more than one fault counts once, under the first in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hygiene {
    /// Kept.
    pub kept: usize,
    /// The roles do not alternate from the person to the assistant.
    pub broken_roles: usize,
    /// One of the two final answers is empty.
    pub empty_response: usize,
    /// The dialogues differ before the final answer.
    pub prefixes_differ: usize,
    /// The two answers are the same.
    pub identical: usize,
    /// The comparison was in the file before.
    pub duplicates: usize,
}

impl Hygiene {
    fn count(&mut self, dropped: Dropped) {
        *match dropped {
            Dropped::BrokenRoles => &mut self.broken_roles,
            Dropped::EmptyResponse => &mut self.empty_response,
            Dropped::PrefixesDiffer => &mut self.prefixes_differ,
            Dropped::Identical => &mut self.identical,
            Dropped::Duplicate => &mut self.duplicates,
            Dropped::NoText | Dropped::NoPair => unreachable!("a comparison is dropped for something else"),
        } += 1;
    }
}

impl fmt::Display for Hygiene {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, broken_roles, empty_response, prefixes_differ, identical, duplicates } = self;
        write!(
            formatter,
            "{kept} kept; dropped: {broken_roles} with a broken role order, {empty_response} with an empty answer, \
             {prefixes_differ} with different prompts, {identical} with identical answers, {duplicates} duplicates"
        )
    }
}

/// How the rows of a file hold a comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Transcripts,
    Completions,
    Messages,
}

impl Layout {
    fn of(row: &Record) -> Self {
        match row.value("chosen") {
            Some(chosen) if chosen.is_array() => Self::Messages,
            _ if row.has("prompt") => Self::Completions,
            _ => Self::Transcripts,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Transcripts => "two transcripts",
            Self::Completions => "a prompt with two completions",
            Self::Messages => "two lists of messages",
        }
    }
}

/// The comparisons of a file, without those that B-06 tells to drop, and the count of what was dropped: those of [`rows`].
///
/// # Errors
/// If the file cannot be read or one of its [`rows`] is an error.
pub fn read(path: &Path, tranche: &str) -> Result<(Vec<LabelledComparison>, Hygiene), Error> {
    let mut comparisons = Vec::new();
    let mut hygiene = Hygiene::default();
    for row in rows(path, tranche)? {
        match row?.content {
            Ok(comparison) => {
                hygiene.kept += 1;
                comparisons.push(comparison);
            }
            Err(dropped) => hygiene.count(dropped),
        }
    }
    Ok((comparisons, hygiene))
}

/// The rows of a file of comparisons, JSONL, gzip or not, or a table of [`store`].
///
/// The first row that can be understood decides which layout a JSONL file has:
/// - `{"chosen", "rejected"}`, two whole transcripts in the form of [`firebrick_text::dialogue`]: the files of HH-RLHF;
/// - `{"prompt", "chosen", "rejected"}`, a prompt, either plain or in that form, and two completions: TRL;
/// - `{"chosen", "rejected"}` as lists of `{"role", "content"}` with the roles `user` and `assistant`, either whole
///   conversations or the continuation of a `prompt`: TRL.
///
/// Other fields are passed over. Rows that B-06 tells to drop say why. Spec: B-06.
///
/// # Errors
/// If the file cannot be read. A row is an error that is no JSON object, lacks a field, has one of the wrong type, does not begin
/// with the person or has another layout than the first; faults that published data is known to have are reasons to drop it.
pub fn rows<'a>(path: &'a Path, tranche: &'a str) -> Result<Rows<'a, LabelledComparison>, Error> {
    if store::is_table(path) {
        return store::rows(path);
    }
    let mut seen = HashSet::new();
    let mut first: Option<Layout> = None;
    Ok(Box::new(jsonl::rows(path, SHAPE)?.map(move |row| {
        let row = row?;
        let layout = Layout::of(&row);
        if let Some(first) = first.filter(|&first| first != layout) {
            return Err(Error::Layout { place: row.place(), found: layout.name(), first: first.name() });
        }
        let sides = [dialogue(&row, layout, "chosen")?, dialogue(&row, layout, "rejected")?];
        first = Some(layout);
        let content = comparison(sides, tranche).and_then(|comparison| {
            let sides = [&comparison.comparison.a, &comparison.comparison.b];
            let texts = [&render(comparison.prompt()), sides[0], sides[1]];
            let is_new = seen.insert(texts.map(|text| blake3::hash(text.as_bytes())));
            if is_new { Ok(comparison) } else { Err(Dropped::Duplicate) }
        });
        Ok(Row { number: row.number(), content })
    })))
}

/// The comparison of two whole conversations, chosen and rejected.
fn comparison(sides: [Dialogue; 2], tranche: &str) -> Result<LabelledComparison, Dropped> {
    let [Some((prompt, chosen)), Some((other, rejected))] = sides.map(split_off_answer) else {
        return Err(Dropped::BrokenRoles);
    };
    if chosen.is_empty() || rejected.is_empty() {
        Err(Dropped::EmptyResponse)
    } else if prompt != other {
        Err(Dropped::PrefixesDiffer)
    } else if chosen == rejected {
        Err(Dropped::Identical)
    } else {
        Ok(LabelledComparison::of_chosen(prompt, chosen, rejected, tranche))
    }
}

/// The whole conversation of one side of a comparison.
fn dialogue(row: &Record, layout: Layout, side: &str) -> Result<Dialogue, Error> {
    match layout {
        Layout::Transcripts => transcript(row, side),
        Layout::Completions => {
            if row.text(side)?.starts_with(HUMAN) {
                return transcript(row, side);
            }
            Ok(prompt(row)?.with(Message::assistant(row.text(side)?.trim())))
        }
        Layout::Messages => {
            let answer = messages(row, side)?;
            let whole = answer.first().is_some_and(|message| message.role == Role::Human) || !row.has("prompt");
            let mut all = if whole { Vec::new() } else { prompt(row)?.messages };
            all.extend(answer);
            Ok(Dialogue::new(all))
        }
    }
}

fn transcript(row: &Record, field: &str) -> Result<Dialogue, Error> {
    parse(row.text(field)?).map_err(|_| row.wrong(field, r#"a transcript that begins with "\n\nHuman:""#))
}

fn messages(row: &Record, field: &str) -> Result<Vec<Message>, Error> {
    let message = |message: &Record| {
        let role = match message.text("role")? {
            "user" | "human" => Role::Human,
            "assistant" => Role::Assistant,
            _ => return Err(message.wrong("role", "`user` or `assistant`")),
        };
        Ok(Message { role, text: message.text("content")?.trim().to_owned() })
    };
    row.records(field)?.iter().map(message).collect()
}

/// The prompt and the final answer, or none where the roles are not in order.
fn split_off_answer(mut dialogue: Dialogue) -> Option<(Dialogue, String)> {
    if !dialogue.alternates() || dialogue.awaits_assistant() {
        return None;
    }
    let answer = dialogue.messages.pop()?;
    Some((dialogue, answer.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::{file_of, gzip, real_data};

    fn read_text(rows: &str) -> Result<(Vec<LabelledComparison>, Hygiene), Error> {
        let (_dir, path) = file_of("x.jsonl", rows.as_bytes());
        read(&path, "base")
    }

    fn message(rows: &str) -> String {
        let message = read_text(rows).unwrap_err().to_string();
        message.split_once("x.jsonl, ").unwrap().1.to_owned()
    }

    fn hh(chosen: &str, rejected: &str) -> String {
        serde_json::json!({ "chosen": chosen, "rejected": rejected }).to_string() + "\n"
    }

    fn wanted() -> LabelledComparison {
        let prompt = Dialogue::new(vec![Message::human("q"), Message::assistant("a"), Message::human("r")]);
        LabelledComparison::of_chosen(prompt, "good", "bad", "base")
    }

    #[test]
    fn every_layout_gives_the_same_comparison() {
        let stem = "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:";
        let turns = serde_json::json!([
            {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}
        ]);
        let answer = |text: &str| serde_json::json!({"role": "assistant", "content": text});
        let whole = |text: &str| [turns.as_array().unwrap().clone(), vec![answer(text)]].concat();
        let rows = [
            serde_json::json!({"chosen": format!("{stem} good"), "rejected": format!("{stem} bad")}),
            serde_json::json!({"prompt": stem, "chosen": " good", "rejected": " bad", "score": 1}),
            serde_json::json!({"prompt": stem, "chosen": format!("{stem} good"), "rejected": format!("{stem} bad")}),
            serde_json::json!({"prompt": turns, "chosen": [answer("good")], "rejected": [answer("bad")]}),
            serde_json::json!({"chosen": whole("good"), "rejected": whole("bad")}),
            serde_json::json!({"prompt": "r", "chosen": whole("good"), "rejected": whole("bad")}),
        ];
        for row in rows {
            let (comparisons, hygiene) = read_text(&row.to_string()).unwrap();
            assert_eq!(comparisons, [wanted()], "{row}");
            assert_eq!(hygiene, Hygiene { kept: 1, ..Hygiene::default() });
        }
    }

    #[test]
    fn a_plain_prompt_is_the_persons_turn() {
        let (comparisons, _) = read_text(r#"{"prompt": "Why? ", "chosen": "So.", "rejected": "No."}"#).unwrap();
        assert_eq!(*comparisons[0].prompt(), Dialogue::new(vec![Message::human("Why?")]));
    }

    #[test]
    fn each_known_fault_is_counted_once() {
        let good = hh("\n\nHuman: q\n\nAssistant: good", "\n\nHuman: q\n\nAssistant: bad");
        let rows = [
            good.clone(),
            // Two turns of the person; an end with the person; the assistant twice.
            hh("\n\nHuman: q\n\nHuman: q\n\nAssistant: good", "\n\nHuman: q\n\nAssistant: bad"),
            hh("\n\nHuman: q\n\nAssistant: good", "\n\nHuman: q"),
            hh("\n\nHuman: q\n\nAssistant: good\n\nAssistant: good", "\n\nHuman: q\n\nAssistant: bad"),
            hh("\n\nHuman: q\n\nAssistant:", "\n\nHuman: q\n\nAssistant: bad"),
            hh("\n\nHuman: q\n\nAssistant: good", "\n\nHuman: other\n\nAssistant: bad"),
            hh("\n\nHuman: q\n\nAssistant: same", "\n\nHuman: q\n\nAssistant:  same "),
            good,
        ];
        let (comparisons, hygiene) = read_text(&rows.concat()).unwrap();
        let expected =
            Hygiene { kept: 1, broken_roles: 3, empty_response: 1, prefixes_differ: 1, identical: 1, duplicates: 1 };
        assert_eq!(hygiene, expected);
        assert_eq!(comparisons.len(), 1);
    }

    #[test]
    fn a_gzip_file_reads_the_same() {
        let row = hh("\n\nHuman: q\n\nAssistant: good", "\n\nHuman: q\n\nAssistant: bad");
        let (_dir, path) = file_of("x.jsonl.gz", &gzip(row.as_bytes()));
        assert_eq!(read(&path, "base").unwrap(), read_text(&row).unwrap());
    }

    #[test]
    fn broken_rows_are_errors() {
        let good = hh("\n\nHuman: q\n\nAssistant: good", "\n\nHuman: q\n\nAssistant: bad");
        let cases = [
            ("{", "line 1, column 1: not a JSON object; a row is {\"chosen\": …"),
            (
                r#"{"chosen": "\n\nHuman: q"}"#,
                "line 1, field `rejected`: expected text, found no such field among `chosen`",
            ),
            (r#"{"chosen": 3, "rejected": ""}"#, "line 1, field `chosen`: expected text, found the number 3"),
            (
                r#"{"chosen": "Human: q", "rejected": ""}"#,
                r#"line 1, field `chosen`: expected a transcript that begins with "\n\nHuman:", found "Human: q""#,
            ),
            (
                r#"{"chosen": [{"role": "system", "content": "x"}], "rejected": []}"#,
                "line 1, field `chosen[0].role`: expected `user` or `assistant`, found \"system\"",
            ),
            (
                &(good + r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#),
                "line 2: a prompt with two completions, but the first row has two transcripts; keep one layout a file",
            ),
        ];
        for (rows, expected) in cases {
            let found = message(rows);
            assert!(found.starts_with(expected), "{found}");
        }
    }

    /// The released data is read without a broken row, and almost nothing is dropped.
    #[test]
    #[expect(clippy::print_stdout, reason = "the counts are worth reading")]
    fn the_released_data_is_clean() {
        let Some(root) = real_data("hh-rlhf-subset") else { return };
        for tranche in ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"] {
            for split in ["train", "test"] {
                let (comparisons, hygiene) = read(&root.join(format!("{tranche}/{split}.jsonl.gz")), tranche).unwrap();
                println!("{tranche}/{split}: {hygiene}");
                let Hygiene { kept, broken_roles, empty_response, prefixes_differ, identical, duplicates } = hygiene;
                let dropped = broken_roles + empty_response + prefixes_differ + identical + duplicates;
                assert_eq!(comparisons.len(), kept);
                assert!(dropped * 20 < kept, "{hygiene}");
                assert!(comparisons.iter().all(|row| row.prompt().alternates() && row.prompt().awaits_assistant()));
            }
        }
    }
}
