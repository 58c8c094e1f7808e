//! Rows to finetune on, and prompts, as people publish them.

use std::fmt;
use std::path::Path;

use firebrick_text::dialogue::{ASSISTANT, HUMAN, parse};
use firebrick_types::{Dialogue, Example, Message, Role};
use serde_json::Value;

use crate::jsonl::{Record, rows};
use crate::layout::Layout;
use crate::{Error, comparisons, text};

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

/// The rows of a file to finetune on.
///
/// The first row decides which layout the file has:
/// - `messages`, a list of `{"role", "content"}`, or `conversations`, a list of `{"from", "value"}` (ShareGPT);
/// - `prompt` and `completion`, texts or lists of messages (TRL);
/// - `instruction`, `input` and `output` (Alpaca); the input stands two lines below the instruction;
/// - `text`, or a file that is no JSONL: all of it is learnt;
/// - comparisons, whose chosen responses are taken.
///
/// What follows the assistant's last turn is cut off. Other fields are passed over.
///
/// # Errors
/// If the file cannot be read, or a row is no JSON object, lacks a field, has one of the wrong type or another layout than the first.
pub fn read(path: &Path, max_characters: usize) -> Result<(Vec<Example>, Kept), Error> {
    let layout = Layout::of(path)?;
    match layout {
        Layout::Text => {
            let texts = text::read(path, max_characters)?;
            let kept = Kept { kept: texts.len(), ..Kept::default() };
            return Ok((texts.into_iter().map(Example::Text).collect(), kept));
        }
        Layout::Comparisons => {
            let (comparisons, _) = comparisons::read(path, "")?;
            let chosen = comparisons.iter().filter_map(|one| {
                let (chosen, _) = one.chosen_and_rejected()?;
                Some(Example::Conversation(one.prompt().with(Message::assistant(chosen))))
            });
            let examples = chosen.collect::<Vec<_>>();
            let kept = Kept { kept: examples.len(), ..Kept::default() };
            return Ok((examples, kept));
        }
        _ => {}
    }
    let (mut examples, mut kept) = (Vec::new(), Kept::default());
    for row in rows(path, SHAPE)? {
        let row = row?;
        check_layout(&row, layout)?;
        let mut dialogue = conversation(&row)?;
        while dialogue.messages.last().is_some_and(|message| message.role != Role::Assistant) {
            dialogue.messages.pop();
        }
        match dialogue.messages.last() {
            Some(last) if !last.text.is_empty() => {}
            _ => {
                kept.empty_response += 1;
                continue;
            }
        }
        if !dialogue.alternates() {
            kept.broken_roles += 1;
            continue;
        }
        kept.kept += 1;
        examples.push(Example::Conversation(dialogue));
    }
    Ok((examples, kept))
}

/// The prompts of a file: its rows' `prompt`, or what stands before the last response of its comparisons or conversations.
///
/// # Errors
/// As [`read`]; also of a file of text, which asks nothing.
pub fn prompts(path: &Path) -> Result<Vec<Dialogue>, Error> {
    let layout = Layout::of(path)?;
    match layout {
        Layout::Comparisons => {
            let (comparisons, _) = comparisons::read(path, "")?;
            Ok(comparisons.into_iter().map(|one| one.comparison.prompt).collect())
        }
        Layout::Conversations => {
            let (examples, _) = read(path, usize::MAX)?;
            let prompt = |example: Example| match example {
                Example::Conversation(mut dialogue) => dialogue.messages.pop().map(|_| dialogue),
                Example::Text(_) => None,
            };
            Ok(examples.into_iter().filter_map(prompt).collect())
        }
        Layout::Prompts => rows(path, SHAPE)?
            .map(|row| {
                let row = row?;
                check_layout(&row, layout)?;
                prompt(&row)
            })
            .collect(),
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

fn conversation(row: &Record) -> Result<Dialogue, Error> {
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
