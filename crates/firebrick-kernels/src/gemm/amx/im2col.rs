//! Products of the patches of images.
//!
//! The indices k of a patch are its numbers, row by row, and zeros that fill the last block of every row.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::super::im2col::Patches;
use super::super::matrix::{Init, MatPtr, Matrix};
use super::microkernel::{Amx, BLOCK, PANEL, TILE_PAIRS, TILE_ROWS, TileConfig, tile};
use super::pack::{self, BUFFERS, PackedTiles, panel_length};

/// The first so many of 32.
fn first_of_32(count: usize) -> __mmask32 {
    if count >= BLOCK { __mmask32::MAX } else { (1 << count) - 1 }
}

/// Packs so many patches as rows of A.
///
/// # Safety
/// The unit is there; there is room for the length of a patch, and the patches, at most [`PANEL`], were checked.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_rows(to: *mut f32, patches: Patches<'_>, starts: &[usize]) {
    let mut block = to;
    for row in 0..patches.rows {
        for k in (0..patches.row_length).step_by(BLOCK) {
            let mask = first_of_32(patches.row_length - k);
            let numbers = patches.data.as_ptr().wrapping_add(row * patches.row_stride + k);
            for (index, start) in starts.iter().enumerate() {
                // SAFETY: the caller's; what does not exist is not read.
                unsafe {
                    let pairs = _mm512_maskz_loadu_epi16(mask, numbers.add(*start).cast());
                    _mm512_storeu_si512(block.add(index * TILE_ROWS).cast(), pairs);
                }
            }
            block = block.wrapping_add(2 * TILE_PAIRS);
        }
    }
}

/// Packs numbers `at` to `at + 32` of a row of all patches, or those that there are, as columns of a B whose index k is the patch.
///
/// # Safety
/// The unit is there; there is room for as many k, and the patches were checked.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_columns(to: *mut f32, patches: Patches<'_>, row: usize, at: usize) {
    // Numbers of the earlier and of the later patch in turns, of the first sixteen columns and of the others.
    let interleave: [[u16; BLOCK]; 2] = std::array::from_fn(|half| {
        std::array::from_fn(|index| (half * TILE_ROWS + index / 2 + index % 2 * BLOCK) as u16)
    });
    // SAFETY: 32 indices each.
    let interleave = interleave.map(|indices| unsafe { _mm512_loadu_si512(indices.as_ptr().cast()) });
    let mask = first_of_32(patches.row_length - at);
    let first = patches.data.as_ptr().wrapping_add(row * patches.row_stride + at);
    for pair in 0..patches.starts.len().div_ceil(BLOCK) * TILE_ROWS {
        let mut numbers = [_mm512_setzero_si512(); 2];
        for (numbers, start) in numbers.iter_mut().zip(patches.starts.iter().skip(2 * pair)) {
            // SAFETY: the caller's; what does not exist is not read.
            *numbers = unsafe { _mm512_maskz_loadu_epi16(mask, first.add(*start).cast()) };
        }
        let [earlier, later] = numbers;
        for (half, interleave) in interleave.into_iter().enumerate() {
            let pairs = _mm512_permutex2var_epi16(earlier, interleave, later);
            let row = to.wrapping_add((pair / TILE_ROWS * 2 + half) * TILE_PAIRS + pair % TILE_ROWS * TILE_ROWS);
            // SAFETY: there is room for it.
            unsafe { _mm512_storeu_si512(row.cast(), pairs) }
        }
    }
}

/// [`Amx::round`].
///
/// # Safety
/// The unit is there.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn round(from: &[f32], to: &mut [bf16]) {
    for (from, to) in from.chunks(TILE_ROWS).zip(to.chunks_mut(TILE_ROWS)) {
        let mut numbers = [0.0; TILE_ROWS];
        numbers[..from.len()].copy_from_slice(from);
        // SAFETY: sixteen numbers; the types differ in name alone.
        let rounded = unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(numbers.as_ptr()));
            std::mem::transmute::<__m256bh, [bf16; TILE_ROWS]>(rounded)
        };
        to.copy_from_slice(&rounded[..from.len()]);
    }
}

