#![doc = include_str!("../README.md")]

mod close;
mod data;
mod gguf;
pub mod goldens;
mod gradient;

pub use close::{Numbers, assert_close};
pub use data::data_dir;
pub use gguf::Gguf;
pub use goldens::{Golden, golden};
pub use gradient::{grad_check, gradient};

use burn::tensor::Device;

/// The device that tests run on: Burn's Flex backend, without autodiff.
pub fn cpu() -> Device {
    Device::flex()
}
