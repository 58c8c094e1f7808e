//! Questions with their answers, and choices between two answers.

use serde::{Deserialize, Serialize};

use crate::Dialogue;

/// A question with its answers: the raw material of preference-model pretraining.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// The question's headline.
    pub title: String,
    /// The question's text; may be empty.
    pub body: String,
    /// The answers, in any order.
    pub answers: Vec<ThreadAnswer>,
}

/// One answer of a [`Thread`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadAnswer {
    /// Up-votes less down-votes.
    pub score: i64,
    /// Whether the asker accepted it.
    pub accepted: bool,
    /// What it says.
    pub body: String,
}

/// One choice between two answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HhhItem {
    /// `helpful`, `honest`, `harmless` or `other`.
    pub category: String,
    /// The dialogue so far; it ends with the person's turn.
    pub prompt: Dialogue,
    /// The answer that people agree on.
    pub chosen: String,
    /// The other answer.
    pub rejected: String,
}
