#![doc = include_str!("../README.md")]

pub mod attribution;
mod belief;
mod error;
mod network;
pub mod pooling;

pub use belief::{Belief, Level, Upward, rectified};
pub use error::Error;
pub use network::Network;
