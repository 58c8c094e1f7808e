//! When a sample ends.

use firebrick_types::TokenId;
use serde::{Deserialize, Serialize};

/// When a sample ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Tokens that end it, for instance the end of context; they belong to the sample.
    pub tokens: Vec<TokenId>,
    /// Token sequences that end it, for instance those of `\n\nHuman:`; they belong to the sample.
    pub sequences: Vec<Vec<TokenId>>,
    /// The longest sample, in tokens.
    pub max_tokens: usize,
}

/// Why a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It said so: a stop token or sequence.
    Stop,
    /// It was cut: the longest sample, or the end of the model's context.
    Length,
}

impl Stop {
    /// Why a sample of these tokens has ended, if it has; `room` is what the context still holds.
    pub(crate) fn check(&self, tokens: &[TokenId], room: usize) -> Option<Finish> {
        let last = tokens.last()?;
        if self.tokens.contains(last) || self.sequences.iter().any(|sequence| tokens.ends_with(sequence)) {
            Some(Finish::Stop)
        } else if tokens.len() >= self.max_tokens || room == 0 {
            Some(Finish::Length)
        } else {
            None
        }
    }
}
