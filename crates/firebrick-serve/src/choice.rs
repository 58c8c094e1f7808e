//! A sample as text that grows with its tokens.

use std::collections::VecDeque;

use firebrick_sampling::{Finish, Token};
use firebrick_text::{StopText, TextStream, Tokenizer};
use firebrick_types::TokenId;

/// What was added to a sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Text that no stop string can take back.
    pub text: String,
    /// The tokens that begin in the text so far and were not told yet; what ends a sample is none of its text.
    pub tokens: Vec<TextToken>,
    /// Tokens that were drawn for the sample so far, with what ended it.
    pub drawn: usize,
    /// The token that ended the sample and is none of its text, in the last piece.
    pub end: Option<TextToken>,
    /// Set in the last piece.
    pub finish: Option<Finish>,
}

/// A token and its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextToken {
    /// The token.
    pub id: TokenId,
    /// The logarithm of its probability under the model, in nats; none of a token with nothing before it.
    pub log_prob: Option<f32>,
    /// The likeliest tokens at its place with their log-probabilities, the likeliest first.
    pub top: Vec<(TokenId, f32)>,
    /// Characters of the text before it.
    pub offset: usize,
}

/// The texts of a prompt's tokens, a special token's its name, and the stream that reads on from there. What every text begins with is none
/// of its text.
pub(crate) fn prompt_texts(tokenizer: &Tokenizer, prompt: &[TokenId]) -> (Vec<String>, TextStream) {
    let mut stream = tokenizer.stream();
    let beginning = if prompt.starts_with(tokenizer.beginning()) { tokenizer.beginning().len() } else { 0 };
    let text = |(index, &id): (usize, &TokenId)| {
        let added = stream.push(id);
        match tokenizer.is_special(id) {
            true if index < beginning => String::new(),
            true => tokenizer.token_text(id),
            false => added,
        }
    };
    (prompt.iter().enumerate().map(text).collect(), stream)
}

/// A sample whose tokens are still being drawn.
pub(crate) struct Growing {
    stream: Option<TextStream>,
    stop: Option<StopText>,
    /// Characters of the tokens so far, and of the text that was given out.
    read: usize,
    given: usize,
    waiting: VecDeque<TextToken>,
    drawn: usize,
}

impl Growing {
    /// A sample without tokens yet that goes on where a stream has stopped.
    pub(crate) fn new(stream: TextStream, stops: &[String]) -> Self {
        let stop = Some(StopText::new(stops));
        Self { stream: Some(stream), stop, read: 0, given: 0, waiting: VecDeque::new(), drawn: 0 }
    }

    /// Adds a token, or none where the sample ends without one; `ends` are the tokens that end a sample.
    pub(crate) fn push(&mut self, token: Option<Token>, finish: Option<Finish>, ends: &[TokenId]) -> Piece {
        let (Some(stream), Some(stop)) = (&mut self.stream, &mut self.stop) else {
            unreachable!("a sample that has ended does not grow")
        };
        let (mut text, mut end) = (String::new(), None);
        if let Some(Token { id, log_prob, top, .. }) = token {
            self.drawn += 1;
            let top = agreeing(top, id, log_prob);
            let token = TextToken { id, log_prob: Some(log_prob), top, offset: self.read };
            if ends.contains(&id) {
                end = Some(token);
            } else {
                self.waiting.push_back(token);
                let added = stream.push(id);
                self.read += added.chars().count();
                text = stop.push(&added);
            }
        }
        if finish.is_some() && !stop.stopped() {
            text.push_str(&stop.push(&self.stream.take().map(TextStream::finish).unwrap_or_default()));
        }
        let stopped = stop.stopped();
        let finish = if stopped { Some(Finish::Stop) } else { finish };
        if finish.is_some() && !stopped {
            text.push_str(&self.stop.take().map(StopText::finish).unwrap_or_default());
        }
        self.given += text.chars().count();
        let whole = finish.is_some() && !stopped;
        let told = self.waiting.iter().take_while(|token| whole || token.offset < self.given).count();
        Piece { text, tokens: self.waiting.drain(..told).collect(), drawn: self.drawn, end, finish }
    }
}

/// The likeliest tokens with the chosen one's log-probability the same as where it stands alone: they are computed in different
/// widths.
pub(crate) fn agreeing(mut top: Vec<(TokenId, f32)>, chosen: TokenId, log_prob: f32) -> Vec<(TokenId, f32)> {
    if let Some(entry) = top.iter_mut().find(|(id, _)| *id == chosen) {
        entry.1 = log_prob;
    }
    top
}
