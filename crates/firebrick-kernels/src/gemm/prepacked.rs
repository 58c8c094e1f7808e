//! Products whose B was packed beforehand, as weights are, or grows column by column, as keys in a cache do.

use super::driver::{MIN_PARALLEL_FLOPS, SMALL_M};
use super::engine::Engine;
use super::matrix::{MatPtr, Matrix, extent};
use super::microkernel::Kernel;
use super::pack;

/// Columns of B in panels of NR: for each k the numbers of the panel's columns, side by side.
#[derive(Debug)]
pub(crate) struct Panels {
    k: usize,
    columns: usize,
    data: Vec<f32>,
}

impl Panels {
    /// No columns yet, with capacity for this many of `k` numbers.
    pub(crate) fn new(k: usize, capacity: usize) -> Self {
        let nr = Kernel::best().nr;
        Self { k, columns: 0, data: Vec::with_capacity(capacity.next_multiple_of(nr) * k) }
    }

    /// Drops all columns but the first.
    pub(crate) fn truncate(&mut self, columns: usize) {
        self.columns = self.columns.min(columns);
    }

    /// Adds a column.
    pub(crate) fn push(&mut self, column: &[f32]) {
        assert_eq!(column.len(), self.k, "the length of a column");
        let nr = Kernel::best().nr;
        let (panel, place) = (self.columns / nr * nr * self.k, self.columns % nr);
        if self.data.len() == panel {
            self.data.resize(panel + nr * self.k, 0.0);
        }
        for (row, &number) in self.data[panel..].chunks_exact_mut(nr).zip(column) {
            row[place] = number;
        }
        self.columns += 1;
    }

    /// Becomes the first columns of another.
    pub(crate) fn copy_from(&mut self, other: &Self, columns: usize) {
        assert!(columns <= other.columns && self.k == other.k, "columns of another factor");
        let nr = Kernel::best().nr;
        self.data.clear();
        self.data.extend_from_slice(&other.data[..columns.next_multiple_of(nr) * self.k]);
        self.columns = columns;
    }
}

/// C ← A B of the first `columns` columns of B, with rows of C `stride` apart.
///
/// # Panics
/// If the shapes disagree, there are fewer columns, or the result reaches beyond its slice.
pub(crate) fn write_product_of_panels(c: &mut [f32], stride: usize, a: Matrix<'_>, b: &Panels, columns: usize) {
    assert!(columns <= b.columns && b.k == a.columns, "shapes of a product");
    assert!(stride >= columns && extent(a.rows, columns, stride, 1) <= c.len(), "the result overlaps");
    let out = MatPtr { data: c.as_mut_ptr(), stride };
    // SAFETY: C is borrowed alone and has these rows.
    unsafe { prepacked(Engine::Simd(Kernel::best()), 1, out, MatPtr::ZERO, a, &b.data, columns) }
}

/// The product with a bias, row-major, computed on the threads of the current pool; B is packed as [`prepack`] does it.
///
/// # Panics
/// If the shapes disagree.
pub(crate) fn product_of_prepacked(bias: &[f32], a: Matrix<'_>, b: &[f32]) -> Vec<f32> {
    product_of_prepacked_on(Engine::Simd(Kernel::best()), bias, a, b)
}

/// [`product_of_prepacked`] on this engine.
pub(super) fn product_of_prepacked_on(engine: Engine, bias: &[f32], a: Matrix<'_>, b: &[f32]) -> Vec<f32> {
    let columns = bias.len();
    let mut c = Vec::with_capacity(a.rows * columns);
    let out = MatPtr { data: c.as_mut_ptr(), stride: columns };
    let init = MatPtr { data: bias.as_ptr(), stride: 0 };
    // SAFETY: the vector has room for the product, every element of which is written.
    unsafe {
        prepacked(engine, rayon::current_num_threads(), out, init, a, b, columns);
        c.set_len(a.rows * columns);
    }
    c
}

/// All columns of B in panels of NR, one after another: `[panels, k, NR]`.
pub(crate) fn prepack(b: Matrix<'_>) -> (Vec<f32>, [usize; 3]) {
    prepack_for(Kernel::best(), b)
}

/// [`prepack`] for the tiles of this kernel.
pub(crate) fn prepack_for(kernel: &Kernel, b: Matrix<'_>) -> (Vec<f32>, [usize; 3]) {
    let mut panels = Vec::new();
    pack::b_panels(kernel, &mut panels, b);
    (panels, [b.columns.div_ceil(kernel.nr), b.rows, kernel.nr])
}

/// The most rows of A that are faster with a B packed beforehand than with one packed block by block.
pub(crate) fn small_m() -> usize {
    SMALL_M * Kernel::best().mr
}

