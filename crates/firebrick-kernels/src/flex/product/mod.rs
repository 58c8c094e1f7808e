//! Products of matrices that lie anywhere in a slice.
//!
//! Every element of a product is one chain of fused multiply-adds over the inner index, in its order:
//!
//! ```text
//! c ← fma(aₖ, bₖ, c)        k = 0, 1, 2, …
//! ```
//!
//! Tiles, blocks, threads and instruction sets decide when a link is made, never between which numbers. So an element has
//! the same bits in a product of one row as in one of a thousand, and a chain that stops and goes on later is the same chain.

mod lanes;
mod pack;
mod tile;

use std::cell::RefCell;

pub(super) use lanes::Element;
use tile::Kernel;

/// A matrix of some elements of a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows of `columns` neighbours, `stride` apart, from the beginning of the slice.
    pub(super) fn rows(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        Self { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The same elements with rows and columns swapped.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// The length of slice that it reaches over.
    fn extent(&self) -> usize {
        extent(self.rows, self.columns, self.row_stride, self.column_stride)
    }

    fn split_rows(self, at: usize) -> (Self, Self) {
        let rest = &self.data[(at * self.row_stride).min(self.data.len())..];
        (Self { rows: at, ..self }, Self { data: rest, rows: self.rows - at, ..self })
    }

    fn split_columns(self, at: usize) -> (Self, Self) {
        let (first, rest) = self.transposed().split_rows(at);
        (first.transposed(), rest.transposed())
    }
}

fn extent(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + (columns - 1) * column_stride + 1 }
}

/// Where the chains of a product begin: at 0, or at what the result holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Place,
    Sum,
}

/// Where a product, or a part of one, is written: rows `stride` apart.
#[derive(Clone, Copy)]
struct Out {
    data: *mut f32,
    stride: usize,
}

// SAFETY: parts of a product are disjoint, and each has one thread that writes it.
unsafe impl Send for Out {}

impl Out {
    /// # Safety
    /// The place must lie within the product.
    unsafe fn at(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's.
        Self { data: unsafe { self.data.add(row * self.stride + column) }, ..self }
    }
}

/// Writes `a b` into rows `stride` apart, on the threads of the current pool.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(super) fn product<T: Element>(out: &mut [f32], stride: usize, into: Into, a: Matrix<'_>, b: Matrix<'_, T>) {
    product_on(Kernel::best(), rayon::current_num_threads(), out, stride, into, a, b);
}

fn product_on<T: Element>(
    kernel: &'static Kernel,
    threads: usize,
    out: &mut [f32],
    stride: usize,
    into: Into,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    assert_eq!(a.columns, b.rows, "shapes of a product");
    assert!(stride >= b.columns, "rows of the result overlap");
    assert!(a.extent() <= a.data.len() && b.extent() <= b.data.len(), "a factor reaches beyond its slice");
    assert!(extent(a.rows, b.columns, stride, 1) <= out.len(), "the result reaches beyond its slice");
    if a.rows > 0 && b.columns > 0 {
        // SAFETY: the assertions hold every element of the three matrices within its slice; `out` is borrowed alone,
        // so it overlaps neither factor, and its rows do not overlap each other.
        unsafe { divided(kernel, threads, Out { data: out.as_mut_ptr(), stride }, into, a, b) }
    }
}

/// Halves the longer side until there is a piece for every thread, or the pieces are not worth a thread.
///
/// # Safety
/// As [`product_on`] asserts.
unsafe fn divided<T: Element>(
    kernel: &'static Kernel,
    threads: usize,
    out: Out,
    into: Into,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    /// Multiply-adds that take about as long as waking a thread.
    const WORTH: usize = 1 << 17;
    if threads < 2 || a.rows * a.columns * b.columns < 2 * WORTH {
        // SAFETY: the caller's.
        return unsafe { alone(kernel, out, into, a, b) };
    }
    let by_rows = a.rows > b.columns;
    let (length, unit) = if by_rows { (a.rows, kernel.rows) } else { (b.columns, kernel.columns) };
    let half = (length / 2).next_multiple_of(unit).min(length);
    let ((a, b), (a_rest, b_rest), row, column) = if by_rows {
        let (first, rest) = a.split_rows(half);
        ((first, b), (rest, b), half, 0)
    } else {
        let (first, rest) = b.split_columns(half);
        ((a, first), (a, rest), 0, half)
    };
    // SAFETY: the two parts are disjoint and within the product.
    let rest = unsafe { out.at(if a_rest.rows * b_rest.columns == 0 { 0 } else { row }, column.min(b.columns)) };
    // SAFETY: as of the whole.
    let (first, rest) = (
        move || unsafe { divided(kernel, threads / 2, out, into, a, b) },
        move || unsafe { divided(kernel, threads - threads / 2, rest, into, a_rest, b_rest) },
    );
    rayon::join(first, rest);
}

