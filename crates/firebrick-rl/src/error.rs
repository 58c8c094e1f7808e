//! What can stop reinforcement learning.

use crate::RewardError;

/// What can stop reinforcement learning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The loop was stopped.
    #[error(transparent)]
    Train(#[from] firebrick_train::Error),
    /// A response could not be judged.
    #[error("the reward failed: {0}")]
    Reward(#[source] RewardError),
    /// A reward that does not give one score a response.
    #[error("the reward gave {scores} scores of {responses} responses; it must give one of each, group after group")]
    RewardCount {
        /// How many it gave.
        scores: usize,
        /// How many responses there are.
        responses: usize,
    },
    /// A score that is no finite number.
    #[error(
        "the reward of a response to prompt `{prompt}` is {score}, which is not a finite number; the response: {response:?}"
    )]
    RewardValue {
        /// The prompt's id.
        prompt: String,
        /// The response's text.
        response: String,
        /// Its score.
        score: f64,
    },
}
