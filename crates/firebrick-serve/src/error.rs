//! Why a job is not taken.

/// Why a job is not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its prompt or its sampler cannot be used.
    #[error(transparent)]
    Sampling(#[from] firebrick_sampling::Error),
    /// As many jobs wait as may.
    #[error("{queue} requests are waiting already; try again later")]
    Full {
        /// How many may.
        queue: usize,
    },
    /// The engine has ended.
    #[error("the engine has ended; start it anew")]
    Closed,
}