impl Amx {
    /// Rounds numbers.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn round(self, from: &[f32], to: &mut [bf16]) {
        assert_eq!(from.len(), to.len(), "room for rounded numbers");
        // SAFETY: the unit is there.
        unsafe { round(from, to) }
    }

    /// Weights `[rows, row_length, columns]` of patches, packed for [`Amx::write_product_of_patches`].
    pub(crate) fn pack_weights(self, weights: &[f32], rows: usize, row_length: usize, columns: usize) -> Vec<f32> {
        assert_eq!(weights.len(), rows * row_length * columns, "weights of patches");
        let of_panel = rows * panel_length(row_length);
        let mut packed = vec![0.0; columns.div_ceil(PANEL) * of_panel];
        for (panel, to) in packed.chunks_exact_mut(of_panel).enumerate() {
            let of_rows = weights.chunks_exact(row_length * columns);
            for (row, to) in of_rows.zip(to.chunks_exact_mut(panel_length(row_length))) {
                let columns = Matrix::row_major(row, row_length, columns, columns).split_columns(panel * PANEL).1;
                let columns = columns.split_columns(PANEL.min(columns.columns)).0;
                // SAFETY: the unit is there, and room for a panel of these k.
                unsafe { pack::panels::<f32, true>(to.as_mut_ptr(), columns.transposed()) }
            }
        }
        packed
    }

    /// C ← init + A B, row-major, on this thread: of patches, and of packed weights.
    ///
    /// # Panics
    /// If the shapes disagree or a patch reaches beyond its image.
    pub(crate) fn write_product_of_patches(
        self,
        c: &mut [MaybeUninit<f32>],
        init: Init<'_>,
        patches: Patches<'_>,
        weights: &[f32],
        columns: usize,
    ) {
        patches.check();
        let of_panel = patches.rows * panel_length(patches.row_length);
        assert_eq!(c.len(), patches.starts.len() * columns, "shape of a product");
        assert_eq!(weights.len(), columns.div_ceil(PANEL) * of_panel, "shape of the weights");
        let init = init.pointer(columns);
        let out = MatPtr { data: c.as_mut_ptr().cast::<f32>(), stride: columns };
        let k = patches.rows * patches.row_length.next_multiple_of(BLOCK);
        let mut config = TileConfig::new();
        BUFFERS.with_borrow_mut(|[packed, _]| {
            for (panel, starts) in patches.starts.chunks(PANEL).enumerate() {
                let a = packed.reserve(of_panel);
                // SAFETY: the patches were checked, and there is room for them; the tiles lie within C.
                unsafe {
                    pack_rows(a, patches, starts);
                    for jr in (0..columns).step_by(PANEL) {
                        let b = weights[jr / PANEL * of_panel..].as_ptr();
                        let (init, out) = (init.at(panel * PANEL, jr), out.at(panel * PANEL, jr));
                        let shape = [starts.len(), PANEL.min(columns - jr)];
                        tile(&mut config, shape, k, [a.cast_const(), b], init, out);
                    }
                }
            }
        });
    }

    /// C ← C + Bᵀ A of these rows of the patches A, whose index k is the patch: `[rows, columns of B, row_length]`.
    ///
    /// # Panics
    /// If the shapes disagree or a patch reaches beyond its image.
    pub(crate) fn accumulate_transposed_product_of_patches(
        self,
        c: &mut [f32],
        b: Matrix<'_>,
        patches: Patches<'_>,
        rows: Range<usize>,
    ) {
        patches.check();
        assert!(rows.end <= patches.rows, "rows of a patch");
        assert_eq!(c.len(), rows.len() * b.columns * patches.row_length, "shape of a product");
        assert_eq!(patches.starts.len(), b.rows, "shapes of a product");
        let out = MatPtr { data: c.as_mut_ptr(), stride: patches.row_length };
        let mut config = TileConfig::new();
        BUFFERS.with_borrow_mut(|[packed, columns]: &mut [PackedTiles; 2]| {
            // SAFETY: the factors were checked, and there is room for them; the tiles lie within C.
            unsafe {
                packed.pack::<_, false>(b.transposed());
                for (index, row) in rows.enumerate() {
                    for at in (0..patches.row_length).step_by(PANEL) {
                        let of_patches = columns.reserve(panel_length(b.rows));
                        pack_columns(of_patches, patches, row, at);
                        for ir in (0..b.columns).step_by(PANEL) {
                            let out = out.at(index * b.columns + ir, at);
                            let shape = [PANEL.min(b.columns - ir), PANEL.min(patches.row_length - at)];
                            let factors = [packed.panel(ir, b.rows), of_patches.cast_const()];
                            tile(&mut config, shape, b.rows, factors, out.cast_const(), out);
                        }
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::reference::{in_blocks, numbers};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 100 }))]

        /// The rows that are copied are filled with zeros.
        #[test]
        fn patches_give_the_bits_of_rows_that_are_copied(
            count in 0..70_usize, rows in 1..4_usize, row_length in 1..70_usize, columns in 0..70_usize,
        ) {
            let Some(amx) = Amx::get() else { return Ok(()) };
            let row_stride = row_length + 3;
            let image = numbers(2 * count + rows * row_stride + row_length, 1);
            let mut rounded = vec![bf16::ZERO; image.len()];
            amx.round(&image, &mut rounded);
            for (rounded, number) in rounded.iter().zip(&image) {
                prop_assert_eq!(*rounded, bf16::from_f32(*number));
            }
            let starts = (0..count).map(|patch| 2 * patch + patch % 2).collect::<Vec<_>>();
            let patches = Patches { data: &rounded, starts: &starts, rows, row_length, row_stride };
            let k = row_length.next_multiple_of(BLOCK);
            let mut copied = vec![0.0; count * rows * k];
            for (row, to) in copied.chunks_exact_mut(k).enumerate() {
                let from = starts[row / rows] + row % rows * row_stride;
                to[..row_length].copy_from_slice(&image[from..from + row_length]);
            }
            let a = Matrix::row_major(&copied, count, rows * k, rows * k);

            let (weights, bias) = (numbers(rows * row_length * columns, 2), numbers(columns, 3));
            let mut filled = vec![0.0; rows * k * columns];
            for (row, from) in weights.chunks_exact((row_length * columns).max(1)).enumerate() {
                filled[row * k * columns..][..row_length * columns].copy_from_slice(from);
            }
            let mut found = Vec::with_capacity(count * columns);
            let room = &mut found.spare_capacity_mut()[..count * columns];
            let packed = amx.pack_weights(&weights, rows, row_length, columns);
            amx.write_product_of_patches(room, Init::Bias(&bias), patches, &packed, columns);
            // SAFETY: the product was written.
            unsafe { found.set_len(count * columns) }
            let expected = in_blocks(&bias, a, Matrix::row_major(&filled, rows * k, columns, columns));
            prop_assert!(found.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits()));

            let g = numbers(count * columns, 4);
            let g = Matrix::row_major(&g, count, columns, columns);
            let mut found = vec![0.0; rows * columns * row_length];
            let (first, rest) = found.split_at_mut(columns * row_length);
            amx.accumulate_transposed_product_of_patches(first, g, patches, 0..1);
            amx.accumulate_transposed_product_of_patches(rest, g, patches, 1..rows);
            let expected = in_blocks(&vec![0.0; rows * k], g.transposed(), a);
            for (place, number) in found.iter().enumerate() {
                let (row, column, p) = (place / (columns * row_length), place / row_length % columns, place % row_length);
                prop_assert_eq!(number.to_bits(), expected[(column * rows + row) * k + p].to_bits());
            }
        }
    }
}
