#![doc = include_str!("../README.md")]

pub mod attribution;
pub mod baselines;
mod cholesky;
pub mod classifiers;
mod error;
pub mod generative;
pub mod images;
pub mod metrics;
pub mod pooling;

pub use error::Error;
