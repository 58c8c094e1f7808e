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
    /// A weights file does not fit the model.
    #[error("{path}: {source}")]
    Parameters {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ParametersError,
    },
}
