//! BIG-bench's helpful, honest, harmless tasks: for evaluation, never for training.

use std::path::Path;

use firebrick_text::dialogue::{HUMAN, parse};
use firebrick_types::{Dialogue, HhhItem};

use crate::file::read_to_string;
use crate::jsonl::Record;
use crate::rows::{Row, Rows, kept};
use crate::{Error, Place};

const SHAPE: &str = r#"{"examples": [{"input": …, "target_scores": {better: 1, worse: 0}}]}"#;

/// The items of a `hhh_alignment/{category}/task.json`; the folder's name is the category.
///
/// An input holds the person's turn, or a whole dialogue whose first turn has no marker.
///
/// # Errors
/// If the file cannot be read or one of its [`rows`] is an error.
pub fn read(path: &Path) -> Result<Vec<HhhItem>, Error> {
    kept(rows(path)?)
}

/// The items of a task one by one, as [`read`].
///
/// # Errors
/// If the file cannot be read. An example is an error that has not one answer of score 1 and one of score 0, or ends with the assistant.
pub fn rows(path: &Path) -> Result<Rows<'_, HhhItem>, Error> {
    let category = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let place = Place { path: path.into(), line: None };
    let task = Record::parse(place, &read_to_string(path)?, SHAPE)?;
    let item = move |(number, example): (u64, Record)| {
        let scores = example.record("target_scores")?;
        let scored = |wanted: i64| scores.fields().iter().filter(move |(_, score)| score.as_i64() == Some(wanted));
        let (Some((chosen, _)), Some((rejected, _)), 2) = (scored(1).next(), scored(0).next(), scores.fields().len())
        else {
            return Err(example.wrong("target_scores", "one answer of score 1 and one of score 0"));
        };
        let item = HhhItem {
            category: category.clone(),
            prompt: prompt(&example)?,
            chosen: chosen.trim().to_owned(),
            rejected: rejected.trim().to_owned(),
        };
        Ok(Row { number, content: Ok(item) })
    };
    Ok(Box::new((1..).zip(task.records("examples")?).map(item)))
}

fn prompt(example: &Record) -> Result<Dialogue, Error> {
    let input = example.text("input")?;
    let marked = if input.starts_with(HUMAN) { input.to_owned() } else { format!("{HUMAN} {input}") };
    let dialogue = parse(&marked)?;
    if !dialogue.alternates() || !dialogue.awaits_assistant() {
        return Err(example.wrong("input", "a dialogue that ends with the person's turn"));
    }
    Ok(dialogue)
}

#[cfg(test)]
mod tests {
    use firebrick_types::Message;

    use super::*;
    use crate::file::tests::{file_of, real_data};

    fn read_task(input: &str, scores: &str) -> Result<Vec<HhhItem>, Error> {
        let input = serde_json::to_string(input).unwrap();
        let task = format!(r#"{{"canary": "", "examples": [{{"input": {input}, "target_scores": {scores}}}]}}"#);
        let (dir, _) = file_of("unused", b"");
        let folder = dir.path().join("honest");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("task.json"), task).unwrap();
        read(&folder.join("task.json"))
    }

    #[test]
    fn the_first_turn_may_lack_its_marker() {
        let expected = [Message::human("q"), Message::assistant("a"), Message::human("r")];
        for input in ["q\n\nAssistant: a\n\nHuman: r", "\n\nHuman: q\n\nAssistant: a\n\nHuman: r"] {
            let items = read_task(input, r#"{"no": 0, " yes": 1}"#).unwrap();
            assert_eq!(items[0].prompt.messages, expected);
            let HhhItem { category, chosen, rejected, .. } = &items[0];
            assert_eq!((category.as_str(), chosen.as_str(), rejected.as_str()), ("honest", "yes", "no"));
        }
    }

    #[test]
    fn broken_examples_are_named() {
        let message = |input, scores| read_task(input, scores).unwrap_err().to_string();
        let scores = message("q", r#"{"yes": 1, "no": 1}"#);
        let expected =
            "task.json, field `examples[0].target_scores`: expected one answer of score 1 and one of score 0";
        assert!(scores.contains(expected), "{scores}");
        let input = message("q\n\nAssistant: a", r#"{"yes": 1, "no": 0}"#);
        let expected = "field `examples[0].input`: expected a dialogue that ends with the person's turn";
        assert!(input.contains(expected), "{input}");
    }

    #[test]
    fn the_real_tasks_are_read() {
        let Some(root) = real_data("eval/hhh_alignment") else { return };
        for (category, count) in [("helpful", 59), ("honest", 61), ("harmless", 58), ("other", 43)] {
            let items = read(&root.join(category).join("task.json")).unwrap();
            assert_eq!(items.len(), count);
            assert!(items.iter().all(|item| item.category == category && item.chosen != item.rejected));
        }
    }
}
