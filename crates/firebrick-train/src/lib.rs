#![doc = include_str!("../README.md")]

mod checkpoint;
pub mod distill;
mod error;
mod fit;
mod gradients;
mod learner;
pub mod lm;
mod observe;
mod optimizer;
mod order;
mod run;
mod schedule;
pub mod sft;

pub use checkpoint::{Checkpoint, Checkpoints};
pub use error::{Error, ObserverError};
pub use fit::{FitConfig, Loss, Part, Passes, Samples, fit, gradients_of};
pub use gradients::Gradients;
pub use learner::{Learner, NonFinite, Trained};
pub use observe::{Event, Observer, Silent, Values};
pub use optimizer::{AdamW, AdamWConfig, EpsilonForm};
pub use order::Order;
pub use run::{Probe, Run, Step};
pub use schedule::Schedule;
