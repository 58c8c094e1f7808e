//! How responses are read as text is.

use std::fmt;
use std::sync::Arc;

use firebrick_sampling::Stop;
use firebrick_types::TokenId;

/// The text of some tokens.
type Decode = dyn Fn(&[TokenId]) -> String + Send + Sync;

/// How responses are read as text is: what ends one, and what a preference model is shown.
#[derive(Clone)]
pub struct ResponseFormat {
    /// The end-of-context token, on which a preference model reads its score.
    pub eoc: TokenId,
    /// Tokens that end a response, `eoc` among them.
    pub ends: Vec<TokenId>,
    /// Token sequences that end a response, for instance those of `\n\nHuman:`.
    pub stop: Vec<Vec<TokenId>>,
    /// The text of some tokens.
    pub decode: Arc<Decode>,
}

impl ResponseFormat {
    /// The rule by which a response ends.
    pub fn stop(&self, max_tokens: usize) -> Stop {
        Stop { tokens: self.ends.clone(), sequences: self.stop.clone(), max_tokens }
    }

    /// The response without what ended it.
    fn content<'a>(&self, response: &'a [TokenId]) -> &'a [TokenId] {
        let response = match response.split_last() {
            Some((last, before)) if self.ends.contains(last) => before,
            _ => response,
        };
        let stop = self.stop.iter().find(|stop| response.ends_with(stop)).map_or(0, Vec::len);
        &response[..response.len() - stop]
    }

    /// What a preference model reads: the prompt, the response without what ended it, and the end of context once (T-12).
    pub fn scored_sequence(&self, prompt: &[TokenId], response: &[TokenId]) -> Vec<TokenId> {
        [prompt, self.content(response), &[self.eoc]].concat()
    }

    /// The text of a response without what ended it.
    pub fn text(&self, response: &[TokenId]) -> String {
        (self.decode)(self.content(response))
    }
}

impl fmt::Debug for ResponseFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ResponseFormat")
            .field("eoc", &self.eoc)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
