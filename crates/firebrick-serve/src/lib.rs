#![doc = include_str!("../README.md")]

mod answer;
mod chat;
mod choice;
mod completions;
mod engine;
mod error;
mod fields;
mod refusal;
mod score;
mod server;
mod settings;

pub use choice::{Piece, TextToken};
pub use engine::{Engine, Job, Limits, Update, Updates};
pub use error::Error;
pub use server::{Server, interrupt, serve};
pub use settings::{random_seed, sampler};