/// Links of the chains that are made in one go: a panel of the second factor then stays in the nearest cache.
const LINKS: usize = 256;
/// Rows of the first factor, and columns of the second, that are laid out at once.
const ROWS: usize = 240;
const COLUMNS: usize = 1024;
/// Links at a time where the second factor is read where it lies: as many rows as a processor prefetches from.
const STREAMS: usize = 8;

thread_local! {
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A product on this thread.
///
/// # Safety
/// As [`product_on`] asserts.
unsafe fn alone<T: Element>(kernel: &Kernel, out: Out, into: Into, a: Matrix<'_>, b: Matrix<'_, T>) {
    if a.columns == 0 && into == Into::Place {
        for row in 0..a.rows {
            // SAFETY: the row lies within the product.
            unsafe { std::slice::from_raw_parts_mut(out.data.add(row * out.stride), b.columns) }.fill(0.0);
        }
    }
    // Rows that a tile takes together read the second factor once: laying it out first would cost more than it gives.
    let in_place = a.rows <= kernel.rows && b.column_stride == 1;
    let whole = if in_place { b.columns / kernel.columns * kernel.columns } else { 0 };
    let (read, laid) = b.split_columns(whole);
    SCRATCH.with_borrow_mut(|[panels_a, panels_b]| {
        // SAFETY: both parts lie within the product.
        unsafe {
            if read.columns > 0 {
                streamed(kernel, panels_a, out, into, a, read);
            }
            if laid.columns > 0 {
                blocked(kernel, panels_a, panels_b, out.at(0, whole), into, a, laid);
            }
        }
    });
}

/// The product of a few rows and whole panels of columns, which are read where they lie, `STREAMS` rows at a time.
///
/// # Safety
/// As [`alone`].
unsafe fn streamed<T: Element>(
    kernel: &Kernel,
    panels_a: &mut Vec<f32>,
    out: Out,
    into: Into,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    pack::rows(kernel, panels_a, a, a.rows);
    let sweep = T::sweeps(kernel)[a.rows - 1];
    for k in (0..a.columns).step_by(STREAMS) {
        let links = STREAMS.min(a.columns - k);
        let fresh = k == 0 && into == Into::Place;
        // SAFETY: the panel holds `a.rows` numbers of each link, and each of the links' rows of `b` whole tiles.
        unsafe {
            let from = b.data.as_ptr().add(k * b.row_stride);
            sweep(links, panels_a.as_ptr().add(k * a.rows), from, b.row_stride, out.data, out.stride, b.columns, fresh);
        }
    }
}

/// A product of factors that are laid out in panels first, block by block.
///
/// # Safety
/// As [`alone`].
unsafe fn blocked<T: Element>(
    kernel: &Kernel,
    panels_a: &mut Vec<f32>,
    panels_b: &mut Vec<f32>,
    out: Out,
    into: Into,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    // Few rows use a panel up at once: it need not outlive the nearest cache.
    let columns = if a.rows <= kernel.rows { kernel.columns } else { COLUMNS };
    for k in (0..a.columns).step_by(LINKS) {
        let links = LINKS.min(a.columns - k);
        let fresh = k == 0 && into == Into::Place;
        let (a, b) = (a.split_columns(k).1.split_columns(links).0, b.split_rows(k).1.split_rows(links).0);
        let few = a.rows <= ROWS;
        if few {
            pack::rows(kernel, panels_a, a, kernel.rows);
        }
        for column in (0..b.columns).step_by(columns) {
            let b = b.split_columns(column).1;
            let b = b.split_columns(columns.min(b.columns)).0;
            pack::columns(kernel, panels_b, b);
            for row in (0..a.rows).step_by(ROWS) {
                let a = a.split_rows(row).1;
                let a = a.split_rows(ROWS.min(a.rows)).0;
                if !few {
                    pack::rows(kernel, panels_a, a, kernel.rows);
                }
                for (panel, from) in (0..b.columns).step_by(kernel.columns).enumerate() {
                    let b_panel = &panels_b[panel * links * kernel.columns..];
                    for first in (0..a.rows).step_by(kernel.rows) {
                        let rows = kernel.rows.min(a.rows - first);
                        let a_panel = &panels_a[first * links..];
                        // SAFETY: the panels hold `rows` and `kernel.columns` numbers of each link; the tile lies within
                        // the product.
                        unsafe {
                            let out = out.at(row + first, column + from);
                            let columns = kernel.columns.min(b.columns - from);
                            let (a, b) = (a_panel.as_ptr(), b_panel.as_ptr());
                            kernel.tiles[rows - 1](links, a, b, kernel.columns, out.data, out.stride, columns, fresh);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_product_by_hand_placed_and_added() {
        let a = Matrix::rows(&[1.0, 2.0, 9.0, 3.0, 4.0], 2, 2, 3);
        let b = Matrix::rows(&[1.0, 0.0, 2.0, 1.0], 2, 2, 2);
        let mut out = vec![5.0; 5];
        product(&mut out, 3, Into::Place, a, b.transposed());
        // [1 2; 3 4] [1 2; 0 1] = [1 4; 3 10]
        assert_eq!(out, [1.0, 4.0, 5.0, 3.0, 10.0]);
        product(&mut out, 3, Into::Sum, a, b.transposed());
        assert_eq!(out, [2.0, 8.0, 5.0, 6.0, 20.0]);
    }

    #[test]
    #[should_panic(expected = "a factor reaches beyond its slice")]
    fn a_matrix_larger_than_its_slice_is_refused() {
        product(&mut [0.0; 4], 2, Into::Place, Matrix::rows(&[1.0; 3], 2, 2, 2), Matrix::rows(&[1.0; 4], 2, 2, 2));
    }

    fn numbers(length: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as f32 / u32::MAX as f32 - 0.5
        };
        (0..length).map(|_| next()).collect()
    }

    /// Every chain as the module's words have it.
    fn chains<T: Element>(out: &mut [f32], stride: usize, into: Into, a: Matrix<'_>, b: Matrix<'_, T>) {
        for row in 0..a.rows {
            for column in 0..b.columns {
                let c = &mut out[row * stride + column];
                *c = (0..a.columns).fold(if into == Into::Place { 0.0 } else { *c }, |c, k| {
                    let a = a.data[row * a.row_stride + k * a.column_stride];
                    let b = b.data[k * b.row_stride + column * b.column_stride].f32();
                    a.mul_add(b, c)
                });
            }
        }
    }

    fn turned<T>(data: &[T], rows: usize, columns: usize, slack: usize, turn: bool) -> Matrix<'_, T> {
        if turn {
            Matrix::rows(data, columns, rows, rows + slack).transposed()
        } else {
            Matrix::rows(data, rows, columns, columns + slack)
        }
    }

    /// On every instruction set, with any number of threads, whatever the shape and the layout.
    fn check<T: Element>(shape: [usize; 3], slack: usize, turns: [bool; 2], into: Into, b: impl Fn(Vec<f32>) -> Vec<T>) {
        let [rows, links, columns] = shape;
        let a = numbers((rows + slack) * (links + slack), 1);
        let b = b(numbers((links + slack) * (columns + slack), 2));
        let (a, b) = (turned(&a, rows, links, slack, turns[0]), turned(&b, links, columns, slack, turns[1]));
        let stride = columns + slack;
        let start = numbers(rows * stride, 3);
        let mut expected = start.clone();
        chains(&mut expected, stride, into, a, b);
        for kernel in Kernel::all() {
            for threads in [1, 2, 5] {
                let mut out = start.clone();
                product_on(kernel, threads, &mut out, stride, into, a, b);
                let same = out.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same, "{shape:?} {turns:?} tiles of {} x {}, {threads} threads", kernel.rows, kernel.columns);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 150 }))]

        #[test]
        fn every_element_is_its_chain_to_the_bit(
            rows in 0_usize..40, links in 0_usize..40, columns in 0_usize..80, slack in 0_usize..3,
            turns: [bool; 2], sum: bool, half: bool,
        ) {
            let into = if sum { Into::Sum } else { Into::Place };
            if half {
                let halves = |b: Vec<f32>| b.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
                check([rows, links, columns], slack, turns, into, halves);
            } else {
                check([rows, links, columns], slack, turns, into, |b| b);
            }
        }
    }

    #[test]
    fn blocks_continue_chains_to_the_bit() {
        let shapes: &[_] = if cfg!(miri) {
            &[[1, 260, 17]]
        } else {
            &[[1, 700, 1100], [12, 520, 64], [13, 257, 1100], [500, 300, 40]]
        };
        for &shape in shapes {
            for turns in [[false, false], [false, true], [true, false]] {
                check(shape, 0, turns, Into::Place, |b| b);
            }
        }
    }
}

#[cfg(test)]
#[test]
fn zz_time() {
    for [m, k, n] in [[1024usize, 256, 768], [1024, 256, 1024], [1024, 512, 2048], [1024,512,8192], [64, 64, 128], [1, 576, 1536], [1, 1536, 576], [4, 576, 1536]] {
        for t in [[false, false], [false, true], [true, false]] {
            let a = vec![0.5f32; m * k];
            let b = vec![0.25f32; k * n];
            let am = if t[0] { Matrix::rows(&a, k, m, m).transposed() } else { Matrix::rows(&a, m, k, k) };
            let bm = if t[1] { Matrix::rows(&b, n, k, k).transposed() } else { Matrix::rows(&b, k, n, n) };
            let mut out = vec![0.0; m * n];
            let reps = (2_000_000_000 / (m * n * k)).clamp(3, 2000);
            let mut best = f64::MAX;
            for _ in 0..5 {
                let s = std::time::Instant::now();
                for _ in 0..reps { product_on(Kernel::best(), 1, &mut out, n, Into::Place, am, bm); }
                best = best.min(s.elapsed().as_secs_f64() / reps as f64);
            }
            eprintln!("{m} {k} {n} {t:?}: {:.1} GF/s {:.1} us", 2.0 * (m * n * k) as f64 / best / 1e9, best*1e6);
        }
    }
}
