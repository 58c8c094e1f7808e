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
//!
//! Factors that are rounded to BF16 have a chain of [`pairs`] or, on processors with a matrix unit, the blocks of [`unit`].

mod gathered;
mod lanes;
mod pack;
mod pairs;
mod panels;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod patches;
mod tile;
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), path = "no_unit.rs")]
mod unit;

use std::cell::RefCell;

pub(super) use gathered::{Gathered, Patches, add_product_of_turned, place_product_of_gathered};
pub(super) use lanes::Element;
pub(super) use pairs::{joined, prepacked_pairs, product_of_pairs, product_of_prepacked_pairs, zipped, zipped_rows};
pub(super) use panels::{Panels, few_rows, laid_out, place_product_of_panels, prepacked, product_of_prepacked};
pub(super) use tile::Kernel;
pub(super) use unit::Unit;

/// A matrix of some elements of a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T = f32> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
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

    /// Where it begins, how far its rows lie apart or, if it is read column by column, its columns, and whether it is.
    ///
    /// # Panics
    /// If neither rows nor columns are of neighbours.
    fn place(&self) -> (Place<*const T>, bool) {
        let turned = self.column_stride != 1;
        assert!(!turned || self.row_stride == 1, "neither rows nor columns of neighbours");
        let stride = if turned { self.column_stride } else { self.row_stride };
        (Place { data: self.data.as_ptr(), stride }, turned)
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

/// Where the chains of a product begin.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// At 0.
    Zero,
    /// Each row at the numbers of this one.
    Row(&'a [f32]),
}

impl Start<'_> {
    /// # Panics
    /// If it is a row of another length.
    fn place(self, columns: usize) -> Place<*const f32> {
        match self {
            Self::Zero => Place::ZERO,
            Self::Row(row) => {
                assert_eq!(row.len(), columns, "the row where a product begins");
                Place { data: row.as_ptr(), stride: 0 }
            }
        }
    }
}

/// Where a matrix, or a part of one, begins, and how far its rows lie apart.
#[derive(Clone, Copy)]
pub(super) struct Place<P> {
    data: P,
    stride: usize,
}

// SAFETY: parts of a product are disjoint, and each has one thread that writes it; where chains begin is written by that
// thread alone, or by none.
unsafe impl<P> Send for Place<P> {}

impl Place<*mut f32> {
    /// # Safety
    /// The place must lie within the product.
    unsafe fn at(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's.
        Self { data: unsafe { self.data.add(row * self.stride + column) }, ..self }
    }

    fn begins(self) -> Place<*const f32> {
        Place { data: self.data, stride: self.stride }
    }
}

impl Place<*const f32> {
    /// Copies so many rows and columns.
    ///
    /// # Safety
    /// They lie within what is read, and alone within what is written.
    #[inline(always)]
    unsafe fn copy(self, to: Place<*mut f32>, [rows, columns]: [usize; 2]) {
        for row in 0..rows {
            // SAFETY: the caller's.
            unsafe { std::ptr::copy_nonoverlapping(self.at(row, 0).data, to.at(row, 0).data, columns) }
        }
    }

    /// The beginning of chains at 0.
    const ZERO: Self = Self { data: std::ptr::null(), stride: 0 };

    /// # Safety
    /// As of a product.
    unsafe fn at(self, row: usize, column: usize) -> Self {
        if self.data.is_null() {
            return self;
        }
        // SAFETY: the caller's.
        Self { data: unsafe { self.data.add(row * self.stride + column) }, ..self }
    }
}

/// What multiplies.
#[derive(Clone, Copy)]
enum Multiplier {
    /// Vectors, of numbers or of words.
    Vectors(&'static Kernel),
    /// A matrix unit, which rounds.
    Unit(Unit),
}

impl Multiplier {
    /// Rows and columns that it treats together.
    fn sides(self) -> [usize; 2] {
        match self {
            Self::Vectors(kernel) => [kernel.rows, kernel.columns],
            Self::Unit(_) => [unit::LINES; 2],
        }
    }

