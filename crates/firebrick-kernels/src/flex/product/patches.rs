//! Products of the patches of images, on a processor's matrix unit; [`unit`](super::unit) says in which order they are summed.
//!
//! The links of a patch are its numbers, row by row, and zeros that fill the last block of every row.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::unit::{BLOCK, LAID, LINES, Laid, Registers, SIDE, TILE, Unit, lay_all, length, tile};
use super::{Matrix, Patches, Place, Start};

/// The first so many of 32.
fn first_of_32(count: usize) -> __mmask32 {
    if count >= BLOCK { __mmask32::MAX } else { (1 << count) - 1 }
}

/// Lays out so many patches as rows of a first factor.
///
/// # Safety
/// The unit is there; there is room for the length of a patch, and the patches, at most [`LINES`], were checked.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn lay_rows(to: *mut f32, patches: Patches<'_>, starts: &[usize]) {
    let mut block = to;
    for row in 0..patches.rows {
        for link in (0..patches.run).step_by(BLOCK) {
            let mask = first_of_32(patches.run - link);
            let place = patches.data.as_ptr().wrapping_add(row * patches.apart + link);
            for (line, start) in starts.iter().enumerate() {
                // SAFETY: the caller's; what does not exist is not read.
                unsafe {
                    let words = _mm512_maskz_loadu_epi16(mask, place.add(*start).cast());
                    _mm512_storeu_si512(block.add(line * SIDE).cast(), words);
                }
            }
            block = block.wrapping_add(2 * TILE);
        }
    }
}

/// Lays out numbers `at` to `at + 32` of a row of all patches, or those that there are, as columns of a second factor whose links are the
/// patches.
///
/// # Safety
/// The unit is there; there is room for as many links, and the patches were checked.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn lay_columns(to: *mut f32, patches: Patches<'_>, row: usize, at: usize) {
    // Numbers of the earlier and of the later patch in turns, of the first sixteen columns and of the others.
    let turns: [[u16; BLOCK]; 2] =
        std::array::from_fn(|half| std::array::from_fn(|index| (half * SIDE + index / 2 + index % 2 * BLOCK) as u16));
    // SAFETY: 32 indices each.
    let turns = turns.map(|turns| unsafe { _mm512_loadu_si512(turns.as_ptr().cast()) });
    let mask = first_of_32(patches.run - at);
    let place = patches.data.as_ptr().wrapping_add(row * patches.apart + at);
    for pair in 0..patches.starts.len().div_ceil(BLOCK) * SIDE {
        let mut numbers = [_mm512_setzero_si512(); 2];
        for (numbers, start) in numbers.iter_mut().zip(patches.starts.iter().skip(2 * pair)) {
            // SAFETY: the caller's; what does not exist is not read.
            *numbers = unsafe { _mm512_maskz_loadu_epi16(mask, place.add(*start).cast()) };
        }
        let [earlier, later] = numbers;
        for (half, turns) in turns.into_iter().enumerate() {
            let words = _mm512_permutex2var_epi16(earlier, turns, later);
            let row = to.wrapping_add((pair / SIDE * 2 + half) * TILE + pair % SIDE * SIDE);
            // SAFETY: there is room for it.
            unsafe { _mm512_storeu_si512(row.cast(), words) }
        }
    }
}

/// [`Unit::round`].
///
/// # Safety
/// The unit is there.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn round(from: &[f32], to: &mut [bf16]) {
    for (from, to) in from.chunks(SIDE).zip(to.chunks_mut(SIDE)) {
        let mut numbers = [0.0; SIDE];
        numbers[..from.len()].copy_from_slice(from);
        // SAFETY: sixteen numbers; the types differ in name alone.
        let rounded = unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(numbers.as_ptr()));
            std::mem::transmute::<__m256bh, [bf16; SIDE]>(rounded)
        };
        to.copy_from_slice(&rounded[..from.len()]);
    }
}

