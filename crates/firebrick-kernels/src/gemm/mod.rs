//! The general matrix product C ← C + A B of f32, in the layout and the words of BLIS.
//!
//! Every element of C is one chain of fused multiply-adds over the k index, in its order:
//!
//! ```text
//! c ← fma(aₚ, bₚ, c)        p = 0, 1, 2, … k − 1
//! ```
//!
//! Tiles, blocks, threads and instruction sets decide when a multiply-add is made, never in which order those of an element are. So
//! an element has the same bits in a product of one row as in one of a thousand, and a sum that stops and goes on later is the same
//! sum.
//!
//! | module | holds |
//! | --- | --- |
//! | [`matrix`] | strided matrices within slices, and pointers into them |
//! | [`isa`] | vectors, one type an instruction set |
//! | [`microkernel`] | an MR × NR tile of C in registers, and the [`Kernel`] of an instruction set |
//! | [`pack`] | A and B copied into panels that a microkernel reads from beginning to end |
//! | [`driver`] | the loops around the microkernel, and threads |
//! | [`prepacked`] | products whose B was packed beforehand, or grows |
//! | [`im2col`] | products whose A is the windows of an image, read where they are |
//! | [`bf16`] | products of factors that are rounded to BF16, in pairs |
//! | [`amx`] | the same on Intel's matrix unit, in an accumulation order of its own |
//! | [`engine`] | which of a vector unit and a matrix unit multiplies |
//!
//! BLIS: Van Zee and van de Geijn 2015, [doi:10.1145/2764454](https://doi.org/10.1145/2764454).

#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), path = "amx_absent.rs")]
mod amx;
mod bf16;
mod driver;
mod engine;
mod im2col;
mod isa;
mod matrix;
mod microkernel;
mod pack;
mod prepacked;
#[cfg(test)]
mod reference;

pub(crate) use amx::Amx;
pub(crate) use bf16::{
    pack_column_pairs, pack_pairs_of_rows, pack_row_pairs, prepack_bf16, product_bf16, product_of_prepacked_bf16,
};
pub(crate) use driver::{MIN_PARALLEL_FLOPS, accumulate_product, product, write_product};
pub(crate) use im2col::{Im2col, Patches, accumulate_product_of_transposed_im2col, write_product_of_im2col};
pub(crate) use matrix::{Init, Matrix};
pub(crate) use microkernel::Kernel;
pub(crate) use prepacked::{Panels, prepack, prepack_for, product_of_prepacked, small_m, write_product_of_panels};
