//! Rows to finetune on, and prompts, as people publish them.

use std::fmt;
use std::path::Path;

use firebrick_text::dialogue::{ASSISTANT, HUMAN, parse};
use firebrick_types::{Dialogue, Example, Message, Role};
use serde_json::Value;

use crate::jsonl::{self, Record};
use crate::layout::Layout;
use crate::rows::{Dropped, Row, Rows, each, kept};
use crate::{Error, comparisons, store, text};

const SHAPE: &str = "{\"messages\": [{\"role\", \"content\"}]}, {\"conversations\": [{\"from\", \"value\"}]}, \
                     {\"prompt\": …, \"completion\": …}, {\"instruction\": …, \"input\": …, \"output\": …} or {\"text\": …}";

/// How many rows of a file were kept, and how many were dropped for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Kept.
    pub kept: usize,
    /// The assistant says nothing.
    pub empty_response: usize,
    /// The roles are not in order: the system first, then the person and the assistant in turn.
    pub broken_roles: usize,
}

impl fmt::Display for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, empty_response, broken_roles } = self;
        write!(
            formatter,
            "{kept} kept; dropped: {empty_response} without an answer, {broken_roles} with a broken role order"
        )
    }
}

/// What the rows of a file give to finetune on, and how many of its [`rows`] do.
///
/// # Errors
/// If the file cannot be read or one of its [`rows`] is an error.
pub fn read(path: &Path, max_characters: usize) -> Result<(Vec<Example>, Kept), Error> {
    let (mut examples, mut kept) = (Vec::new(), Kept::default());
    for row in rows(path, max_characters)? {
        match row?.content {
            Ok(example) => {
                kept.kept += 1;
                examples.push(example);
            }
            Err(Dropped::EmptyResponse) => kept.empty_response += 1,
            Err(Dropped::BrokenRoles) => kept.broken_roles += 1,
            // What only comparisons and texts are dropped for.
            Err(_) => {}
        }
    }
    Ok((examples, kept))
}

/// The rows of a file to finetune on.
///
/// The first row decides which layout the file has:
/// - `messages`, a list of `{"role", "content"}`, or `conversations`, a list of `{"from", "value"}` (ShareGPT);
/// - `prompt` and `completion`, texts or lists of messages (TRL);
/// - `instruction`, `input` and `output` (Alpaca); the input stands two lines below the instruction;
/// - `text`, or a file that is no JSONL: all of it is learnt, in documents of at most `max_characters`;
/// - comparisons, whose chosen responses are taken.
///
/// What follows the assistant's last turn is cut off. Other fields are passed over. A table of [`store`] holds one of these.
///
/// # Errors
/// If the file cannot be read or its first row has no layout. A row is an error that is no JSON object, lacks a field, has one of the
/// wrong type or another layout than the first.
pub fn rows(path: &Path, max_characters: usize) -> Result<Rows<'_, Example>, Error> {
    rows_of(path, Layout::of(path)?, max_characters)
}

/// The [`rows`] of a file of this layout.
pub(crate) fn rows_of(path: &Path, layout: Layout, max_characters: usize) -> Result<Rows<'_, Example>, Error> {
    match layout {
        Layout::Text => Ok(each(text::rows(path, max_characters)?, Example::Text)),
        Layout::Comparisons => {
            let comparisons = comparisons::rows(path, "")?.filter_map(|row| match row {
                Ok(Row { number, content: Ok(one) }) => {
                    let (chosen, _) = one.chosen_and_rejected()?;
                    let example = Example::Conversation(one.prompt().with(Message::assistant(chosen)));
                    Some(Ok(Row { number, content: Ok(example) }))
                }
                Ok(Row { number, content: Err(dropped) }) => Some(Ok(Row { number, content: Err(dropped) })),
                Err(error) => Some(Err(error)),
            });
            Ok(Box::new(comparisons))
        }
        _ if store::is_table(path) => store::rows(path),
        _ => Ok(Box::new(jsonl::rows(path, SHAPE)?.map(move |row| {
            let row = row?;
            check_layout(&row, layout)?;
            Ok(Row { number: row.number(), content: answered(conversation(&row)?).map(Example::Conversation) })
        }))),
    }
}

/// A conversation up to the assistant's last turn.
fn answered(mut dialogue: Dialogue) -> Result<Dialogue, Dropped> {
    while dialogue.messages.last().is_some_and(|message| message.role != Role::Assistant) {
        dialogue.messages.pop();
    }
    match dialogue.messages.last() {
        Some(last) if !last.text.is_empty() => {}
        _ => return Err(Dropped::EmptyResponse),
    }
    if dialogue.alternates() { Ok(dialogue) } else { Err(Dropped::BrokenRoles) }
}

