//! The loops around the microkernel: from a product to its tiles.
//!
//! Blocks are those of BLIS: NC columns of B, KC of the k index, MC rows of A, and within them panels of NR columns and MR rows.

use super::engine::Engine;
use super::matrix::{Init, MatPtr, Matrix, extent};
use super::microkernel::{Kernel, Operand, STREAMS};
use super::pack::{self, BUFFERS};

/// Multiply-adds that take about as long as waking a thread.
pub(crate) const MIN_PARALLEL_FLOPS: usize = 1 << 17;
/// Indices k that are multiplied in one go: a panel of B then stays in the nearest cache.
const KC: usize = 256;
/// Rows of A that are multiplied together.
const MC: usize = 240;
/// Columns of B that are packed together.
const NC: usize = 1024;
/// Rows so many numbers apart, or a multiple of it, evict each other from the nearest cache.
const ALIASING_STRIDE: usize = 1024;
/// Tiles below each other that are too few for packing B to pay.
pub(super) const SMALL_M: usize = 4;
/// Tiles beside each other that are too few for reading B a few rows at a time to pay.
const SMALL_N: usize = 4;

/// A B, row-major, computed on the threads of the current pool.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(crate) fn product<T: Operand>(init: Init<'_>, a: Matrix<'_>, b: Matrix<'_, T>) -> Vec<f32> {
    product_on(Engine::Simd(Kernel::best()), init, a, b)
}

/// [`product`] on this engine.
pub(super) fn product_on<T: Operand>(engine: Engine, init: Init<'_>, a: Matrix<'_>, b: Matrix<'_, T>) -> Vec<f32> {
    let length = a.rows * b.columns;
    let init = init.pointer(b.columns);
    let mut c = Vec::with_capacity(length);
    let out = MatPtr { data: c.as_mut_ptr(), stride: b.columns };
    check(length, b.columns, &a, &b);
    // SAFETY: the factors were checked; the vector has room for the product, and every element of it is written.
    unsafe {
        split(engine, rayon::current_num_threads(), out, init, a, b);
        c.set_len(length);
    }
    c
}

/// C ← A B with rows of C `stride` apart.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(crate) fn write_product(c: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_>) {
    check(c.len(), stride, &a, &b);
    let out = MatPtr { data: c.as_mut_ptr(), stride };
    // SAFETY: the three were checked, and C is borrowed alone.
    unsafe { split(Engine::Simd(Kernel::best()), rayon::current_num_threads(), out, MatPtr::ZERO, a, b) }
}

/// C ← C + A B with rows of C `stride` apart.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(crate) fn accumulate_product(c: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_>) {
    check(c.len(), stride, &a, &b);
    let out = MatPtr { data: c.as_mut_ptr(), stride };
    // SAFETY: the three were checked, and C is borrowed alone.
    unsafe { split(Engine::Simd(Kernel::best()), rayon::current_num_threads(), out, out.cast_const(), a, b) }
}

/// Holds every element of a product's matrices within its slice, and the rows of C apart.
fn check<T>(length: usize, stride: usize, a: &Matrix<'_>, b: &Matrix<'_, T>) {
    assert_eq!(a.columns, b.rows, "shapes of a product");
    assert!(stride >= b.columns, "rows of the result overlap");
    assert!(a.extent() <= a.data.len() && b.extent() <= b.data.len(), "a factor reaches beyond its slice");
    assert!(extent(a.rows, b.columns, stride, 1) <= length, "the result reaches beyond its slice");
}

