//! What can be wrong with a checkpoint.

use std::io;
use std::path::PathBuf;

/// What can be wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("{}: cannot be read: {source}; check that it is there and readable", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("{}: cannot be written: {source}; check that its folder is there, writable and has space left", path.display())]
    Write {
        /// The file or folder.
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
    /// A file is not JSON.
    #[error("{}: not whole JSON: {source}; fetch it anew", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file is not text.
    #[error("{}: not UTF-8; fetch it anew", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// Weights are damaged, or none of a language model.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key holds something else than it should.
    #[error("{}: `{key}` is {found}, expected {expected}; correct it", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: String,
    },
    /// There is no checkpoint.
    #[error(
        "{}: no checkpoint; looked for `config.json` with `model.safetensors` or its shards, and for one `.gguf` file; \
         found {found}; name a folder or a file that holds one, or hub:OWNER/NAME (pickled weights, `.bin` and `.pt`, \
         are not read: save them as safetensors)",
        path.display()
    )]
    NoCheckpoint {
        /// Where it was looked for.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A checkpoint has no tokenizer.
    #[error(
        "{}: no tokenizer; put `tokenizer.json`, or `vocab.json` and `merges.txt`, beside `config.json`; a GGUF file \
         carries its own",
        path.display()
    )]
    NoTokenizer {
        /// The folder or file.
        path: PathBuf,
    },
    /// A tokenizer is damaged, or of a kind that is not built here.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tokenizer gives ids that the network does not have.
    #[error(
        "{}: the tokenizer has {tokens} tokens, but the network's vocabulary has {vocab}; they are of different models: \
         take both from one",
        path.display()
    )]
    Vocabulary {
        /// The folder or file.
        path: PathBuf,
        /// Ids of the tokenizer.
        tokens: usize,
        /// Rows of the embedding.
        vocab: usize,
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
    /// A chat template cannot be read, or fails.
    #[error("{origin}: the chat template {reason}")]
    Template {
        /// The file that holds it.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint may only be written where nothing is.
    #[error("{}: not an empty folder; name another one, or remove it first", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The network's files are wrong.
    #[error(transparent)]
    Model(#[from] firebrick_models::Error),
    /// The tokenizer's files are wrong, or the hub does not give the model.
    #[error(transparent)]
    Data(firebrick_data::Error),
    /// The hub is asked for, and this program was built without it.
    #[error("hub:{repo}: this program was built without the feature `hub`; fetch the model and name its folder")]
    WithoutHub {
        /// The model.
        repo: String,
    },
}

impl From<firebrick_data::Error> for Error {
    /// A tokenizer's error says why: what prints errors may not ask for causes.
    fn from(error: firebrick_data::Error) -> Self {
        match error {
            firebrick_data::Error::Tokenizer { path, source } => {
                Self::Tokenizer { path, reason: format!("not a `tokenizer.json` that can be used: {source}") }
            }
            other => Self::Data(other),
        }
    }
}