/// A product whose B is packed, on so many threads.
///
/// # Safety
/// C has these rows and columns, and nothing else uses it meanwhile.
///
/// # Panics
/// If A reaches beyond its slice, or there are too few panels.
unsafe fn prepacked(
    engine: Engine,
    threads: usize,
    out: MatPtr<*mut f32>,
    init: MatPtr<*const f32>,
    a: Matrix<'_>,
    b: &[f32],
    columns: usize,
) {
    assert!(a.extent() <= a.data.len(), "a factor reaches beyond its slice");
    let [_, nr] = engine.tile();
    let panel_length = engine.panel_length(a.columns);
    assert!(columns.div_ceil(nr) * panel_length <= b.len(), "a factor has too few columns");
    let half = (columns / 2).next_multiple_of(nr);
    if threads > 1 && half < columns && a.rows * a.columns * columns >= 2 * MIN_PARALLEL_FLOPS {
        let (b, b_rest) = b.split_at(half / nr * panel_length);
        // SAFETY: the two parts are disjoint and within C.
        let (out_rest, init_rest) = unsafe { (out.at(0, half), init.at(0, half)) };
        let (threads, rest) = (threads / 2, threads - threads / 2);
        rayon::join(
            // SAFETY: as of the whole.
            move || unsafe { prepacked(engine, threads, out, init, a, b, half) },
            // SAFETY: as of the whole.
            move || unsafe { prepacked(engine, rest, out_rest, init_rest, a, b_rest, columns - half) },
        );
        return;
    }
    let kernel = match engine {
        Engine::Simd(kernel) => kernel,
        // SAFETY: the caller's.
        Engine::Amx(amx) => return unsafe { amx.prepacked(out, init, a, b, columns) },
    };
    let (MatPtr { data: a_ptr, stride: a_stride }, transposed) = a.pointer();
    let microkernels = &kernel.packed[usize::from(transposed)];
    for jr in (0..columns).step_by(kernel.nr) {
        let panel = MatPtr { data: b[jr * a.columns..].as_ptr(), stride: kernel.nr };
        for ir in (0..a.rows).step_by(kernel.mr) {
            let mr = kernel.mr.min(a.rows - ir);
            let a_rows = MatPtr { data: a_ptr.wrapping_add(ir * a.row_stride), stride: a_stride };
            // SAFETY: A has these rows and indices k and the panel these k; the tile lies within C.
            unsafe {
                let (init, out) = (init.at(ir, jr), out.at(ir, jr));
                microkernels[mr - 1](a.columns, a_rows, panel, init, out, kernel.nr.min(columns - jr));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::{product, write_product};
    use super::super::matrix::Init;
    use super::*;

    fn numbers(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + salt) % 101) as f32 / 40.0 - 1.2).collect()
    }

    #[test]
    fn a_prepacked_b_gives_the_bits_of_one_that_is_not() {
        let sizes: &[_] = if cfg!(miri) { &[(5, 37)] } else { &[(5, 37), (1, 1), (0, 3), (3, 0), (300, 900)] };
        for &(k, n) in sizes {
            for transposed in [false, true] {
                let data = numbers(k * n, 2);
                let b = if transposed {
                    Matrix::row_major(&data, n, k, k).transposed()
                } else {
                    Matrix::row_major(&data, k, n, n)
                };
                let (panels, [count, rows, nr]) = prepack(b);
                assert_eq!((panels.len(), rows), (count * rows * nr, k));
                for m in [0, 1, 7, 24] {
                    let (a, bias) = (numbers(m * k, 3), numbers(n, 4));
                    let a = Matrix::row_major(&a, m, k, k);
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
                    let found = pool.install(|| product_of_prepacked(&bias, a, &panels));
                    assert_eq!(found, product(Init::Bias(&bias), a, b), "{m} rows");
                }
            }
        }
    }

    #[test]
    fn a_b_that_grows_gives_the_bits_of_one_that_is_whole() {
        let (k, max) = (5, 70);
        let columns = numbers(k * max, 1);
        let mut panels = Panels::new(k, max);
        for (count, column) in (1..).zip(columns.chunks_exact(k)) {
            panels.push(column);
            if ![1, 15, 16, 17, 33, 70].contains(&count) {
                continue;
            }
            for m in [1, 3, 13] {
                let a = numbers(m * k, 7);
                let a = Matrix::row_major(&a, m, k, k);
                let b = Matrix::row_major(&columns, count, k, k).transposed();
                let (mut found, mut expected) = (vec![0.0; m * count], vec![0.0; m * count]);
                write_product_of_panels(&mut found, count, a, &panels, count);
                write_product(&mut expected, count, a, b);
                assert_eq!(found, expected, "{m} rows, {count} columns");
            }
        }
        let mut copy = Panels::new(k, max);
        copy.copy_from(&panels, 17);
        panels.truncate(17);
        copy.push(&columns[..k]);
        panels.push(&columns[..k]);
        let a = Matrix::row_major(&columns, 1, k, k);
        let (mut found, mut expected) = (vec![0.0; 18], vec![0.0; 18]);
        write_product_of_panels(&mut found, 18, a, &copy, 18);
        write_product_of_panels(&mut expected, 18, a, &panels, 18);
        assert_eq!((copy.columns, found), (18, expected));
    }
}
