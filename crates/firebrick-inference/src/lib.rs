#![doc = include_str!("../README.md")]

pub mod attribution;
mod belief;
mod cholesky;
pub mod complete;
mod decoder;
mod detect;
mod energy;
mod error;
#[cfg(test)]
mod exact;
mod exemplars;
mod explain;
mod files;
mod hrg;
mod impute;
pub mod metrics;
mod model;
mod network;
mod noisy_or;
mod pairs;
pub mod pooling;
mod prior;
mod sweep;
pub mod tasks;
mod uncover;

pub use belief::{Belief, Level, Upward};
pub use decoder::{Decoder, DecoderMode};
pub use detect::{DetectConfig, Detection};
pub use energy::{Compose, Descent, Found, Instances, MapConfig};
pub use error::Error;
pub use exemplars::Exemplars;
pub use explain::{Explain, Explained, Sweeps};
pub use hrg::RectifiedGaussian;
pub use impute::{ImputeConfig, Imputed};
pub use model::{GenerativeConfig, GenerativeModel};
pub use network::Network;
pub use noisy_or::NoisyOr;
pub use prior::{Component, Posterior, PriorConfig};
pub use sweep::{Evidence, Explanation, LayerPosterior, Query, Reading, SweepConfig};
pub use uncover::{UncoverConfig, Uncovered};
