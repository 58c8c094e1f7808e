//! Products of factors that are rounded to BF16, on a processor's matrix unit (Intel's AMX).
//!
//! The k index comes in blocks of 32, the last of which zeros fill. In each the even and the odd k are a sum of their own, from 0:
//!
//! ```text
//! e ← fma(a₂ₚ, b₂ₚ, e)        o ← fma(a₂ₚ₊₁, b₂ₚ₊₁, o)        p = 0, …, 15
//! c ← c + (e + o)
//! ```
//!
//! What is smaller than the least normal number is 0. That is what the unit's one instruction, `tdpbf16ps`, computes, for one row as for
//! sixteen, so an element has the same bits in every product. They are not those of [`bf16`](super::bf16), the order of processors without
//! such a unit.

mod driver;
mod im2col;
mod microkernel;
mod pack;

pub(crate) use microkernel::Amx;
pub(super) use microkernel::PANEL;
pub(super) use pack::panel_length;
