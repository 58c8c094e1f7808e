//! What can stop a training run.

use std::path::PathBuf;

/// An error of an observer, for instance a full disk.
pub type ObserverError = Box<dyn std::error::Error + Send + Sync>;

/// What can stop a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A loss or a gradient is not a finite number.
    #[error(
        "{what} is {value} at step {step} (samples {samples} and on); last good checkpoint: {}; \
         lower the learning rate or look at these samples",
        .checkpoint.as_ref().map_or("none yet".to_owned(), |path| path.display().to_string())
    )]
    NonFinite {
        /// What is not finite: `loss` or `grad_norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step.
        step: u64,
        /// The samples seen before it.
        samples: u64,
        /// Where the state before it lies.
        checkpoint: Option<PathBuf>,
    },
    /// There is nothing to train on.
    #[error("{what} is empty: {fix}")]
    Empty {
        /// What.
        what: String,
        /// What to do.
        fix: String,
    },
    /// A sample that the loop cannot learn from.
    #[error("{what}: {fix}")]
    Sample {
        /// Which, and what is wrong with it.
        what: String,
        /// What to do.
        fix: String,
    },
    /// A checkpoint could not be written or read.
    #[error("checkpoint {path}: {source}{}", advice(.source))]
    Checkpoint {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint does not hold what this run needs.
    #[error("checkpoint {path} is damaged ({reason}); delete that folder and run the same command again")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An observer failed.
    #[error(transparent)]
    Observer(#[from] ObserverError),
}

fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull => "; free space and run the same command again, finished work is kept",
        _ => "",
    }
}
