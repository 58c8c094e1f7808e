#![doc = include_str!("../README.md")]

mod error;
mod log_file;
pub mod metrics;
pub mod page;
pub mod plot;
pub mod tensorboard;

pub use error::Error;
