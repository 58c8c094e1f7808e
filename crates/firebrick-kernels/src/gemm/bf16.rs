//! Products of factors that are rounded to BF16, accumulated in f32.
//!
//! Two indices k that follow each other are packed as a pair: the earlier in the lower half of 32 bits, the later in the upper. So a
//! matrix becomes one of pairs with half as many k, which [microkernels](super::microkernel) multiply as they do numbers:
//!
//! ```text
//! c ← fma(a₂ₚ₊₁, b₂ₚ₊₁, c)        c ← fma(a₂ₚ, b₂ₚ, c)        p = 0, 1, 2, …
//! ```
//!
//! That is the order of AVX-512's `vdpbf16ps`; like it, plain Rust takes what is smaller than the least normal number for 0. An element is
//! again one sum in a fixed order, the same in every product. Where there is a matrix unit, products of rounded factors are those of
//! [`amx`](super::amx) instead.

use rayon::prelude::*;

use super::amx::{self, Amx};
use super::driver::{MIN_PARALLEL_FLOPS, product_on};
use super::engine::Engine;
use super::matrix::{Init, Matrix};
use super::microkernel::{Kernel, Operand};
use super::prepacked::{prepack_for, product_of_prepacked_on};

/// A matrix of pairs: `[rows, ⌈columns / 2⌉]`, transposed in memory as the matrix is.
struct Pairs {
    data: Vec<f32>,
    rows: usize,
    pairs: usize,
    transposed: bool,
}

impl Pairs {
    /// Of neighbours in each row.
    ///
    /// # Panics
    /// If the matrix is neither row-major nor column-major, or reaches beyond its slice.
    fn pack<T: Operand>(kernel: &Kernel, m: Matrix<'_, T>) -> Self {
        assert!(m.extent() <= m.data.len(), "a factor reaches beyond its slice");
        let (_, transposed) = m.pointer();
        let pairs = m.columns.div_ceil(2);
        let mut data = vec![0.0; m.rows * pairs];
        if data.is_empty() {
            return Self { data, rows: m.rows, pairs, transposed };
        }
        let routines = T::routines(kernel);
        let none = vec![T::ZERO; if transposed { m.rows } else { 0 }];
        let fill = |index: usize, to: &mut [f32]| {
            let column = |k: usize| if k < m.columns { &m.data[k * m.column_stride..][..m.rows] } else { &none[..] };
            // SAFETY: the kernel runs on this processor.
            unsafe {
                if transposed {
                    (routines.pack_column_pairs)(column(2 * index), column(2 * index + 1), to);
                } else {
                    (routines.pack_row_pairs)(&m.data[index * m.row_stride..][..m.columns], to);
                }
            }
        };
        let length = if transposed { m.rows } else { pairs };
        // A pool of one thread would have every other one wait for it.
        if rayon::current_num_threads() > 1 {
            let chunks = data.par_chunks_mut(length).with_min_len((MIN_PARALLEL_FLOPS / 8 / length).max(1)).enumerate();
            chunks.for_each(|(index, to)| fill(index, to));
        } else {
            data.chunks_mut(length).enumerate().for_each(|(index, to)| fill(index, to));
        }
        Self { data, rows: m.rows, pairs, transposed }
    }

    fn matrix(&self) -> Matrix<'_> {
        if self.transposed {
            Matrix::row_major(&self.data, self.pairs, self.rows, self.rows).transposed()
        } else {
            Matrix::row_major(&self.data, self.rows, self.pairs, self.pairs)
        }
    }
}

/// Rows of pairs of neighbours, of rows of so many numbers.
pub(crate) fn pack_row_pairs(kernel: &Kernel, rows: &[f32], columns: usize) -> Vec<f32> {
    let mut pairs = vec![0.0; rows.len() / columns * columns.div_ceil(2)];
    for (from, to) in rows.chunks_exact(columns).zip(pairs.chunks_exact_mut(columns.div_ceil(2))) {
        // SAFETY: the kernel runs on this processor.
        unsafe { (kernel.f32.pack_row_pairs)(from, to) }
    }
    pairs
}

