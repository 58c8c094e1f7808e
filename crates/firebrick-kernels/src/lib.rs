#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "the one crate that may hold it")]
#![deny(clippy::undocumented_unsafe_blocks)]

#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod gemm;
mod memory;
mod ops;
mod precision;
#[cfg(feature = "flex")]
mod vector;

pub use memory::keep_freed_memory;
pub use ops::activation::{gelu, gelu_tanh, rectified_moments, relu, swiglu};
pub use ops::adamw::{AdamWStep, adamw, square_sum};
pub use ops::attention::{Chunk, Heads, KeyValues, SequenceStarts, attention, attention_cached};
pub use ops::boltzmann::{boltzmann, greatest};
pub use ops::conv::{conv2d, conv2d_adjoint, conv2d_in};
pub use ops::embedding::embedding;
pub use ops::linear::{PackedWeight, linear, linear_in};
pub use ops::log_probs::token_log_probs;
pub use ops::norm::{layer_norm, rms_norm};
pub use ops::pool::{avg_pool2d, max_pool2d};
pub use ops::rotary::{Rotary, rotary};
pub use ops::unpool::soft_unpool;
pub use ops::window::Window;
pub use precision::Precision;

/// The references: elementary operations, on every device.
pub mod plain {
    pub use crate::ops::activation::plain::{gelu, gelu_tanh, rectified_moments, relu, swiglu};
    pub use crate::ops::adamw::plain::{adamw, square_sum};
    pub use crate::ops::attention::plain::attention;
    pub use crate::ops::boltzmann::plain::{boltzmann, greatest};
    pub use crate::ops::conv::plain::{conv2d, conv2d_bf16};
    pub use crate::ops::embedding::plain::embedding;
    pub use crate::ops::linear::plain::{linear, linear_bf16};
    pub use crate::ops::log_probs::plain::token_log_probs;
    pub use crate::ops::norm::plain::{layer_norm, rms_norm};
    pub use crate::ops::pool::plain::{avg_pool2d, max_pool2d};
    pub use crate::ops::rotary::plain::rotary;
    pub use crate::ops::unpool::plain::soft_unpool;
}