/// The prompts of a file: its rows' `prompt`, or what stands before the last response of its comparisons or conversations.
///
/// # Errors
/// As [`read`]; also of a file of text, which asks nothing.
pub fn prompts(path: &Path) -> Result<Vec<Dialogue>, Error> {
    kept(prompt_rows_of(path, Layout::of(path)?)?)
}

/// The rows of a file of this layout as [`prompts`].
pub(crate) fn prompt_rows_of(path: &Path, layout: Layout) -> Result<Rows<'_, Dialogue>, Error> {
    match layout {
        Layout::Comparisons => Ok(each(comparisons::rows(path, "")?, |one| one.comparison.prompt)),
        Layout::Conversations => {
            let prompt = |example: Example| match example {
                Example::Conversation(mut dialogue) => {
                    dialogue.messages.pop();
                    dialogue
                }
                Example::Text(text) => unreachable!("a conversation is no text, {text:?}"),
            };
            Ok(each(rows_of(path, layout, usize::MAX)?, prompt))
        }
        Layout::Prompts if store::is_table(path) => store::rows(path),
        Layout::Prompts => Ok(Box::new(jsonl::rows(path, SHAPE)?.map(move |row| {
            let row = row?;
            check_layout(&row, layout)?;
            Ok(Row { number: row.number(), content: Ok(prompt(&row)?) })
        }))),
        Layout::Threads | Layout::Text | Layout::HhhTask => {
            Err(Error::WrongLayout { path: path.into(), found: layout, wanted: Layout::Prompts })
        }
    }
}

/// An error if a row has another layout than the first.
fn check_layout(row: &Record, first: Layout) -> Result<(), Error> {
    match Layout::of_row(row) {
        Some(layout) if layout == first => Ok(()),
        Some(found) => Err(Error::OtherLayout { place: row.place(), found, first }),
        None => Err(row.wrong("messages", "the layout of the first row")),
    }
}

/// The conversation of a row, whatever follows the assistant's last turn.
pub(crate) fn conversation(row: &Record) -> Result<Dialogue, Error> {
    if row.has("messages") {
        return Ok(Dialogue::new(messages(row, "messages", ["role", "content"])?));
    }
    if row.has("conversations") {
        let keys = if first_has(row, "conversations", "from") { ["from", "value"] } else { ["role", "content"] };
        let mut turns = messages(row, "conversations", keys)?;
        if let Some(system) = row.value("system").and_then(Value::as_str).filter(|text| !text.trim().is_empty()) {
            turns.insert(0, Message::system(system.trim()));
        }
        return Ok(Dialogue::new(turns));
    }
    if row.has("instruction") {
        let input = row.value("input").and_then(Value::as_str).unwrap_or_default().trim();
        let asked = [row.text("instruction")?.trim(), input].join("\n\n");
        let turns = vec![Message::human(asked.trim()), Message::assistant(row.text("output")?.trim())];
        return Ok(Dialogue::new(turns));
    }
    let mut turns = prompt(row)?.messages;
    match row.value("completion") {
        Some(Value::Array(_)) => turns.extend(messages(row, "completion", ["role", "content"])?),
        _ => turns.push(Message::assistant(row.text("completion")?.trim())),
    }
    Ok(Dialogue::new(turns))
}

/// Whether the first object of a list has a key.
fn first_has(row: &Record, field: &str, key: &str) -> bool {
    let first = row.value(field).and_then(Value::as_array).and_then(|list| list.first());
    first.is_some_and(|first| first.get(key).is_some())
}

/// A `prompt`: messages, a text with markers, or the person's one turn.
pub(crate) fn prompt(row: &Record) -> Result<Dialogue, Error> {
    if row.value("prompt").is_some_and(Value::is_array) {
        return Ok(Dialogue::new(messages(row, "prompt", ["role", "content"])?));
    }
    let text = row.text("prompt")?;
    if !text.starts_with(HUMAN) {
        return Ok(Dialogue::new(vec![Message::human(text.trim())]));
    }
    let text = text.trim_end();
    Ok(parse(text.strip_suffix(ASSISTANT).unwrap_or(text))?)
}

