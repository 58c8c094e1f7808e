//! What a generative model has to show its worth beside: other ways to fill in what is not seen, and other models of activations.

mod activation_model;
pub mod denoise;

mod fill;
mod noisy_or;
mod pixel_factors;
mod predictive_coding;
mod rectified_gaussian;

pub use activation_model::{ActivationModel, Inpainting};
pub use fill::{mean, nearest, zero};
pub use noisy_or::NoisyOr;
pub use pixel_factors::PixelFactors;
pub use predictive_coding::predictive_coding;
pub use rectified_gaussian::RectifiedGaussian;
