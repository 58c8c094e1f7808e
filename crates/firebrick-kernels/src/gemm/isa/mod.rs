//! Vectors of f32, one type an instruction set, and what they do with elements of f32 and of BF16.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod portable;
mod vector;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::{Avx512, Avx512Pairs};
pub(super) use portable::{Portable, PortablePairs};
pub(crate) use vector::Element;
pub(super) use vector::{TRANSPOSED_BLOCK, Vector};