impl Unit {
    /// Rounds numbers.
    ///
    /// # Panics
    /// If there is not as much room.
    pub(in crate::flex) fn round(self, from: &[f32], to: &mut [bf16]) {
        assert_eq!(from.len(), to.len(), "room for rounded numbers");
        // SAFETY: the unit is there.
        unsafe { round(from, to) }
    }

    /// Weights `[rows, run, columns]` of patches, laid out for [`Unit::place_product_of_patches`].
    pub(in crate::flex) fn lay_weights(self, weights: &[f32], rows: usize, run: usize, columns: usize) -> Vec<f32> {
        assert_eq!(weights.len(), rows * run * columns, "weights of patches");
        let of_panel = rows * length(run);
        let mut laid = vec![0.0; columns.div_ceil(LINES) * of_panel];
        for (panel, to) in laid.chunks_exact_mut(of_panel).enumerate() {
            let of_rows = weights.chunks_exact(run * columns);
            for (row, to) in of_rows.zip(to.chunks_exact_mut(length(run))) {
                let columns = Matrix::rows(row, run, columns, columns).split_columns(panel * LINES).1;
                let columns = columns.split_columns(LINES.min(columns.columns)).0;
                // SAFETY: the unit is there, and room for a panel of these links.
                unsafe { lay_all::<f32, true>(to.as_mut_ptr(), columns.transposed()) }
            }
        }
        laid
    }

    /// Writes every element of `start + a b`, row after row, on this thread: of patches, and weights that were laid out.
    ///
    /// # Panics
    /// If the shapes disagree or a patch reaches beyond its image.
    pub(in crate::flex) fn place_product_of_patches(
        self,
        out: &mut [MaybeUninit<f32>],
        start: Start<'_>,
        patches: Patches<'_>,
        weights: &[f32],
        columns: usize,
    ) {
        patches.check();
        let of_panel = patches.rows * length(patches.run);
        assert_eq!(out.len(), patches.starts.len() * columns, "shape of a product");
        assert_eq!(weights.len(), columns.div_ceil(LINES) * of_panel, "shape of the weights");
        let start = start.place(columns);
        let out = Place { data: out.as_mut_ptr().cast::<f32>(), stride: columns };
        let links = patches.rows * patches.run.next_multiple_of(BLOCK);
        let mut registers = Registers::new();
        LAID.with_borrow_mut(|[laid, _]| {
            for (block, starts) in patches.starts.chunks(LINES).enumerate() {
                let a = laid.room(of_panel);
                // SAFETY: the patches were checked, and there is room for them; the tiles lie within the result.
                unsafe {
                    lay_rows(a, patches, starts);
                    for column in (0..columns).step_by(LINES) {
                        let b = weights[column / LINES * of_panel..].as_ptr();
                        let (start, out) = (start.at(block * LINES, column), out.at(block * LINES, column));
                        let shape = [starts.len(), LINES.min(columns - column)];
                        tile(&mut registers, shape, links, [a.cast_const(), b], start, out);
                    }
                }
            }
        });
    }

