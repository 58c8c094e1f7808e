//! Sequential convolutional classifiers: their layers, weights, files and training.

mod classifier;
pub mod classify;
mod cnn;
mod config;
mod files;
mod torchvision;

pub use classifier::Classifier;
pub use cnn::Cnn;
pub use config::{CnnConfig, CnnLayer};
pub use files::{open_cnn, save_cnn};
pub use torchvision::open_torchvision;
