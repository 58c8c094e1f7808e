//! Products whose A is the windows of an image, read where they are instead of copied into rows first (an implicit im2col).

use std::mem::MaybeUninit;

use half::bf16;

use super::matrix::{Init, MatPtr, Matrix};
use super::microkernel::{Indirect, Kernel};
use super::pack::{self, BUFFERS};

/// A matrix whose element `row, k` is `data[starts[row] + steps[k]]`.
#[derive(Clone, Copy)]
pub(crate) struct Im2col<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) starts: &'a [usize],
    pub(crate) steps: &'a [usize],
}

impl Im2col<'_> {
    /// # Panics
    /// If an element lies beyond the slice.
    fn check(&self) {
        let max = |places: &[usize]| places.iter().copied().max();
        if let (Some(start), Some(step)) = (max(self.starts), max(self.steps)) {
            assert!(start + step < self.data.len(), "a factor reaches beyond its slice");
        }
    }
}

/// Windows of an image of rounded numbers.
#[derive(Clone, Copy)]
pub(crate) struct Patches<'a> {
    pub(crate) data: &'a [bf16],
    /// Where each begins.
    pub(crate) starts: &'a [usize],
    /// Rows of a patch.
    pub(crate) rows: usize,
    /// Numbers of a row, side by side.
    pub(crate) row_length: usize,
    /// From a row to the next.
    pub(crate) row_stride: usize,
}

impl Patches<'_> {
    /// # Panics
    /// If a patch reaches beyond the image.
    pub(super) fn check(&self) {
        let end = |start: &usize| start + (self.rows - 1) * self.row_stride + self.row_length;
        let last = self.starts.iter().max().map_or(0, end);
        assert!(last <= self.data.len(), "a patch reaches beyond the image");
    }
}

/// C ← init + A B, row-major, on this thread; B is packed in panels for the tiles of this kernel.
///
/// # Panics
/// If the shapes disagree or A reaches beyond its slice.
pub(crate) fn write_product_of_im2col(
    kernel: &Kernel,
    c: &mut [MaybeUninit<f32>],
    init: Init<'_>,
    a: Im2col<'_>,
    panels: &[f32],
    columns: usize,
) {
    a.check();
    let (rows, k) = (a.starts.len(), a.steps.len());
    assert_eq!(c.len(), rows * columns, "shape of a product");
    assert!(columns.next_multiple_of(kernel.nr) * k <= panels.len(), "a factor has too few columns");
    let init = init.pointer(columns);
    let out = MatPtr { data: c.as_mut_ptr().cast::<f32>(), stride: columns };
    for jr in (0..columns).step_by(kernel.nr) {
        let panel = MatPtr { data: panels[jr * k..].as_ptr(), stride: kernel.nr };
        for ir in (0..rows).step_by(kernel.mr) {
            let starts = &a.starts[ir..rows.min(ir + kernel.mr)];
            // SAFETY: A was checked; the panel has these k, and the tile lies within C.
            unsafe {
                let (init, out) = (init.at(ir, jr), out.at(ir, jr));
                let a = Indirect { data: a.data.as_ptr(), starts: starts.as_ptr(), steps: a.steps.as_ptr() };
                kernel.indirect[0][starts.len() - 1](k, a, panel, init, out, kernel.nr.min(columns - jr));
            }
        }
    }
}