    /// The length of a panel of so many links.
    fn panel_length(self, links: usize) -> usize {
        match self {
            Self::Vectors(kernel) => kernel.columns * links,
            Self::Unit(_) => unit::length(links),
        }
    }
}

/// The elements of `a b`, row after row, computed on the threads of the current pool.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(super) fn product<T: Element>(start: Start<'_>, a: Matrix<'_>, b: Matrix<'_, T>) -> Vec<f32> {
    product_with(Multiplier::Vectors(Kernel::best()), start, a, b)
}

/// The same by this one.
fn product_with<T: Element>(multiplier: Multiplier, start: Start<'_>, a: Matrix<'_>, b: Matrix<'_, T>) -> Vec<f32> {
    let length = a.rows * b.columns;
    let begins = start.place(b.columns);
    let mut out = Vec::with_capacity(length);
    let place = Place { data: out.as_mut_ptr(), stride: b.columns };
    check(length, b.columns, &a, &b);
    // SAFETY: the factors were checked; the vector has room for the product, and every element of it is written.
    unsafe {
        divided(multiplier, rayon::current_num_threads(), place, begins, a, b);
        out.set_len(length);
    }
    out
}

/// Writes `a b` into rows `stride` apart, as [`product`] does.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(super) fn place_product(out: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_>) {
    check(out.len(), stride, &a, &b);
    let place = Place { data: out.as_mut_ptr(), stride };
    // SAFETY: the three were checked, and `out` is borrowed alone.
    unsafe { divided(Multiplier::Vectors(Kernel::best()), rayon::current_num_threads(), place, Place::ZERO, a, b) }
}

/// Lets the chains in rows `stride` apart go on with those of `a b`.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(super) fn add_product(out: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_>) {
    check(out.len(), stride, &a, &b);
    let place = Place { data: out.as_mut_ptr(), stride };
    // SAFETY: the three were checked, and `out` is borrowed alone.
    unsafe { divided(Multiplier::Vectors(Kernel::best()), rayon::current_num_threads(), place, place.begins(), a, b) }
}

/// Holds every element of a product's matrices within its slice, and the rows of the result apart.
fn check<T>(out: usize, stride: usize, a: &Matrix<'_>, b: &Matrix<'_, T>) {
    assert_eq!(a.columns, b.rows, "shapes of a product");
    assert!(stride >= b.columns, "rows of the result overlap");
    assert!(a.extent() <= a.data.len() && b.extent() <= b.data.len(), "a factor reaches beyond its slice");
    assert!(extent(a.rows, b.columns, stride, 1) <= out, "the result reaches beyond its slice");
}

/// Halves the longer side until there is a piece for every thread, or the pieces are not worth a thread.
///
/// # Safety
/// As [`check`] holds; nothing else may use the place meanwhile.
unsafe fn divided<T: Element>(
    multiplier: Multiplier,
    threads: usize,
    out: Place<*mut f32>,
    start: Place<*const f32>,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    let by_rows = a.rows > b.columns;
    let [rows, columns] = multiplier.sides();
    let (length, unit) = if by_rows { (a.rows, rows) } else { (b.columns, columns) };
    let half = (length / 2).next_multiple_of(unit);
    if threads < 2 || half >= length || a.rows * a.columns * b.columns < 2 * WORTH {
        // SAFETY: the caller's.
        return unsafe { alone(multiplier, out, start, a, b) };
    }
    let ((a, a_rest), (b, b_rest), row, column) =
        if by_rows { (a.split_rows(half), (b, b), half, 0) } else { ((a, a), b.split_columns(half), 0, half) };
    // SAFETY: the two parts are disjoint and within the product.
    let (out_rest, start_rest) = unsafe { (out.at(row, column), start.at(row, column)) };
    rayon::join(
        // SAFETY: as of the whole.
        move || unsafe { divided(multiplier, threads / 2, out, start, a, b) },
        // SAFETY: as of the whole.
        move || unsafe { divided(multiplier, threads - threads / 2, out_rest, start_rest, a_rest, b_rest) },
    );
}

