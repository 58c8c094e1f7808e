//! Which of two answers somebody preferred.

use serde::{Deserialize, Serialize};

use crate::Dialogue;

/// The outcome of one comparison of an answer A with an answer B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Preference {
    /// A was preferred.
    A,
    /// B was preferred.
    B,
    /// Neither was.
    Tie,
}

/// Two answers to one prompt, one of them preferred (B-03, B-06).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The dialogue so far; it ends with the person's turn.
    pub prompt: Dialogue,
    /// The answer that was preferred.
    pub chosen: String,
    /// The answer that was not.
    pub rejected: String,
    /// Which collection the comparison belongs to, for instance `helpful-base`.
    pub tranche: String,
}
