//! A generative model of a classifier's activations, its passes, and the questions that they answer.

mod evidence;
mod exemplars;
mod fit;
mod model;
mod passes;
mod questions;
mod rows;

pub(crate) use evidence::labels;
pub use evidence::{Evidence, Query, filled};
pub use exemplars::Exemplars;
pub use fit::GenerativeConfig;
pub use model::{
    Belief, Component, Decoder, DecoderMode, GenerativeModel, Level, Network, Posterior, PriorConfig, Upward,
};
pub(crate) use model::{fit_prior, patches};
pub(crate) use passes::upward_from;
pub use passes::{
    Composition, Descent, Explanation, Instances, LayerPosterior, MapConfig, SweepConfig, descend, sweep, upward,
};
pub use questions::{
    CompleteConfig, DetectConfig, Detection, Imputation, ImputeConfig, MapEstimate, UncoverConfig, Visibility,
    complete, detect, impute, most_probable_explanation, overlapping_labels, separate, uncover, uncover_by_exemplars,
};