/// C ← C + Aᵀ B, row-major with `b.columns` columns, on this thread: element `k, row` of A is `data[starts[k] + row]`.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(crate) fn accumulate_product_of_transposed_im2col(
    kernel: &Kernel,
    c: &mut [f32],
    data: &[f32],
    starts: &[usize],
    b: Matrix<'_>,
) {
    let columns = b.columns;
    assert_eq!(starts.len(), b.rows, "shapes of a product");
    // Without an index k, C stays as it is.
    let (Some(last), false) = (starts.iter().max(), c.is_empty()) else { return };
    assert!(columns > 0 && c.len().is_multiple_of(columns), "rows of the result");
    let (rows, k) = (c.len() / columns, starts.len());
    assert!(b.column_stride == 1 && b.extent() <= b.data.len(), "a factor reaches beyond its slice");
    assert!(last + rows <= data.len(), "a factor reaches beyond its slice");
    let out = MatPtr { data: c.as_mut_ptr(), stride: columns };
    // Whole tiles read B where it is.
    let whole = columns / kernel.nr * kernel.nr;
    let tiles = |panel: MatPtr<*const f32>, jr: usize| {
        for ir in (0..rows).step_by(kernel.mr) {
            let mr = kernel.mr.min(rows - ir);
            // SAFETY: the factors have these rows and indices k; the tile lies within C, which is borrowed alone.
            unsafe {
                let out = out.at(ir, jr);
                let a = Indirect { data: data.as_ptr().add(ir), starts: starts.as_ptr(), steps: starts.as_ptr() };
                kernel.indirect[1][mr - 1](k, a, panel, out.cast_const(), out, kernel.nr.min(columns - jr));
            }
        }
    };
    for jr in (0..whole).step_by(kernel.nr) {
        tiles(MatPtr { data: b.data[jr..].as_ptr(), stride: b.row_stride }, jr);
    }
    if whole < columns {
        BUFFERS.with_borrow_mut(|[_, panels]| {
            pack::b_panels(kernel, panels, b.split_columns(whole).1);
            tiles(MatPtr { data: panels.as_ptr(), stride: kernel.nr }, whole);
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reference::{in_order, numbers};
    use super::*;

    /// A slice and where rows begin in it, which overlap, and how far indices k are from there, in two runs.
    fn windows(rows: usize, k: usize) -> (Vec<f32>, Vec<usize>, Vec<usize>) {
        let steps = (0..k).map(|p| p + if p > k / 2 { 5 } else { 0 }).collect::<Vec<_>>();
        let starts = (0..rows).map(|row| row * 2 + row % 3).collect::<Vec<_>>();
        (numbers(2 * rows + k + 8, 1), starts, steps)
    }

    /// An interpreter takes fewer.
    const MAX: [usize; 3] = if cfg!(miri) { [7, 12, 20] } else { [30, 40, 80] };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 100 }))]

        #[test]
        fn windows_give_the_bits_of_rows_that_are_copied(
            m in 1..MAX[0], k in 1..MAX[1], n in 1..MAX[2], bias: bool,
        ) {
            let (data, starts, steps) = windows(m, k);
            let row = |&start: &usize| steps.iter().map(|step| data[start + step]).collect::<Vec<_>>();
            let copied = starts.iter().flat_map(row).collect::<Vec<_>>();
            let (b, row) = (numbers(k * n, 2), numbers(n, 3));
            let b = Matrix::row_major(&b, k, n, n);
            let init = if bias { Init::Bias(&row) } else { Init::Zero };
            let mut expected = if bias { row.repeat(m) } else { vec![0.0; m * n] };
            in_order(&mut expected, n, Matrix::row_major(&copied, m, k, k), b);
            for kernel in Kernel::all() {
                let mut panels = Vec::new();
                pack::b_panels(kernel, &mut panels, b);
                let mut found = Vec::with_capacity(m * n);
                let room = &mut found.spare_capacity_mut()[..m * n];
                let a = Im2col { data: &data, starts: &starts, steps: &steps };
                write_product_of_im2col(kernel, room, init, a, &panels, n);
                // SAFETY: the product was written.
                unsafe { found.set_len(m * n) }
                prop_assert_eq!(&found, &expected);
            }
            // The same rows as those of A, which is transposed.
            let copied = starts.iter().flat_map(|start| &data[*start..start + k]).copied().collect::<Vec<_>>();
            let g = numbers(m * n, 4);
            let g = Matrix::row_major(&g, m, n, n);
            let mut expected = vec![0.0; k * n];
            in_order(&mut expected, n, Matrix::row_major(&copied, m, k, k).transposed(), g);
            for kernel in Kernel::all() {
                let mut found = vec![0.0; k * n];
                accumulate_product_of_transposed_im2col(kernel, &mut found, &data, &starts, g);
                prop_assert_eq!(&found, &expected);
            }
        }
    }

    #[test]
    fn sums_over_no_k_stay_as_they_are() {
        let mut c = [1.0, 2.0];
        let b = Matrix::row_major(&[], 0, 2, 2);
        accumulate_product_of_transposed_im2col(Kernel::best(), &mut c, &[], &[], b);
        assert_eq!(c, [1.0, 2.0]);
    }

    #[test]
    #[should_panic(expected = "a factor reaches beyond its slice")]
    fn a_window_beyond_the_image_is_refused() {
        let a = Im2col { data: &[1.0; 4], starts: &[0, 3], steps: &[0, 1] };
        let mut c = [MaybeUninit::uninit(); 2];
        write_product_of_im2col(Kernel::best(), &mut c, Init::Zero, a, &[0.0; 64], 1);
    }

    #[test]
    #[should_panic(expected = "a factor reaches beyond its slice")]
    fn a_transposed_window_beyond_the_image_is_refused() {
        let g = Matrix::row_major(&[1.0; 2], 2, 1, 1);
        accumulate_product_of_transposed_im2col(Kernel::best(), &mut [0.0; 2], &[1.0; 4], &[0, 3], g);
    }

    #[test]
    #[should_panic(expected = "a patch reaches beyond the image")]
    fn a_patch_beyond_the_image_is_refused() {
        let patches = Patches { data: &[bf16::ZERO; 10], starts: &[0, 3], rows: 2, row_length: 3, row_stride: 5 };
        patches.check();
    }
}