/// Halves the longer side of C until there is a part for every thread, or the parts are not worth a thread.
///
/// # Safety
/// As [`check`] holds; nothing else may use C meanwhile.
unsafe fn split<T: Operand>(
    engine: Engine,
    threads: usize,
    out: MatPtr<*mut f32>,
    init: MatPtr<*const f32>,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    let by_rows = a.rows > b.columns;
    let [mr, nr] = engine.tile();
    let (length, unit) = if by_rows { (a.rows, mr) } else { (b.columns, nr) };
    let half = (length / 2).next_multiple_of(unit);
    if threads < 2 || half >= length || a.rows * a.columns * b.columns < 2 * MIN_PARALLEL_FLOPS {
        // SAFETY: the caller's.
        return unsafe { serial(engine, out, init, a, b) };
    }
    let ((a, a_rest), (b, b_rest), row, column) =
        if by_rows { (a.split_rows(half), (b, b), half, 0) } else { ((a, a), b.split_columns(half), 0, half) };
    // SAFETY: the two parts are disjoint and within C.
    let (out_rest, init_rest) = unsafe { (out.at(row, column), init.at(row, column)) };
    rayon::join(
        // SAFETY: as of the whole.
        move || unsafe { split(engine, threads / 2, out, init, a, b) },
        // SAFETY: as of the whole.
        move || unsafe { split(engine, threads - threads / 2, out_rest, init_rest, a_rest, b_rest) },
    );
}

/// A product on this thread.
///
/// # Safety
/// As [`split`].
unsafe fn serial<T: Operand>(
    engine: Engine,
    out: MatPtr<*mut f32>,
    init: MatPtr<*const f32>,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    let kernel = match engine {
        Engine::Simd(kernel) => kernel,
        // SAFETY: the caller's.
        Engine::Amx(amx) => return unsafe { amx.serial(out, init, a, b) },
    };
    let in_place = a.rows <= SMALL_M * kernel.mr && b.column_stride == 1;
    let whole = if in_place { b.columns / kernel.nr * kernel.nr } else { 0 };
    let (b_unpacked, b_packed) = b.split_columns(whole);
    // SAFETY: both parts lie within the product.
    unsafe {
        if b_unpacked.columns > 0 {
            unpacked(kernel, out, init, a, b_unpacked);
        }
        if b_packed.columns > 0 {
            let (out, init) = (out.at(0, whole), init.at(0, whole));
            BUFFERS.with_borrow_mut(|buffers| packed(kernel, buffers, out, init, a, b_packed));
        }
    }
}

/// The product of a few rows and whole panels of columns, with B read where it is, [`STREAMS`] rows at a time.
///
/// # Safety
/// As [`serial`].
unsafe fn unpacked<T: Operand>(
    kernel: &Kernel,
    out: MatPtr<*mut f32>,
    init: MatPtr<*const f32>,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    let (a_ptr, transposed) = a.pointer();
    let microkernels = &T::routines(kernel).unpacked[usize::from(transposed)];
    let streams = if b.columns <= SMALL_N * kernel.nr { a.columns.max(1) } else { STREAMS };
    for pc in (0..a.columns.max(1)).step_by(streams) {
        let kc = streams.min(a.columns - pc);
        let init = if pc == 0 { init } else { out.cast_const() };
        let b_rows = MatPtr { data: b.data.as_ptr().wrapping_add(pc * b.row_stride), stride: b.row_stride };
        for ir in (0..a.rows).step_by(kernel.mr) {
            let mr = kernel.mr.min(a.rows - ir);
            let a_rows = MatPtr { data: a_ptr.data.wrapping_add(ir * a.row_stride + pc * a.column_stride), ..a_ptr };
            // SAFETY: the factors have these rows and indices k, and the rows of B hold whole tiles.
            unsafe { microkernels[mr - 1](kc, a_rows, b_rows, init.at(ir, 0), out.at(ir, 0), b.columns) }
        }
    }
}

/// Where A of a block is read.
#[derive(Clone, Copy)]
enum Source {
    /// In the matrix itself.
    Unpacked,
    /// In [panels](pack::a_panels).
    Panels,
    /// In [rows](pack::a_rows) that do not evict each other from the nearest cache.
    Rows,
}

