//! What a run is executed with; none of it bears on results, but that another device rounds otherwise.

use std::path::PathBuf;
use std::time::Duration;

use burn::tensor::Device;

/// What a run is executed with.
#[derive(Clone, Debug)]
pub(crate) struct Env {
    /// Where tensors live.
    pub(crate) device: Device,
    /// A folder of data; none for the built-in world.
    pub(crate) data: Option<PathBuf>,
    /// Wall time between checkpoints.
    pub(crate) checkpoint_every: Duration,
    /// How much is said.
    pub(crate) voice: Voice,
}

/// How much is said while a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Voice {
    /// Errors and the place of the report.
    Quiet,
    /// Stages, progress and the main results.
    Normal,
    /// Also every step's metrics.
    Verbose,
}
