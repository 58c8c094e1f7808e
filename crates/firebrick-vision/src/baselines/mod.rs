//! What a generative model has to show its worth beside: other ways to fill in what is not seen, and other models of activations.

pub mod complete;
pub mod denoise;
mod explain;
mod noisy_or;
mod rectified_gaussian;

pub use explain::{Explain, Explained, Sweeps};
pub use noisy_or::NoisyOr;
pub use rectified_gaussian::RectifiedGaussian;