    /// Lets the chains of `out`, `[rows, columns of b, run]`, go on with those of `bᵀ a`, of these rows of the patches, which are its links.
    ///
    /// # Panics
    /// If the shapes disagree or a patch reaches beyond its image.
    pub(in crate::flex) fn add_turned_product_of_patches(
        self,
        out: &mut [f32],
        b: Matrix<'_>,
        patches: Patches<'_>,
        rows: Range<usize>,
    ) {
        patches.check();
        assert!(rows.end <= patches.rows, "rows of a patch");
        assert_eq!(out.len(), rows.len() * b.columns * patches.run, "shape of a product");
        assert_eq!(patches.starts.len(), b.rows, "shapes of a product");
        let out = Place { data: out.as_mut_ptr(), stride: patches.run };
        let mut registers = Registers::new();
        LAID.with_borrow_mut(|[laid, columns]: &mut [Laid; 2]| {
            // SAFETY: the factors were checked, and there is room for them; the tiles lie within the result.
            unsafe {
                laid.fill::<_, false>(b.transposed());
                for (index, row) in rows.enumerate() {
                    for at in (0..patches.run).step_by(LINES) {
                        let second = columns.room(length(b.rows));
                        lay_columns(second, patches, row, at);
                        for line in (0..b.columns).step_by(LINES) {
                            let out = out.at(index * b.columns + line, at);
                            let shape = [LINES.min(b.columns - line), LINES.min(patches.run - at)];
                            let factors = [laid.at(line, b.rows), second.cast_const()];
                            tile(&mut registers, shape, b.rows, factors, out.begins(), out);
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

    use super::super::tests::numbers;
    use super::super::{Multiplier, product_with};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 100 }))]

        /// What [`Unit::alone`] computes of patches that are written out, their rows filled with zeros.
        #[test]
        fn patches_give_the_bits_of_a_factor_that_lies_in_rows(
            count in 0..70_usize, rows in 1..4_usize, run in 1..70_usize, columns in 0..70_usize,
        ) {
            let Some(unit) = Unit::get() else { return Ok(()) };
            let apart = run + 3;
            let image = numbers(2 * count + rows * apart + run, 1);
            let mut rounded = vec![bf16::ZERO; image.len()];
            unit.round(&image, &mut rounded);
            for (rounded, number) in rounded.iter().zip(&image) {
                prop_assert_eq!(*rounded, bf16::from_f32(*number));
            }
            let starts = (0..count).map(|patch| 2 * patch + patch % 2).collect::<Vec<_>>();
            let patches = Patches { data: &rounded, starts: &starts, rows, run, apart };
            let links = run.next_multiple_of(BLOCK);
            let mut written = vec![0.0; count * rows * links];
            for (row, to) in written.chunks_exact_mut(links).enumerate() {
                let from = starts[row / rows] + row % rows * apart;
                to[..run].copy_from_slice(&image[from..from + run]);
            }
            let a = Matrix::rows(&written, count, rows * links, rows * links);

            let (weights, start) = (numbers(rows * run * columns, 2), numbers(columns, 3));
            let mut filled = vec![0.0; rows * links * columns];
            for (row, from) in weights.chunks_exact((run * columns).max(1)).enumerate() {
                filled[row * links * columns..][..run * columns].copy_from_slice(from);
            }
            let mut found = Vec::with_capacity(count * columns);
            let room = &mut found.spare_capacity_mut()[..count * columns];
            let laid = unit.lay_weights(&weights, rows, run, columns);
            unit.place_product_of_patches(room, Start::Row(&start), patches, &laid, columns);
            // SAFETY: the product was written.
            unsafe { found.set_len(count * columns) }
            let b = Matrix::rows(&filled, rows * links, columns, columns);
            let expected = product_with(Multiplier::Unit(unit), Start::Row(&start), a, b);
            prop_assert!(found.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits()));

            let g = numbers(count * columns, 4);
            let g = Matrix::rows(&g, count, columns, columns);
            let mut found = vec![0.0; rows * columns * run];
            let (first, rest) = found.split_at_mut(columns * run);
            unit.add_turned_product_of_patches(first, g, patches, 0..1);
            unit.add_turned_product_of_patches(rest, g, patches, 1..rows);
            let turned = product_with(Multiplier::Unit(unit), Start::Zero, g.transposed(), a);
            for (place, number) in found.iter().enumerate() {
                let (row, column, link) = (place / (columns * run), place / run % columns, place % run);
                prop_assert_eq!(number.to_bits(), turned[(column * rows + row) * links + link].to_bits());
            }
        }
    }

    #[test]
    #[should_panic(expected = "a patch reaches beyond the image")]
    fn a_patch_beyond_the_image_is_refused() {
        let patches = Patches { data: &[bf16::ZERO; 10], starts: &[0, 3], rows: 2, run: 3, apart: 5 };
        patches.check();
    }
}
