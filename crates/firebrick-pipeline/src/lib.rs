#![doc = include_str!("../README.md")]

mod artifact;
mod error;
mod files;
mod layout;
mod pipeline;
mod plan;
mod record;
mod run;
mod stage;

pub use artifact::{Artifact, open};
pub use error::{BoxError, Error};
pub use files::{atomic_write, digest};
pub use pipeline::Pipeline;
pub use plan::{Plan, PlannedStage, Status};
pub use record::{Difference, Identity, Input, Record, read_record};
pub use run::{Event, Options};
pub use stage::{Inputs, Output, Slot, Stage, StageContext};
