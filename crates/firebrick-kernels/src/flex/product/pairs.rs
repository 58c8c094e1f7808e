//! Products of factors that are rounded to BF16, summed in f32.
//!
//! Two links that follow each other are one word: the earlier in its lower half, the later in its upper. So a matrix becomes one of
//! words with half as many links, which the tiles of [`tile`](super::tile) multiply as they do numbers:
//!
//! ```text
//! c ← fma(a₂ₚ₊₁, b₂ₚ₊₁, c)        c ← fma(a₂ₚ, b₂ₚ, c)        p = 0, 1, 2, …
//! ```
//!
//! That is the order of the processors that have an instruction for it; like it, plain Rust takes what is smaller than the least
//! normal number for 0. An element is again one chain, the same in every product. Where there is a matrix unit (module `unit`), products of
//! rounded factors are its own instead.

use rayon::prelude::*;

use super::tile::Kernel;
use super::unit::{self, Unit};
use super::{Element, Matrix, Multiplier, Start, WORTH};

/// Rounds neighbours, and makes words of them: `to[p]` of `from[2p]` and `from[2p + 1]`.
pub(in crate::flex) type Join<T> = unsafe fn(&[T], &mut [f32]);
/// Rounds two rows, and makes words of what stands in the same place: the first is earlier.
pub(in crate::flex) type Zip<T> = unsafe fn(&[T], &[T], &mut [f32]);

/// The bits of a number's BF16: the nearest one, of two as near the even one; 0 below the least normal number.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return (bits >> 16) | 0x40;
    }
    if magnitude < 0x0080_0000 {
        return (bits >> 16) & 0x8000;
    }
    (bits + 0x7fff + ((bits >> 16) & 1)) >> 16
}

/// The word of an earlier and a later number.
#[inline(always)]
fn word(earlier: f32, later: f32) -> f32 {
    f32::from_bits(rounded(earlier) | (rounded(later) << 16))
}

/// [`Join`] in plain Rust.
#[inline(always)]
pub(super) fn join<T: Element>(from: &[T], to: &mut [f32]) {
    let (pairs, last) = from.as_chunks::<2>();
    for (&[earlier, later], to) in pairs.iter().zip(&mut *to) {
        *to = word(earlier.f32(), later.f32());
    }
    if let [last] = last {
        to[pairs.len()] = word(last.f32(), 0.0);
    }
}

/// [`Zip`] in plain Rust.
#[inline(always)]
pub(super) fn zip<T: Element>(earlier: &[T], later: &[T], to: &mut [f32]) {
    for ((earlier, later), to) in earlier.iter().zip(later).zip(to) {
        *to = word(earlier.f32(), later.f32());
    }
}

/// A matrix of words: `[rows, ⌈columns / 2⌉]`, in memory as the matrix lies.
pub(super) struct Words {
    data: Vec<f32>,
    rows: usize,
    pairs: usize,
    turned: bool,
}

impl Words {
    /// Of neighbours in each row.
    ///
    /// # Panics
    /// If neither rows nor columns of the matrix are of neighbours, or it reaches beyond its slice.
    fn of<T: Element>(kernel: &Kernel, m: Matrix<'_, T>) -> Self {
        assert!(m.extent() <= m.data.len(), "a factor reaches beyond its slice");
        let (_, turned) = m.place();
        let pairs = m.columns.div_ceil(2);
        let mut data = vec![0.0; m.rows * pairs];
        if data.is_empty() {
            return Self { data, rows: m.rows, pairs, turned };
        }
        let none = vec![T::ZERO; if turned { m.rows } else { 0 }];
        let fill = |index: usize, to: &mut [f32]| {
            let link = |link: usize| {
                if link < m.columns { &m.data[link * m.column_stride..][..m.rows] } else { &none[..] }
            };
            // SAFETY: the kernel runs on this processor.
            unsafe {
                if turned {
                    T::zip(kernel)(link(2 * index), link(2 * index + 1), to);
                } else {
                    T::join(kernel)(&m.data[index * m.row_stride..][..m.columns], to);
                }
            }
        };
        let length = if turned { m.rows } else { pairs };
        // A pool of one thread would have every other one wait for it.
        if rayon::current_num_threads() > 1 {
            let chunks = data.par_chunks_mut(length).with_min_len((WORTH / 8 / length).max(1)).enumerate();
            chunks.for_each(|(index, to)| fill(index, to));
        } else {
            data.chunks_mut(length).enumerate().for_each(|(index, to)| fill(index, to));
        }
        Self { data, rows: m.rows, pairs, turned }
    }

    /// Rows of words, one for every two links.
    pub(super) fn matrix(&self) -> Matrix<'_> {
        if self.turned {
            Matrix::rows(&self.data, self.pairs, self.rows, self.rows).transposed()
        } else {
            Matrix::rows(&self.data, self.rows, self.pairs, self.pairs)
        }
    }
}

/// Rows of words of neighbours, of rows of so many numbers.
pub(in crate::flex) fn joined(kernel: &Kernel, rows: &[f32], columns: usize) -> Vec<f32> {
    let mut words = vec![0.0; rows.len() / columns * columns.div_ceil(2)];
    for (from, to) in rows.chunks_exact(columns).zip(words.chunks_exact_mut(columns.div_ceil(2))) {
        // SAFETY: the kernel runs on this processor.
        unsafe { (kernel.join)(from, to) }
    }
    words
}

