//! BIG-bench's helpful, honest, harmless tasks: for evaluation, never for training.

use std::path::Path;

use firebrick_types::{Dialogue, Message};
use serde::{Deserialize, Serialize};

use crate::dialogue::{HUMAN, parse};
use crate::file::read_to_string;
use crate::jsonl::Record;
use crate::{Error, Place};

const SHAPE: &str = r#"{"examples": [{"input": …, "target_scores": {better: 1, worse: 0}}]}"#;

/// One choice between two answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HhhItem {
    /// `helpful`, `honest`, `harmless` or `other`.
    pub category: String,
    /// The dialogue so far; it ends with the person's turn.
    pub prompt: Dialogue,
    /// The answer that people agree is better.
    pub better: String,
    /// The other answer.
    pub worse: String,
}

/// The items of a `hhh_alignment/{category}/task.json`; the folder's name is the category.
///
/// An input holds the person's turn, or a whole dialogue whose first turn has no marker.
///
/// # Errors
/// If the file cannot be read or an example has not one answer of score 1 and one of score 0, or ends with the assistant.
pub fn read(path: &Path) -> Result<Vec<HhhItem>, Error> {
    let category = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let place = Place { path: path.into(), line: None };
    let task = Record::parse(place, &read_to_string(path)?, SHAPE)?;
    let item = |example: &Record| {
        let scores = example.record("target_scores")?;
        let scored = |wanted: i64| scores.fields().iter().filter(move |(_, score)| score.as_i64() == Some(wanted));
        let (Some((better, _)), Some((worse, _)), 2) =
            (scored(1).next(), scored(0).next(), scores.fields().len())
        else {
            return Err(example.wrong("target_scores", "one answer of score 1 and one of score 0"));
        };
        Ok(HhhItem {
            category: category.clone().into_owned(),
            prompt: prompt(example)?,
            better: better.trim().to_owned(),
            worse: worse.trim().to_owned(),
        })
    };
    task.records("examples")?.iter().map(item).collect()
}

fn prompt(example: &Record) -> Result<Dialogue, Error> {
    let input = example.text("input")?;
    let dialogue = if input.starts_with(HUMAN) {
        parse(input)?
    } else if let Some((first, _)) = input.split_once("\n\nAssistant:") {
        // Only the turns after the first have markers.
        let mut dialogue = Dialogue::new(vec![Message::human(first.trim())]);
        dialogue.messages.extend(parse(&format!("{HUMAN}{}", &input[first.len()..]))?.messages.into_iter().skip(1));
        dialogue
    } else {
        Dialogue::new(vec![Message::human(input.trim())])
    };
    if !dialogue.alternates() || !dialogue.awaits_assistant() {
        return Err(example.wrong("input", "a dialogue that ends with the person's turn"));
    }
    Ok(dialogue)
}
