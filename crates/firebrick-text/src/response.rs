//! What ends a response, and what is left of it without that.

use firebrick_types::TokenId;

use crate::StopStrings;

/// What ends a response, and what is shown of it to who judges it.
#[derive(Clone, Debug)]
pub struct ResponseFormat {
    end: TokenId,
    ends: Vec<TokenId>,
    stops: Option<StopStrings>,
}

impl ResponseFormat {
    /// Responses that one token ends, and that are no text.
    pub fn ending_with(end: TokenId) -> Self {
        Self { end, ends: vec![end], stops: None }
    }

    /// Responses that any of these tokens, or of these texts, ends; `end`, one of the tokens, is the one that a preference model reads.
    ///
    /// # Panics
    /// If `end` is none of `ends`.
    pub fn new(end: TokenId, ends: Vec<TokenId>, stops: StopStrings) -> Self {
        assert!(ends.contains(&end), "a response that ends with {end} ends");
        Self { end, ends, stops: Some(stops) }
    }

    /// The token on which a preference model reads its score.
    pub fn end(&self) -> TokenId {
        self.end
    }

    /// Tokens that end a response, [`end`](Self::end) among them.
    pub fn ends(&self) -> &[TokenId] {
        &self.ends
    }

    /// Texts that end a response, for instance `\n\nHuman:`; none, where there are none.
    pub fn stops(&self) -> Option<&StopStrings> {
        self.stops.as_ref().filter(|stops| !stops.strings().is_empty())
    }

    /// The tokens of a response without what ended it: without its last one if that ends a response, and without those from where a text
    /// begins that does. A token that begins before such a text is kept whole.
    pub fn content<'a>(&self, response: &'a [TokenId]) -> &'a [TokenId] {
        let response = self.without_end(response);
        self.stops.as_ref().map_or(response, |stops| &response[..stops.split(response).0])
    }

    /// The text of a response without what ended it; nothing of one that is no text.
    pub fn text(&self, response: &[TokenId]) -> String {
        self.stops.as_ref().map_or_else(String::new, |stops| stops.split(self.without_end(response)).1)
    }

    /// The tokens of a response without its last one if that ends a response.
    fn without_end<'a>(&self, response: &'a [TokenId]) -> &'a [TokenId] {
        match response.split_last() {
            Some((last, before)) if self.ends.contains(last) => before,
            _ => response,
        }
    }

    /// What a preference model reads: the prompt, the content of the response, and the end once (T-12).
    pub fn scored_sequence(&self, prompt: &[TokenId], response: &[TokenId]) -> Vec<TokenId> {
        [prompt, self.content(response), &[self.end]].concat()
    }
}
