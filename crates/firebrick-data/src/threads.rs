//! Questions and answers as StackExchange's dumps hold them (A-26).

use std::path::Path;

use firebrick_types::{Thread, ThreadAnswer};

use crate::Error;
use crate::jsonl::{self, Record};
use crate::rows::{Row, Rows, kept};

const SHAPE: &str = r#"{"title": …, "body": …, "answers": [{"score": …, "accepted": …, "body": …}]}"#;

/// The threads of a JSONL file, gzip or not: one question a row, other fields passed over. Spec: A-26.
///
/// # Errors
/// If the file cannot be read or one of its [`rows`] is an error.
pub fn read(path: &Path) -> Result<Vec<Thread>, Error> {
    kept(rows(path)?)
}

/// The threads of a file one by one, as [`read`].
///
/// # Errors
/// If the file cannot be read. A row is an error that is no JSON object, lacks a field or has one of the wrong type.
pub fn rows(path: &Path) -> Result<Rows<'_, Thread>, Error> {
    let thread = |row: Result<Record, Error>| {
        let row = row?;
        let mut answers = Vec::new();
        for answer in row.records("answers")? {
            answers.push(ThreadAnswer {
                score: answer.integer("score")?,
                accepted: answer.boolean("accepted")?,
                body: answer.text("body")?.to_owned(),
            });
        }
        let thread = Thread { title: row.text("title")?.to_owned(), body: row.text("body")?.to_owned(), answers };
        Ok(Row { number: row.number(), content: Ok(thread) })
    };
    Ok(Box::new(jsonl::rows(path, SHAPE)?.map(thread)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::{file_of, real_data};

    #[test]
    fn other_fields_are_passed_over() {
        let row = r#"{"site": "x", "title": "T", "body": "",
            "answers": [{"id": 1, "score": -2, "accepted": true, "body": "B"}]}"#;
        let (_dir, path) = file_of("x.jsonl", row.replace('\n', " ").as_bytes());
        let answers = vec![ThreadAnswer { score: -2, accepted: true, body: "B".into() }];
        assert_eq!(read(&path).unwrap(), [Thread { title: "T".into(), body: String::new(), answers }]);
    }

    #[test]
    fn a_broken_answer_is_named() {
        let row = r#"{"title": "T", "body": "", "answers": [{"score": "2", "accepted": true, "body": "B"}]}"#;
        let (_dir, path) = file_of("x.jsonl", row.as_bytes());
        let message = read(&path).unwrap_err().to_string();
        let expected =
            "x.jsonl, line 1, field `answers[0].score`: expected a whole number, found \"2\"; a row is {\"title\"";
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn real_threads_are_read() {
        let Some(folder) = real_data("pmp/stackexchange") else { return };
        let threads = read(&folder.join("coffee.stackexchange.com.jsonl.gz")).unwrap();
        assert_eq!(threads.len(), 212);
        assert_eq!(threads[0].title, "How should I store whole bean coffee?");
    }
}