/// Multiply-adds that take about as long as waking a thread.
pub(super) const WORTH: usize = 1 << 17;
/// Links of the chains that are made in one go: a panel of the second factor then stays in the nearest cache.
const LINKS: usize = 256;
/// Rows of the first factor, and columns of the second, that are treated together.
const ROWS: usize = 240;
const COLUMNS: usize = 1024;
/// Rows so many numbers apart, or a multiple of it, push each other out of the nearest cache.
const SAME_PLACE: usize = 1024;
/// Links at a time where the second factor is read where it lies: as many rows as a processor prefetches from.
const STREAMS: usize = 8;
/// So many tiles, one below or beside another, are few: laying the second factor out for a few rows of tiles would cost more than
/// it gives, and a few columns of tiles need not be read a few links at a time.
const FEW: usize = 4;

thread_local! {
    static PANELS: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A product on this thread.
///
/// # Safety
/// As [`divided`].
unsafe fn alone<T: Element>(
    multiplier: Multiplier,
    out: Place<*mut f32>,
    start: Place<*const f32>,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    let kernel = match multiplier {
        Multiplier::Vectors(kernel) => kernel,
        // SAFETY: the caller's.
        Multiplier::Unit(unit) => return unsafe { unit.alone(out, start, a, b) },
    };
    let in_place = a.rows <= FEW * kernel.rows && b.column_stride == 1;
    let whole = if in_place { b.columns / kernel.columns * kernel.columns } else { 0 };
    let (read, laid) = b.split_columns(whole);
    // SAFETY: both parts lie within the product.
    unsafe {
        if read.columns > 0 {
            streamed(kernel, out, start, a, read);
        }
        if laid.columns > 0 {
            let (out, start) = (out.at(0, whole), start.at(0, whole));
            PANELS.with_borrow_mut(|panels| blocked(kernel, panels, out, start, a, laid));
        }
    }
}

/// The product of a few rows and whole panels of columns, which are read where they lie, `STREAMS` rows at a time.
///
/// # Safety
/// As [`alone`].
unsafe fn streamed<T: Element>(
    kernel: &Kernel,
    out: Place<*mut f32>,
    start: Place<*const f32>,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    let (from, turned) = a.place();
    let sweeps = T::sweeps(kernel, turned);
    let streams = if b.columns <= FEW * kernel.columns { a.columns.max(1) } else { STREAMS };
    for k in (0..a.columns.max(1)).step_by(streams) {
        let links = streams.min(a.columns - k);
        let start = if k == 0 { start } else { out.begins() };
        let b_rows = Place { data: b.data.as_ptr().wrapping_add(k * b.row_stride), stride: b.row_stride };
        for row in (0..a.rows).step_by(kernel.rows) {
            let rows = kernel.rows.min(a.rows - row);
            let from = Place { data: from.data.wrapping_add(row * a.row_stride + k * a.column_stride), ..from };
            // SAFETY: the factors have these rows and links, and the rows of `b` hold whole tiles.
            unsafe { sweeps[rows - 1](links, from, b_rows, start.at(row, 0), out.at(row, 0), b.columns) }
        }
    }
}

/// Where the first factor of a block is read.
#[derive(Clone, Copy)]
enum Reading {
    /// Where it lies.
    Lying,
    /// In [panels](pack::rows).
    Panels,
    /// In [rows](pack::apart) that do not push each other out of the nearest cache.
    Apart,
}

/// A product whose second factor, and sometimes the first, is laid out anew, block by block.
///
/// # Safety
/// As [`alone`].
unsafe fn blocked<T: Element>(
    kernel: &Kernel,
    [panels_a, panels]: &mut [Vec<f32>; 2],
    out: Place<*mut f32>,
    start: Place<*const f32>,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    let (Place { data: from, stride }, turned) = a.place();
    let tiles = &kernel.tiles[usize::from(turned)];
    // Columns far apart, and rows that far apart, would push each other out of the nearest cache.
    let reading = match turned {
        true if a.rows > 2 * kernel.rows => Reading::Panels,
        false if a.row_stride.is_multiple_of(SAME_PLACE) && a.rows > kernel.rows / 2 => Reading::Apart,
        _ => Reading::Lying,
    };
    // Few rows use a panel up at once: it need not outlive the nearest cache.
    let columns = if a.rows <= FEW * kernel.rows { kernel.columns } else { COLUMNS };
    for k in (0..a.columns.max(1)).step_by(LINKS) {
        let links = LINKS.min(a.columns - k);
        let start = if k == 0 { start } else { out.begins() };
        let b = b.split_rows(k).1.split_rows(links).0;
        for column in (0..b.columns).step_by(columns) {
            let b = b.split_columns(column).1;
            let b = b.split_columns(columns.min(b.columns)).0;
            pack::columns(kernel, panels, b);
            for block in (0..a.rows).step_by(ROWS) {
                let part = a.split_rows(block).1.split_columns(k).1;
                let part = part.split_rows(ROWS.min(part.rows)).0.split_columns(links).0;
                match reading {
                    Reading::Panels => pack::rows(kernel, panels_a, part),
                    Reading::Apart => pack::apart(kernel, panels_a, part),
                    Reading::Lying => {}
                }
                for (index, panel) in (0..b.columns).step_by(kernel.columns).enumerate() {
                    let b_panel = panels[index * links * kernel.columns..].as_ptr();
                    let b_panel = Place { data: b_panel, stride: kernel.columns };
                    let columns = kernel.columns.min(b.columns - panel);
                    for row in (block..a.rows.min(block + ROWS)).step_by(kernel.rows) {
                        let rows = kernel.rows.min(a.rows - row);
                        let of_part = |stride: usize| panels_a[(row - block) * stride..].as_ptr();
                        let from = match reading {
                            Reading::Panels => Place { data: of_part(links), stride: rows },
                            Reading::Apart => Place { data: of_part(pack::stride(links)), stride: pack::stride(links) },
                            Reading::Lying => {
                                Place { data: from.wrapping_add(row * a.row_stride + k * a.column_stride), stride }
                            }
                        };
                        // SAFETY: the factors have these rows and links; the tile lies within the product.
                        unsafe {
                            let (start, out) = (start.at(row, column + panel), out.at(row, column + panel));
                            tiles[rows - 1](links, from, b_panel, start, out, columns);
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
        place_product(&mut out, 3, a, b.transposed());
        // [1 2; 3 4] [1 2; 0 1] = [1 4; 3 10]
        assert_eq!(out, [1.0, 4.0, 5.0, 3.0, 10.0]);
        add_product(&mut out, 3, a, b.transposed());
        assert_eq!(out, [2.0, 8.0, 5.0, 6.0, 20.0]);
        assert_eq!(product(Start::Row(&[1.0, 0.5]), a, b.transposed()), [2.0, 4.5, 4.0, 10.5]);
    }

    #[test]
    #[should_panic(expected = "a factor reaches beyond its slice")]
    fn a_matrix_larger_than_its_slice_is_refused() {
        product(Start::Zero, Matrix::rows(&[1.0; 3], 2, 2, 2), Matrix::rows(&[1.0_f32; 4], 2, 2, 2));
    }

    pub(super) fn numbers(length: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as f32 / u32::MAX as f32 - 0.5
        };
        (0..length).map(|_| next()).collect()
    }

    /// Every chain as the module's words have it.
    fn chains<T: Element>(out: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_, T>) {
        for row in 0..a.rows {
            for column in 0..b.columns {
                let c = &mut out[row * stride + column];
                *c = (0..a.columns).fold(*c, |c, k| {
                    let a = a.data[row * a.row_stride + k * a.column_stride];
                    let b = b.data[k * b.row_stride + column * b.column_stride].f32();
                    a.mul_add(b, c)
                });
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Begin {
        Zero,
        Row,
        Kept,
    }

    /// 0 below the least normal number.
    pub(super) fn flushed(x: f32) -> f32 {
        if x.abs() < f32::MIN_POSITIVE { 0.0 * x } else { x }
    }

    /// An element rounded to BF16; 0 where there is none.
    pub(super) fn rounded<T: Element>(m: Matrix<'_, T>, row: usize, column: usize) -> f32 {
        if row >= m.rows || column >= m.columns {
            return 0.0;
        }
        let number = m.data[row * m.row_stride + column * m.column_stride].f32();
        flushed(bf16::from_f32(flushed(number)).to_f32())
    }

    pub(super) fn turned<T>(data: &[T], rows: usize, columns: usize, slack: usize, turn: bool) -> Matrix<'_, T> {
        if turn {
            Matrix::rows(data, columns, rows, rows + slack).transposed()
        } else {
            Matrix::rows(data, rows, columns, columns + slack)
        }
    }

    /// On every instruction set, with any number of threads, whatever the shape and the layout.
    fn hold<T: Element>(
        shape: [usize; 3],
        slack: usize,
        turns: [bool; 2],
        begin: Begin,
        b: impl Fn(Vec<f32>) -> Vec<T>,
    ) {
        let [rows, links, columns] = shape;
        let a = numbers((rows + slack) * (links + slack), 1);
        let b = b(numbers((links + slack) * (columns + slack), 2));
        let (a, b) = (turned(&a, rows, links, slack, turns[0]), turned(&b, links, columns, slack, turns[1]));
        let stride = columns + slack;
        let kept = numbers(rows * stride, 3);
        let mut expected = kept.clone();
        for row in expected.chunks_mut(stride.max(1)) {
            match begin {
                Begin::Zero => row[..columns].fill(0.0),
                Begin::Row => row[..columns].copy_from_slice(&kept[..columns]),
                Begin::Kept => {}
            }
        }
        chains(&mut expected, stride, a, b);
        for kernel in Kernel::all() {
            for threads in [1, 2, 5] {
                let mut out = kept.clone();
                let place = Place { data: out.as_mut_ptr(), stride };
                let start = match begin {
                    Begin::Zero => Place::ZERO,
                    Begin::Row => Place { data: kept.as_ptr(), stride: 0 },
                    Begin::Kept => place.begins(),
                };
                check(out.len(), stride, &a, &b);
                // SAFETY: just checked.
                unsafe { divided(Multiplier::Vectors(kernel), threads, place, start, a, b) };
                let same = out.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same, "{shape:?} {turns:?} tiles of {} x {}, {threads} threads", kernel.rows, kernel.columns);
            }
        }
    }

    /// Rows, links and columns; an interpreter takes fewer.
    const MOST: [usize; 3] = if cfg!(miri) { [7, 20, 20] } else { [40, 40, 80] };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 150 }))]

        #[test]
        fn every_element_is_its_chain_to_the_bit(
            rows in 0..MOST[0], links in 0..MOST[1], columns in 0..MOST[2], slack in 0_usize..3,
            turns: [bool; 2], begin in prop_oneof![Just(Begin::Zero), Just(Begin::Row), Just(Begin::Kept)], half: bool,
        ) {
            if half {
                let halves = |b: Vec<f32>| b.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
                hold([rows, links, columns], slack, turns, begin, halves);
            } else {
                hold([rows, links, columns], slack, turns, begin, |b| b);
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
                hold(shape, 0, turns, Begin::Row, |b| b);
            }
        }
    }

    #[test]
    fn rows_that_lie_in_the_same_place_of_a_cache_give_their_chains_to_the_bit() {
        let [rows, columns] = if cfg!(miri) { [3, 8] } else { [500, 40] };
        for links in [SAME_PLACE - 24, 24] {
            hold([rows, links, columns], SAME_PLACE - links, [false, true], Begin::Kept, |b| b);
        }
    }
}
