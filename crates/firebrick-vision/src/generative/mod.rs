//! A generative model of a classifier's activations, its passes, and the questions that they answer.

mod evidence;
mod exemplars;
mod fit;
mod model;
mod passes;
mod questions;
mod rows;

pub use evidence::{Evidence, Query, filled};
pub use exemplars::Exemplars;
pub use fit::GenerativeConfig;
pub use model::{
    Belief, Component, Decoder, DecoderMode, GenerativeModel, Level, Network, Posterior, PriorConfig, Upward,
};
pub use passes::{Compose, Descent, Explanation, Found, Instances, LayerPosterior, MapConfig, Reading, SweepConfig};
pub use questions::{DetectConfig, Detection, ImputeConfig, Imputed, UncoverConfig, Uncovered};

pub(crate) use evidence::labels;
pub(crate) use model::{fit_prior, patches};