/// Rows of words of two rows each, of rows of so many numbers; the last one alone where they are odd.
pub(in crate::flex) fn zipped_rows(kernel: &Kernel, rows: &[f32], columns: usize, to: &mut [f32]) {
    let none = vec![0.0; columns];
    for (pair, to) in rows.chunks(2 * columns).zip(to.chunks_exact_mut(columns)) {
        let (earlier, later) = pair.split_at(columns);
        zipped(kernel, earlier, if later.is_empty() { &none } else { later }, to);
    }
}

/// Words of what stands in the same place of two slices, as many as `to` has and both hold.
pub(in crate::flex) fn zipped(kernel: &Kernel, earlier: &[f32], later: &[f32], to: &mut [f32]) {
    // SAFETY: the kernel runs on this processor.
    unsafe { (kernel.zip)(earlier, later, to) }
}

/// The elements of `a b` with both rounded, row after row, computed on the threads of the current pool.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(in crate::flex) fn product_of_pairs<T: Element>(start: Start<'_>, a: Matrix<'_>, b: Matrix<'_, T>) -> Vec<f32> {
    assert_eq!(a.columns, b.rows, "shapes of a product");
    if let Some(unit) = Unit::get() {
        return super::product_with(Multiplier::Unit(unit), start, a, b);
    }
    let kernel = Kernel::best_of_pairs();
    let (a, b) = (Words::of(kernel, a), Words::of(kernel, b.transposed()));
    super::product_with(Multiplier::Vectors(kernel), start, a.matrix(), b.matrix().transposed())
}

/// As [`prepacked`](super::prepacked), of words.
pub(in crate::flex) fn prepacked_pairs<T: Element>(b: Matrix<'_, T>) -> (Vec<f32>, [usize; 3]) {
    if let Some(unit) = Unit::get() {
        let (panels, count) = unit.laid_out(b);
        return (panels, [count, unit::length(b.rows) / unit::LINES, unit::LINES]);
    }
    let kernel = Kernel::best_of_pairs();
    super::panels::laid_out(kernel, Words::of(kernel, b.transposed()).matrix().transposed())
}

/// As [`product_of_prepacked`](super::product_of_prepacked), of panels that [`prepacked_pairs`] laid out.
pub(in crate::flex) fn product_of_prepacked_pairs(start: &[f32], a: Matrix<'_>, b: &[f32]) -> Vec<f32> {
    if let Some(unit) = Unit::get() {
        return super::panels::product_of_laid_out(Multiplier::Unit(unit), start, a, b);
    }
    let kernel = Kernel::best_of_pairs();
    super::panels::product_of_laid_out(Multiplier::Vectors(kernel), start, Words::of(kernel, a).matrix(), b)
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::super::panels::{laid_out, product_of_laid_out};
    use super::super::product_with;
    use super::super::tests::{flushed, numbers, rounded as rounded_element, turned};
    use super::*;

    /// The chain as the module's words have it.
    fn chains(start: &[f32], a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
        let mut out = Vec::new();
        for row in 0..a.rows {
            for (column, &start) in start.iter().enumerate() {
                let link = |c: f32, k: usize| {
                    if k >= a.columns {
                        return c;
                    }
                    flushed(rounded_element(a, row, k).mul_add(rounded_element(b, k, column), c))
                };
                out.push((0..a.columns.div_ceil(2)).fold(start, |c, p| link(link(c, 2 * p + 1), 2 * p)));
            }
        }
        out
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        for x in numbers(1000, 4).into_iter().chain([1.0, -2.5, 3.0e38, f32::INFINITY, 1.005_859_4, 1.009_765_6]) {
            assert_eq!(rounded(x), u32::from(bf16::from_f32(x).to_bits()), "{x}");
        }
        assert_eq!([1e-39, -1e-39].map(rounded), [0, 0x8000]);
        assert!(f32::from_bits(rounded(f32::NAN) << 16).is_nan());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 150 }))]

        #[test]
        fn every_element_is_its_chain_of_pairs_to_the_bit(
            rows in 0..30_usize, links in 0..50_usize, columns in 0..70_usize, turns: [bool; 2],
        ) {
            let (a, b, start) = (numbers(rows * links, 1), numbers(links * columns, 2), numbers(columns, 3));
            let (a, b) = (turned(&a, rows, links, 0, turns[0]), turned(&b, links, columns, 0, turns[1]));
            let expected = chains(&start, a, b);
            for kernel in Kernel::all_of_pairs() {
                let (a, b) = (Words::of(kernel, a), Words::of(kernel, b.transposed()));
                let (multiplier, b) = (Multiplier::Vectors(kernel), b.matrix().transposed());
                prop_assert_eq!(&product_with(multiplier, Start::Row(&start), a.matrix(), b), &expected);
                let (panels, _) = laid_out(kernel, b);
                prop_assert_eq!(&product_of_laid_out(multiplier, &start, a.matrix(), &panels), &expected);
            }
            let (panels, _) = prepacked_pairs(b);
            let found = product_of_prepacked_pairs(&start, a, &panels);
            prop_assert_eq!(found, product_of_pairs(Start::Row(&start), a, b));
        }
    }
}
