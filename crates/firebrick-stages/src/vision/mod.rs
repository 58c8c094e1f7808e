//! The stages of the pipeline `vision`: a classifier of pictures, a generative model of its activations, and what it answers.

mod artifacts;
mod blends;
mod clutter;
mod completion;
pub(crate) mod cost;
mod covers;
mod overlap;
mod pictures;
pub(crate) mod questions;
pub(crate) mod recipe;
pub(crate) mod report;
mod results;
pub(crate) mod stages;

pub use artifacts::Pictures;
pub(crate) use artifacts::QuestionResults;
pub use pictures::all;
pub use recipe::Recipe;