/// Rows of pairs of two rows each, of rows of so many numbers; of the last one and zeros where they are odd.
pub(crate) fn pack_pairs_of_rows(kernel: &Kernel, rows: &[f32], columns: usize, to: &mut [f32]) {
    let none = vec![0.0; columns];
    for (two, to) in rows.chunks(2 * columns).zip(to.chunks_exact_mut(columns)) {
        let (earlier, later) = two.split_at(columns);
        pack_column_pairs(kernel, earlier, if later.is_empty() { &none } else { later }, to);
    }
}

/// Pairs of what stands in the same column of two rows, as many as `to` has and both hold.
pub(crate) fn pack_column_pairs(kernel: &Kernel, earlier: &[f32], later: &[f32], to: &mut [f32]) {
    // SAFETY: the kernel runs on this processor.
    unsafe { (kernel.f32.pack_column_pairs)(earlier, later, to) }
}

/// A B with both rounded, row-major, computed on the threads of the current pool.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(crate) fn product_bf16<T: Operand>(init: Init<'_>, a: Matrix<'_>, b: Matrix<'_, T>) -> Vec<f32> {
    assert_eq!(a.columns, b.rows, "shapes of a product");
    if let Some(amx) = Amx::get() {
        return product_on(Engine::Amx(amx), init, a, b);
    }
    let kernel = Kernel::best_of_pairs();
    let (a, b) = (Pairs::pack(kernel, a), Pairs::pack(kernel, b.transposed()));
    product_on(Engine::Simd(kernel), init, a.matrix(), b.matrix().transposed())
}

/// As [`prepack`](super::prepack), of pairs.
pub(crate) fn prepack_bf16<T: Operand>(b: Matrix<'_, T>) -> (Vec<f32>, [usize; 3]) {
    if let Some(amx) = Amx::get() {
        let (panels, count) = amx.prepack(b);
        return (panels, [count, amx::panel_length(b.rows) / amx::PANEL, amx::PANEL]);
    }
    let kernel = Kernel::best_of_pairs();
    prepack_for(kernel, Pairs::pack(kernel, b.transposed()).matrix().transposed())
}

