#![doc = include_str!("../README.md")]

pub mod artifacts;
pub mod bands;
pub mod checkpoint;
pub mod data;
pub mod distill;
mod env;
pub mod language;
pub mod metrics;
pub mod pipelines;
pub mod ppo;
pub mod recipe;
mod recorder;
pub mod reward_model;
pub mod vision;

pub use env::Env;
pub use firebrick_pipeline as pipeline;
pub use recorder::{Recorder, Speed};