/// A list of messages, each with a role and a text under these keys.
fn messages(row: &Record, field: &str, [role, content]: [&str; 2]) -> Result<Vec<Message>, Error> {
    let message = |message: &Record| {
        // ShareGPT calls the assistant so.
        let name = match message.text(role)? {
            "gpt" | "model" | "bot" => "assistant",
            name => name,
        };
        let role = Role::named(name).ok_or_else(|| message.wrong(role, "`system`, `user`, `assistant` or `tool`"))?;
        Ok(Message { role, text: message.text(content)?.trim().to_owned() })
    };
    row.records(field)?.iter().map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::file_of;

    fn of(rows: &str) -> Result<(Vec<Example>, Kept), Error> {
        let (_dir, path) = file_of("x.jsonl", rows.as_bytes());
        read(&path, 1000)
    }

    fn wanted() -> Vec<Example> {
        vec![Example::Conversation(Dialogue::new(vec![Message::human("What?"), Message::assistant("An oak.")]))]
    }

    #[test]
    fn every_layout_gives_the_same_conversation() {
        for row in [
            r#"{"messages": [{"role": "user", "content": "What? "}, {"role": "assistant", "content": "An oak."}]}"#,
            r#"{"messages": [{"role": "User", "content": "What?"}, {"role": "ASSISTANT", "content": "An oak."},
                {"role": "user", "content": "cut off"}]}"#,
            r#"{"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "An oak."}]}"#,
            r#"{"prompt": "What?", "completion": " An oak."}"#,
            r#"{"prompt": "\n\nHuman: What?\n\nAssistant:", "completion": " An oak."}"#,
            r#"{"prompt": [{"role": "user", "content": "What?"}], "completion": [{"role": "assistant", "content": "An oak."}]}"#,
            r#"{"instruction": "What?", "input": "", "output": "An oak."}"#,
            r#"{"chosen": "\n\nHuman: What?\n\nAssistant: An oak.", "rejected": "\n\nHuman: What?\n\nAssistant: No."}"#,
        ] {
            let row = row.replace('\n', " ");
            assert_eq!(of(&row).unwrap().0, wanted(), "{row}");
        }
        let system = r#"{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"},
            {"role": "assistant", "content": "An oak."}]}"#;
        let Example::Conversation(dialogue) = &of(&system.replace('\n', " ")).unwrap().0[0] else {
            panic!("a conversation")
        };
        assert_eq!(dialogue.messages[0], Message::system("Be brief."));
        assert_eq!(of(r#"{"text": "An oak."}"#).unwrap().0, vec![Example::Text("An oak.".to_owned())]);
        let input = r#"{"instruction": "Name it.", "input": "a tree", "output": "An oak."}"#;
        let Example::Conversation(dialogue) = &of(input).unwrap().0[0] else { panic!("a conversation") };
        assert_eq!(dialogue.messages[0].text, "Name it.\n\na tree");
    }

    #[test]
    fn rows_without_an_answer_or_order_are_counted() {
        let rows = [
            r#"{"prompt": "What?", "completion": "An oak."}"#,
            r#"{"prompt": "What?", "completion": "  "}"#,
            r#"{"prompt": [{"role": "assistant", "content": "Hi"}], "completion": "An oak."}"#,
        ];
        let (examples, kept) = of(&rows.join("\n")).unwrap();
        assert_eq!((examples, kept), (wanted(), Kept { kept: 1, empty_response: 1, broken_roles: 1 }));
    }

    #[test]
    fn two_layouts_in_one_file_are_an_error_that_names_the_row() {
        let rows = "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\"}";
        let message = of(rows).unwrap_err().to_string();
        assert!(message.contains("x.jsonl, line 2: prompts, but the first row has conversations"), "{message}");
    }

    #[test]
    fn prompts_come_from_every_layout_that_asks() {
        let of = |rows: &str| {
            let (_dir, path) = file_of("x.jsonl", rows.as_bytes());
            prompts(&path)
        };
        let asked = vec![Dialogue::new(vec![Message::human("What?")])];
        assert_eq!(of(r#"{"prompt": "What?", "id": 3}"#).unwrap(), asked);
        assert_eq!(of(r#"{"prompt": "What?", "completion": "An oak."}"#).unwrap(), asked);
        assert_eq!(of(r#"{"prompt": "What?", "chosen": "An oak.", "rejected": "No."}"#).unwrap(), asked);
        let message = of(r#"{"text": "What?"}"#).unwrap_err().to_string();
        assert!(message.contains("text") && message.contains("prompts"), "{message}");
    }
}
