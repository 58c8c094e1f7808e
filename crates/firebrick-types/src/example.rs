//! What a language model is finetuned on.

use serde::{Deserialize, Serialize};

use crate::Dialogue;

/// A row of supervised finetuning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Example {
    /// A conversation, whose assistant's turns are to be learnt.
    Conversation(Dialogue),
    /// A text, all of which is to be learnt.
    Text(String),
}

impl Example {
    /// What decides on which side of a split it falls: what the person said first, or the text.
    pub fn opening(&self) -> &str {
        match self {
            Self::Conversation(dialogue) => dialogue.opening().unwrap_or_default(),
            Self::Text(text) => text,
        }
    }
}
