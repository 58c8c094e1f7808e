//! What can be wrong with a model's shape or files.

use std::path::PathBuf;

use firebrick_tensor::ParametersError;

/// What can be wrong with a model's shape or files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number of the shape is zero.
    #[error("`{key}` is 0; it must be at least 1")]
    Zero {
        /// Which.
        key: &'static str,
    },
    /// The heads do not divide the width.
    #[error("`heads` = {heads} does not divide `d_model` = {d_model}; choose a divisor")]
    Heads {
        /// Attention heads.
        heads: usize,
        /// Width.
        d_model: usize,
    },
    /// The context is too long.
    #[error("`context` = {context} is more than {longest} tokens; lower it")]
    Context {
        /// Tokens.
        context: usize,
        /// Tokens, at most.
        longest: usize,
    },
    /// The heads of keys and values do not divide those of queries.
    #[error("`key_value_heads` = {key_value_heads} does not divide `heads` = {heads}; choose a divisor")]
    KeyValueHeads {
        /// Heads of keys and values.
        key_value_heads: usize,
        /// Heads of queries.
        heads: usize,
    },
    /// More of a head is to be turned than there is, or half a pair.
    #[error("rotary `dims` = {dims} must be even, at least 2 and at most the width of a head, {d_head}")]
    RotaryDims {
        /// Numbers that are turned.
        dims: usize,
        /// Numbers of a head.
        d_head: usize,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A `config.json` is not one of ours.
    #[error("{path}: {source}")]
    Config {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// An architecture that is not built here.
    #[error("{path}: `model_type` is `{found}`; known are {known}")]
    Architecture {
        /// The `config.json`.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What could be read.
        known: &'static str,
    },
    /// A part of a known architecture that is not built here.
    #[error("{path}: `{key}` = {found} is not supported")]
    Unsupported {
        /// The `config.json`.
        path: PathBuf,
        /// Its key.
        key: &'static str,
        /// What stands there.
        found: String,
    },
    /// A key that an architecture cannot do without.
    #[error("{path}: `{key}` is missing")]
    MissingKey {
        /// The `config.json`.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// Two keys for one thing say different things of it.
    #[error(
        "{}: `{}` is `{}`, but `{}` is `{}`; they are names of one setting: leave out the wrong one",
        path.display(), values[0].0, values[0].1, values[1].0, values[1].1
    )]
    Contradiction {
        /// The `config.json`.
        path: PathBuf,
        /// The keys and what they say.
        values: [(&'static str, String); 2],
    },
    /// A list of shards names something that is not a file of its folder.
    #[error("{path}: the shard `{shard}` is not a file of this folder")]
    Shard {
        /// The list.
        path: PathBuf,
        /// What it names.
        shard: String,
    },
    /// A GGUF file is damaged, or holds something that is not built here.
    #[error("{path}: {reason}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A shape that no known architecture has, so that it cannot be written for others.
    #[error("no architecture of {known} has this shape; it can be written in this project's own format only")]
    NoSuchArchitecture {
        /// What could be written.
        known: &'static str,
    },
    /// A weights file does not fit the model.
    #[error("{path}: {source}")]
    Parameters {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ParametersError,
    },
}
