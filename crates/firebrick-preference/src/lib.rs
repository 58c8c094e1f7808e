#![doc = include_str!("../README.md")]

mod loss;
#[cfg(feature = "train")]
mod model;

pub use loss::{pair_accuracy, ranked_loss};
#[cfg(feature = "train")]
pub use model::{Pair, PairLosses, PreferenceConfig, scores, train};
