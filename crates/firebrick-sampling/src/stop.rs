//! When a sample ends.

use firebrick_text::{ResponseFormat, StopStrings, StopWatch};
use firebrick_types::TokenId;
use serde::{Deserialize, Serialize};

/// When a sample ends.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Tokens that end it, for instance the end of context; they belong to the sample.
    pub tokens: Vec<TokenId>,
    /// Texts that end it, for instance `\n\nHuman:`, whatever tokens they are written with; these belong to the sample.
    pub strings: Option<StopStrings>,
    /// The longest sample, in tokens.
    pub max_tokens: usize,
}

/// Why a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It said so: a stop token or text.
    Stop,
    /// It was cut: the longest sample, or the end of the model's context.
    Length,
}

impl Stop {
    /// Where a response ends, or after so many tokens.
    pub fn of(format: &ResponseFormat, max_tokens: usize) -> Self {
        Self { tokens: format.ends().to_vec(), strings: format.stops().cloned(), max_tokens }
    }

    /// A sample without tokens yet that ends so.
    pub(crate) fn watch(self) -> Watch {
        Watch { tokens: 0, strings: self.strings.as_ref().map(StopStrings::watch), stop: self }
    }
}

/// A sample that grows until it ends.
pub(crate) struct Watch {
    stop: Stop,
    tokens: usize,
    strings: Option<StopWatch>,
}

impl Watch {
    /// Adds a token; returns why the sample has ended with it, if it has. `room` is what the context still holds.
    pub(crate) fn push(&mut self, token: TokenId, room: usize) -> Option<Finish> {
        self.tokens += 1;
        let by_text = self.strings.as_mut().is_some_and(|strings| strings.push(token));
        if by_text || self.stop.tokens.contains(&token) {
            Some(Finish::Stop)
        } else if self.tokens >= self.stop.max_tokens || room == 0 {
            Some(Finish::Length)
        } else {
            None
        }
    }
}