/// A product whose B, and sometimes A, is packed block by block.
///
/// # Safety
/// As [`serial`].
unsafe fn packed<T: Operand>(
    kernel: &Kernel,
    [a_buffer, b_buffer]: &mut [Vec<f32>; 2],
    out: MatPtr<*mut f32>,
    init: MatPtr<*const f32>,
    a: Matrix<'_>,
    b: Matrix<'_, T>,
) {
    let (MatPtr { data: a_ptr, stride }, transposed) = a.pointer();
    let microkernels = &kernel.packed[usize::from(transposed)];
    // Columns far apart, and rows that far apart, would evict each other from the nearest cache.
    let source = match transposed {
        true if a.rows > 2 * kernel.mr => Source::Panels,
        false if a.row_stride.is_multiple_of(ALIASING_STRIDE) && a.rows > kernel.mr / 2 => Source::Rows,
        _ => Source::Unpacked,
    };
    // Few rows use a panel up at once: it need not outlive the nearest cache.
    let nc = if a.rows <= SMALL_M * kernel.mr { kernel.nr } else { NC };
    for pc in (0..a.columns.max(1)).step_by(KC) {
        let kc = KC.min(a.columns - pc);
        let init = if pc == 0 { init } else { out.cast_const() };
        let b = b.split_rows(pc).1.split_rows(kc).0;
        for jc in (0..b.columns).step_by(nc) {
            let b = b.split_columns(jc).1;
            let b = b.split_columns(nc.min(b.columns)).0;
            pack::b_panels(kernel, b_buffer, b);
            for ic in (0..a.rows).step_by(MC) {
                let block = a.split_rows(ic).1.split_columns(pc).1;
                let block = block.split_rows(MC.min(block.rows)).0.split_columns(kc).0;
                match source {
                    Source::Panels => pack::a_panels(kernel, a_buffer, block),
                    Source::Rows => pack::a_rows(kernel, a_buffer, block),
                    Source::Unpacked => {}
                }
                for (panel, jr) in (0..b.columns).step_by(kernel.nr).enumerate() {
                    let b_panel = b_buffer[panel * kc * kernel.nr..].as_ptr();
                    let b_panel = MatPtr { data: b_panel, stride: kernel.nr };
                    let nr = kernel.nr.min(b.columns - jr);
                    for ir in (ic..a.rows.min(ic + MC)).step_by(kernel.mr) {
                        let mr = kernel.mr.min(a.rows - ir);
                        let in_buffer = |stride: usize| a_buffer[(ir - ic) * stride..].as_ptr();
                        let a_rows = match source {
                            Source::Panels => MatPtr { data: in_buffer(kc), stride: mr },
                            Source::Rows => {
                                MatPtr { data: in_buffer(pack::row_stride(kc)), stride: pack::row_stride(kc) }
                            }
                            Source::Unpacked => {
                                MatPtr { data: a_ptr.wrapping_add(ir * a.row_stride + pc * a.column_stride), stride }
                            }
                        };
                        // SAFETY: the factors have these rows and indices k; the tile lies within C.
                        unsafe {
                            let (init, out) = (init.at(ir, jc + jr), out.at(ir, jc + jr));
                            microkernels[mr - 1](kc, a_rows, b_panel, init, out, nr);
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

    use super::super::reference::{in_order, matrix, numbers};
    use super::*;

    #[test]
    fn a_product_by_hand_written_and_accumulated() {
        let a = Matrix::row_major(&[1.0, 2.0, 9.0, 3.0, 4.0], 2, 2, 3);
        let b = Matrix::row_major(&[1.0, 0.0, 2.0, 1.0], 2, 2, 2);
        let mut c = vec![5.0; 5];
        write_product(&mut c, 3, a, b.transposed());
        // [1 2; 3 4] [1 2; 0 1] = [1 4; 3 10]
        assert_eq!(c, [1.0, 4.0, 5.0, 3.0, 10.0]);
        accumulate_product(&mut c, 3, a, b.transposed());
        assert_eq!(c, [2.0, 8.0, 5.0, 6.0, 20.0]);
        assert_eq!(product(Init::Bias(&[1.0, 0.5]), a, b.transposed()), [2.0, 4.5, 4.0, 10.5]);
    }

    #[test]
    #[should_panic(expected = "a factor reaches beyond its slice")]
    fn a_matrix_larger_than_its_slice_is_refused() {
        let b = Matrix::row_major(&[1.0_f32; 4], 2, 2, 2);
        product(Init::Zero, Matrix::row_major(&[1.0; 3], 2, 2, 2), b);
    }

    /// What C holds before the product.
    #[derive(Clone, Copy, Debug)]
    enum Before {
        Zero,
        Bias,
        Sum,
    }

    /// On every instruction set, with any number of threads, whatever the shape and the layout.
    fn hold<T: Operand>(
        shape: [usize; 3],
        slack: usize,
        transposed: [bool; 2],
        before: Before,
        b: impl Fn(Vec<f32>) -> Vec<T>,
    ) {
        let [m, k, n] = shape;
        let a = numbers((m + slack) * (k + slack), 1);
        let b = b(numbers((k + slack) * (n + slack), 2));
        let (a, b) = (matrix(&a, m, k, slack, transposed[0]), matrix(&b, k, n, slack, transposed[1]));
        let stride = n + slack;
        let kept = numbers(m * stride, 3);
        let mut expected = kept.clone();
        for row in expected.chunks_mut(stride.max(1)) {
            match before {
                Before::Zero => row[..n].fill(0.0),
                Before::Bias => row[..n].copy_from_slice(&kept[..n]),
                Before::Sum => {}
            }
        }
        in_order(&mut expected, stride, a, b);
        for kernel in Kernel::all() {
            for threads in [1, 2, 5] {
                let mut c = kept.clone();
                let out = MatPtr { data: c.as_mut_ptr(), stride };
                let init = match before {
                    Before::Zero => MatPtr::ZERO,
                    Before::Bias => MatPtr { data: kept.as_ptr(), stride: 0 },
                    Before::Sum => out.cast_const(),
                };
                check(c.len(), stride, &a, &b);
                // SAFETY: just checked.
                unsafe { split(Engine::Simd(kernel), threads, out, init, a, b) };
                let same = c.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits());
                let tile = [kernel.mr, kernel.nr];
                assert!(same, "{shape:?}, transposed {transposed:?}, tiles of {tile:?}, {threads} threads");
            }
        }
    }

    /// Rows, indices k and columns; an interpreter takes fewer.
    const MAX: [usize; 3] = if cfg!(miri) { [7, 20, 20] } else { [40, 40, 80] };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 150 }))]

        #[test]
        fn every_element_is_accumulated_in_order_to_the_bit(
            m in 0..MAX[0], k in 0..MAX[1], n in 0..MAX[2], slack in 0_usize..3, transposed: [bool; 2],
            before in prop_oneof![Just(Before::Zero), Just(Before::Bias), Just(Before::Sum)], half: bool,
        ) {
            if half {
                let halves = |b: Vec<f32>| b.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
                hold([m, k, n], slack, transposed, before, halves);
            } else {
                hold([m, k, n], slack, transposed, before, |b| b);
            }
        }
    }

    #[test]
    fn blocks_continue_sums_to_the_bit() {
        let shapes: &[_] = if cfg!(miri) {
            &[[1, 260, 17]]
        } else {
            &[[1, 700, 1100], [12, 520, 64], [13, 257, 1100], [500, 300, 40]]
        };
        for &shape in shapes {
            for transposed in [[false, false], [false, true], [true, false]] {
                hold(shape, 0, transposed, Before::Bias, |b| b);
            }
        }
    }

    #[test]
    fn rows_an_aliasing_stride_apart_are_accumulated_in_order_to_the_bit() {
        let [m, n] = if cfg!(miri) { [3, 8] } else { [500, 40] };
        for k in [ALIASING_STRIDE - 24, 24] {
            hold([m, k, n], ALIASING_STRIDE - k, [false, true], Before::Sum, |b| b);
        }
    }
}
