#![doc = include_str!("../README.md")]

mod loss;
#[cfg(feature = "train")]
mod objective;
#[cfg(feature = "train")]
mod pair;
#[cfg(feature = "train")]
mod passes;
#[cfg(feature = "train")]
pub mod policy;
#[cfg(feature = "train")]
pub mod reward_model;

pub use loss::{dpo_loss, pair_accuracy, ranked_loss};
#[cfg(feature = "train")]
pub use objective::{Dpo, Objective, PairLogProbs};
#[cfg(feature = "train")]
pub use pair::Pair;
