//! What a request can get wrong.

use firebrick_types::TokenId;

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing to go on from.
    #[error("the prompt is empty; it needs at least one token")]
    EmptyPrompt,
    /// More than the model, or the cache, can read.
    #[error("the prompt has {tokens} tokens, the context holds {context}; shorten it")]
    PromptTooLong {
        /// Its tokens.
        tokens: usize,
        /// What fits.
        context: usize,
    },
    /// A token that the model does not know.
    #[error("token {token} is not in the vocabulary of {vocab}")]
    UnknownToken {
        /// The token.
        token: TokenId,
        /// The size of the vocabulary.
        vocab: usize,
    },
    /// A number that a sampler cannot have.
    #[error("`{name}` is {value}, it must be {range}")]
    Setting {
        /// The field.
        name: &'static str,
        /// What it was.
        value: f64,
        /// What it may be.
        range: &'static str,
    },
}
