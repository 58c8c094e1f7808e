//! Convolutions.

mod conv2d;
#[cfg(feature = "flex")]
mod correlation;
#[cfg(feature = "flex")]
mod frame;
#[cfg(feature = "flex")]
mod planes;

pub(crate) use conv2d::plain;
pub use conv2d::{conv2d, conv2d_adjoint, conv2d_in};
