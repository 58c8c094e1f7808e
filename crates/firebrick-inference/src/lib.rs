#![doc = include_str!("../README.md")]

pub mod attribution;
mod belief;
mod cholesky;
pub mod complete;
mod decoder;
mod energy;
mod error;
#[cfg(test)]
mod exact;
mod files;
mod impute;
pub mod metrics;
mod model;
mod network;
pub mod pooling;
mod prior;
mod sweep;
pub mod tasks;

pub use belief::{Belief, Level, Upward, rectified};
pub use decoder::{Decoder, DecoderMode};
pub use energy::{Compose, Descent, Found, Instances, MapConfig};
pub use error::Error;
pub use impute::Imputed;
pub use model::{FitConfig, GenerativeModel};
pub use network::Network;
pub use prior::{Component, Posterior, PriorConfig};
pub use sweep::{Evidence, Explanation, LayerPosterior, Query, Reading, SweepConfig};