/// As [`product_of_prepacked`](super::product_of_prepacked), of panels of [`prepack_bf16`].
pub(crate) fn product_of_prepacked_bf16(bias: &[f32], a: Matrix<'_>, b: &[f32]) -> Vec<f32> {
    if let Some(amx) = Amx::get() {
        return product_of_prepacked_on(Engine::Amx(amx), bias, a, b);
    }
    let kernel = Kernel::best_of_pairs();
    product_of_prepacked_on(Engine::Simd(kernel), bias, Pairs::pack(kernel, a).matrix(), b)
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::super::reference::{in_blocks, in_pairs, matrix, numbers};
    use super::*;

    fn same(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
    }

    /// On a matrix unit, with any number of threads, whatever the shape and the layout, and of panels too.
    fn hold_on_amx<T: Operand>(shape: [usize; 3], transposed: [bool; 2], b: impl Fn(Vec<f32>) -> Vec<T>) {
        let Some(amx) = Amx::get() else { return };
        let [m, k, n] = shape;
        let (a, b, bias) = (numbers(m * k, 1), b(numbers(k * n, 2)), numbers(n, 3));
        let (a, b) = (matrix(&a, m, k, 0, transposed[0]), matrix(&b, k, n, 0, transposed[1]));
        let expected = in_blocks(&bias, a, b);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| product_on(Engine::Amx(amx), Init::Bias(&bias), a, b));
            assert!(same(&found, &expected), "{shape:?}, transposed {transposed:?}, {threads} threads");
        }
        let panels = amx.prepack(b).0;
        let found = product_of_prepacked_on(Engine::Amx(amx), &bias, a, &panels);
        assert!(same(&found, &expected), "{shape:?}, transposed {transposed:?}, panels");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 150 }))]

        #[test]
        fn every_element_is_accumulated_in_pairs_to_the_bit(
            m in 0..30_usize, k in 0..50_usize, n in 0..70_usize, transposed: [bool; 2],
        ) {
            let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
            let (a, b) = (matrix(&a, m, k, 0, transposed[0]), matrix(&b, k, n, 0, transposed[1]));
            let expected = in_pairs(&bias, a, b);
            for kernel in Kernel::all_of_pairs() {
                let (a, b) = (Pairs::pack(kernel, a), Pairs::pack(kernel, b.transposed()));
                let (engine, b) = (Engine::Simd(kernel), b.matrix().transposed());
                prop_assert_eq!(&product_on(engine, Init::Bias(&bias), a.matrix(), b), &expected);
                let (panels, _) = prepack_for(kernel, b);
                prop_assert_eq!(&product_of_prepacked_on(engine, &bias, a.matrix(), &panels), &expected);
            }
            let (panels, _) = prepack_bf16(b);
            let found = product_of_prepacked_bf16(&bias, a, &panels);
            prop_assert_eq!(found, product_bf16(Init::Bias(&bias), a, b));
        }

        #[test]
        fn every_element_is_accumulated_in_blocks_on_amx_to_the_bit(
            m in 0..70_usize, k in 0..100_usize, n in 0..80_usize, transposed: [bool; 2], half: bool,
        ) {
            if half {
                hold_on_amx([m, k, n], transposed, |b| b.into_iter().map(bf16::from_f32).collect());
            } else {
                hold_on_amx([m, k, n], transposed, |b| b);
            }
        }
    }

    #[test]
    fn not_a_number_stays_in_its_row_and_its_column_on_amx() {
        let Some(amx) = Amx::get() else { return };
        let mut a = numbers(32 * 64, 1);
        let b = numbers(64 * 32, 2);
        let product = |a: &[f32], [m, k, n]: [usize; 3]| {
            let (a, b) = (Matrix::row_major(a, m, k, k), Matrix::row_major(&b, k, n, n));
            product_on(Engine::Amx(amx), Init::Zero, a, b)
        };
        let (whole, small) = (product(&a, [32, 64, 32]), product(&a, [17, 33, 5]));
        let row = 3;
        let kept = std::mem::replace(&mut a[row * 64 + 40], f32::NAN);
        for (index, (number, expected)) in product(&a, [32, 64, 32]).iter().zip(&whole).enumerate() {
            if index / 32 == row {
                assert!(number.is_nan());
            } else {
                assert_eq!(number, expected);
            }
        }
        // Nor does it stay in the buffers of packed factors.
        product(&[f32::NAN; 32 * 64], [32, 64, 32]);
        a[row * 64 + 40] = kept;
        assert_eq!(product(&a, [17, 33, 5]), small);
    }

    #[test]
    fn what_is_below_the_least_normal_number_is_zero_on_amx() {
        let Some(amx) = Amx::get() else { return };
        let of = |a: [f32; 2], b: [f32; 2]| {
            let (a, b) = (Matrix::row_major(&a, 1, 2, 2), Matrix::row_major(&b, 2, 1, 1));
            product_on(Engine::Amx(amx), Init::Zero, a, b)[0]
        };
        assert_eq!([of([1e-39, 0.0], [1e30, 0.0]), of([1e-20, 0.0], [1e-20, 0.0])], [0.0, 0.0]);
        assert_eq!(of([0.0, 2.0_f32.powi(-126)], [0.0, 1.0]), 2.0_f32.powi(-126));
    }

    /// Blocks of 512 k, and of 1024 columns.
    #[test]
    fn blocks_continue_sums_to_the_bit_on_amx() {
        for shape in [[1, 552, 33], [70, 1025, 40], [70, 30, 1064]] {
            hold_on_amx(shape, [false, true], |b| b);
        }
    }
}
