#![doc = include_str!("../README.md")]

pub mod artifacts;
pub mod bands;
pub mod checkpoint;
pub mod compare;
pub mod data;
pub mod distill;
mod env;
mod error;
mod estimate;
pub mod judge;
pub mod language;
pub mod measurements;
pub mod metrics;
pub mod pipelines;
pub mod ppo;
pub mod recipe;
mod recorder;
pub mod report;
pub mod reward_model;
pub mod rows;
pub mod score;
pub mod sft;
pub mod vision;

pub use env::Env;
pub use error::BadInput;
pub use firebrick_pipeline as pipeline;
pub use recorder::{Recorder, Speed};
