//! What the rows of a file are, by its name and its first row.

use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::folder::is_jsonl;
use crate::jsonl::{Record, rows};
use crate::{Error, store};

/// What the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Two responses to a prompt, for [`comparisons`](crate::comparisons).
    Comparisons,
    /// Conversations, or prompts with a completion, for [`conversations`](crate::conversations).
    Conversations,
    /// Prompts, for [`conversations::prompts`](crate::conversations::prompts).
    Prompts,
    /// Questions with scored answers, for [`threads`](crate::threads).
    Threads,
    /// Text, for [`text`](crate::text).
    Text,
    /// A task of two-way items, for [`hhh_tasks`](crate::hhh_tasks).
    HhhTask,
}

impl fmt::Display for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Comparisons => "comparisons",
            Self::Conversations => "conversations",
            Self::Prompts => "prompts",
            Self::Threads => "questions with scored answers",
            Self::Text => "text",
            Self::HhhTask => "an evaluation task",
        })
    }
}

/// What a row may look like.
pub(crate) const SHAPES: &str = "an object with `chosen` and `rejected`; `messages` or `conversations`; `prompt` and `completion`; \
                      `instruction` and `output`; `prompt`; `question` or `title` with `answers`; or `text`";

impl Layout {
    /// The layout of a file, gzip or not; of a table what [`store`] says.
    ///
    /// # Errors
    /// If the file cannot be read, its first row is no JSON object, or has none of the known fields.
    pub fn of(path: &Path) -> Result<Self, Error> {
        if let Some(layout) = Self::of_name(path)? {
            return Ok(layout);
        }
        let Some(first) = rows(path, SHAPES)?.next().transpose()? else {
            return Err(Error::Empty { path: path.into() });
        };
        Self::of_row(&first).ok_or_else(|| unknown(&first))
    }

    /// The layout of a file that is no JSONL.
    pub(crate) fn of_name(path: &Path) -> Result<Option<Self>, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(match () {
            () if name == "task.json" => Some(Self::HhhTask),
            () if store::is_table(path) => Some(store::layout(path)?),
            () if is_jsonl(path) => None,
            () if is_text(&name) => Some(Self::Text),
            () => return Err(Error::Format { path: path.into() }),
        })
    }

    /// The layout of a row, if it has one.
    pub(crate) fn of_row(row: &Record) -> Option<Self> {
        let list = |field: &str| row.value(field).is_some_and(Value::is_array);
        Some(match () {
            () if row.has("chosen") && row.has("rejected") => Self::Comparisons,
            () if list("messages") || list("conversations") => Self::Conversations,
            () if row.has("prompt") && row.has("completion") => Self::Conversations,
            () if row.has("instruction") && row.has("output") => Self::Conversations,
            () if list("answers") => Self::Threads,
            () if row.has("prompt") => Self::Prompts,
            () if row.value("text").is_some_and(Value::is_string) => Self::Text,
            () => return None,
        })
    }
}

/// Whether a file is prose by its name: `.txt`, `.text` or `.md`, gzip or not, or without an ending.
fn is_text(name: &str) -> bool {
    let name = name.to_lowercase();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    !stem.contains('.') || [".txt", ".text", ".md"].iter().any(|ending| stem.ends_with(ending))
}

/// The error that a row has none of the known layouts.
pub(crate) fn unknown(row: &Record) -> Error {
    row.wrong("chosen", "one of the known layouts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::file_of;

    fn of(row: &str) -> Result<Layout, Error> {
        let (_dir, path) = file_of("x.jsonl", row.as_bytes());
        Layout::of(&path)
    }

    #[test]
    fn the_first_row_tells() {
        for (row, layout) in [
            (r#"{"chosen": "a", "rejected": "b", "prompt": "c"}"#, Layout::Comparisons),
            (r#"{"messages": [], "prompt": "c"}"#, Layout::Conversations),
            (r#"{"conversations": [{"from": "human", "value": "a"}]}"#, Layout::Conversations),
            (r#"{"prompt": "a", "completion": "b"}"#, Layout::Conversations),
            (r#"{"instruction": "a", "input": "", "output": "b"}"#, Layout::Conversations),
            (r#"{"prompt": "a"}"#, Layout::Prompts),
            (r#"{"title": "a", "answers": []}"#, Layout::Threads),
            (r#"{"text": "a"}"#, Layout::Text),
        ] {
            assert_eq!(of(row).unwrap(), layout, "{row}");
        }
    }

    #[test]
    fn what_is_neither_rows_nor_prose_by_its_name_is_refused() {
        let of = |name: &str| {
            let (_dir, path) = file_of(name, b"1,2");
            Layout::of(&path)
        };
        for name in ["book.txt", "README.md", "notes", "book.TXT"] {
            assert_eq!(of(name).unwrap(), Layout::Text, "{name}");
        }
        for name in ["table.csv", "rows.json", "page.html"] {
            let message = of(name).unwrap_err().to_string();
            assert!(message.contains("no known format") && message.contains(".jsonl"), "{message}");
        }
    }

    #[test]
    fn an_unknown_row_names_its_fields_and_the_known_ones() {
        let message = of(r#"{"question": "a", "label": 1}"#).unwrap_err().to_string();
        assert!(
            message.contains("line 1") && message.contains("`label`") && message.contains("`messages`"),
            "{message}"
        );
        assert!(of("").unwrap_err().to_string().contains("empty"));
    }
}
