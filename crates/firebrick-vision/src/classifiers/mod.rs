//! Sequential convolutional classifiers: their layers, weights, files and training.

mod classifier;
mod cnn;
mod config;
mod files;
mod torchvision;
mod training;

pub use classifier::Classifier;
pub use cnn::Cnn;
pub use config::{CnnConfig, CnnLayer};
pub use files::{open_cnn, save_cnn};
pub use torchvision::open_torchvision;
pub(crate) use training::randomly_shifted;
pub use training::{ClassifierConfig, accuracy, fit, losses};
