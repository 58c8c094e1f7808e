#![doc = include_str!("../README.md")]

mod checkpoint;
pub mod classify;
pub mod denoise;
pub mod distill;
mod error;
mod fit;
mod gradients;
pub mod lm;
mod observe;
mod optimizer;
mod parallel;
mod schedule;

pub use checkpoint::{Checkpoint, Checkpoints};
pub use error::{Error, ObserverError};
pub use fit::{FitConfig, Loss, Part, fit, gradients_of};
pub use gradients::Gradients;
pub use observe::{Event, Observer, Silent, Values};
pub use optimizer::{AdamW, AdamWConfig, EpsilonForm};
pub use parallel::{parallel_fold, parallel_map};
pub use schedule::Schedule;
