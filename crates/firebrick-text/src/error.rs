//! What can be wrong with a tokenizer, a template or a conversation.

use std::io;
use std::path::PathBuf;

/// What can be wrong with a tokenizer, a template or a conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}; check that it is there and readable", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}; check that its folder is there, writable and has space left", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than any of its kind.
    #[error("{}: holds more than {limit} bytes, the limit of such a file; fetch it anew", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file is not text.
    #[error("{}: not UTF-8 from byte {byte}; fetch it anew", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first wrong byte, counted from 0.
        byte: usize,
    },
    /// A file is not as it was written.
    #[error("{}: not as it was written: {source}; write it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A vocabulary is too small for all bytes.
    #[error("a vocabulary of {asked} tokens is too small: 256 bytes and the end of context take {least}")]
    VocabularyTooSmall {
        /// The size asked for.
        asked: usize,
        /// The least size.
        least: usize,
    },
    /// A tokenizer file cannot be understood, or is of a kind that is not built here.
    #[error("{}: not a `tokenizer.json` that can be used: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tokenizer has no token to end a context with.
    #[error("{}: no end-of-context token; add one of {known:?} to its special tokens", path.display())]
    NoEndOfContext {
        /// The file.
        path: PathBuf,
        /// The tokens that would do.
        known: &'static [&'static str],
    },
    /// A text holds a token that was added to the tokenizer, and not to the network.
    #[error(
        "the text holds the token `{token}` ({id}), but the network's vocabulary has {vocab}: it was added to the tokenizer \
         alone; leave it out, or resize the embeddings of the model to the tokenizer"
    )]
    NoEmbedding {
        /// Its name.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// A text is not a dialogue.
    #[error(
        "a dialogue begins with {:?}, found {found:?}; put the marker before its first turn",
        crate::dialogue::HUMAN
    )]
    NoHumanMarker {
        /// How the text begins.
        found: String,
    },
    /// A chat template cannot be read, or fails.
    #[error("{origin}: the chat template {reason}")]
    Template {
        /// The file that holds it.
        origin: String,
        /// What is wrong.
        reason: String,
    },
}
