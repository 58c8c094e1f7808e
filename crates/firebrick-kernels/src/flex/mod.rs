//! The processor backend Flex: its tensors as slices, and gradients through operations on them.

mod tensors;
mod vjp;

pub(crate) use tensors::{compact, contiguous, dims, elements, indices, is_flex, tensor};
pub(crate) use vjp::{Vjp, constant, tracked};
