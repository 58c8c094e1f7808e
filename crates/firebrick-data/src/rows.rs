//! The rows of a file one by one: what each gives, or why it gives nothing.

use std::fmt;
use std::path::Path;

use firebrick_types::{Dialogue, Example, HhhItem, LabelledComparison, Message, Role, Thread, ThreadAnswer};

use crate::layout::Layout;
use crate::{Error, comparisons, conversations, hhh_tasks, threads};

/// The rows of a file, each an error where it cannot be understood; those after it are still read.
pub type Rows<'a, T> = Box<dyn Iterator<Item = Result<Row<T>, Error>> + 'a>;

/// A row of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<T> {
    /// Its line in a JSONL file; in another its place among the rows. Both are counted from 1.
    pub number: u64,
    /// What it gives, or why it is dropped.
    pub content: Result<T, Dropped>,
}

impl<T> Row<T> {
    /// The same row with something else made of what it gives.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Row<U> {
        Row { number: self.number, content: self.content.map(make) }
    }
}

/// Why a row that can be understood gives nothing (B-06).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// The roles are not in order: the system first, then the person and the assistant in turn.
    BrokenRoles,
    /// The assistant says nothing, or nothing in one of two responses.
    EmptyResponse,
    /// The dialogues differ before the final answer.
    PrefixesDiffer,
    /// The two answers are the same.
    Identical,
    /// The comparison was in the file before.
    Duplicate,
    /// The text is empty.
    NoText,
    /// No two answers have distinct scores.
    NoPair,
}

impl fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::BrokenRoles => "a broken role order",
            Self::EmptyResponse => "an empty answer",
            Self::PrefixesDiffer => "different prompts",
            Self::Identical => "identical answers",
            Self::Duplicate => "a duplicate",
            Self::NoText => "no text",
            Self::NoPair => "no two answers of distinct scores",
        })
    }
}

/// What a row of any layout gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Two responses to a prompt.
    Comparison(LabelledComparison),
    /// A conversation or a text.
    Example(Example),
    /// What is to be answered.
    Prompt(Dialogue),
    /// A question with scored answers.
    Thread(Thread),
    /// An item of an evaluation task.
    HhhItem(HhhItem),
}

impl Content {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Comparison(_) => "a comparison",
            Self::Example(Example::Conversation(_)) => "a conversation",
            Self::Example(Example::Text(_)) => "a text",
            Self::Prompt(_) => "a prompt",
            Self::Thread(_) => "a question with scored answers",
            Self::HhhItem(_) => "an evaluation item",
        }
    }
}

/// For people: each turn on a line of its own, behind the name of who speaks.
impl fmt::Display for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turns = |dialogue: &Dialogue| {
            let turn = |message: &Message| format!("{}: {}", role_name(message.role), message.text);
            dialogue.messages.iter().map(turn).collect::<Vec<_>>()
        };
        let lines = match self {
            Self::Comparison(one) => {
                let responses = match one.chosen_and_rejected() {
                    Some((chosen, rejected)) => [format!("chosen: {chosen}"), format!("rejected: {rejected}")],
                    None => [&one.comparison.a, &one.comparison.b].map(|response| format!("in a tie: {response}")),
                };
                [&turns(one.prompt())[..], &responses].concat()
            }
            Self::HhhItem(HhhItem { prompt, chosen, rejected, .. }) => {
                [&turns(prompt)[..], &[format!("chosen: {chosen}"), format!("rejected: {rejected}")]].concat()
            }
            Self::Example(Example::Conversation(dialogue)) | Self::Prompt(dialogue) => turns(dialogue),
            Self::Example(Example::Text(text)) => vec![text.clone()],
            Self::Thread(Thread { title, body, answers }) => {
                let question = [title.trim(), body.trim()].join("\n\n");
                let answer = |answer: &ThreadAnswer| {
                    let accepted = if answer.accepted { ", accepted" } else { "" };
                    format!("answer ({} votes{accepted}): {}", answer.score, answer.body)
                };
                std::iter::once(format!("question: {}", question.trim())).chain(answers.iter().map(answer)).collect()
            }
        };
        formatter.write_str(&lines.join("\n"))
    }
}

/// What messages call who speaks.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::Human => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

/// The rows of a file of this layout; texts are cut into documents of at most `max_characters`, which have the number of their row.
///
/// # Errors
/// If the file cannot be read.
pub fn read(path: &Path, layout: Layout, max_characters: usize) -> Result<Rows<'_, Content>, Error> {
    Ok(match layout {
        Layout::Comparisons => each(comparisons::rows(path, "")?, Content::Comparison),
        Layout::Conversations | Layout::Text => {
            each(conversations::rows_of(path, layout, max_characters)?, Content::Example)
        }
        Layout::Prompts => each(conversations::prompt_rows_of(path, layout)?, Content::Prompt),
        Layout::Threads => each(threads::rows(path)?, Content::Thread),
        Layout::HhhTask => each(hhh_tasks::rows(path)?, Content::HhhItem),
    })
}

/// The same rows with something else made of what each gives.
pub(crate) fn each<'a, T: 'a, U>(rows: Rows<'a, T>, make: impl Fn(T) -> U + 'a) -> Rows<'a, U> {
    Box::new(rows.map(move |row| Ok(row?.map(&make))))
}

/// What the rows give, the dropped ones left out.
pub(crate) fn kept<T>(rows: Rows<'_, T>) -> Result<Vec<T>, Error> {
    rows.filter_map(|row| row.map(|row| row.content.ok()).transpose()).collect()
}
