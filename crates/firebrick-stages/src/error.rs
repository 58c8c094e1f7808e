//! What is wrong with what was given.

use firebrick_pipeline::BoxError;

/// Something that was given cannot work: a recipe, a model or a file of another kind than the one that is wanted.
///
/// The message names the thing and the way on. Commands end with exit code 2 where it is among the causes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(String);

impl BadInput {
    /// With this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// With the message of another error and of its causes.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

/// An error as what it is, so that who looks for its causes finds it among them.
pub(crate) fn unwrapped(error: anyhow::Error) -> BoxError {
    error.reallocate_into_boxed_dyn_error_without_backtrace()
}
