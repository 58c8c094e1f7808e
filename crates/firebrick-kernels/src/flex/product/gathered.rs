//! Products whose first factor is gathered from a slice: element `r, k` is the number at `starts[r] + steps[k]`.

use std::mem::MaybeUninit;

use half::bf16;

use super::tile::{Kernel, Places};
use super::{Matrix, PANELS, Place, Start, pack};

/// A matrix whose rows begin anywhere in a slice, and whose columns are as far from there in every row.
#[derive(Clone, Copy)]
pub(in crate::flex) struct Gathered<'a> {
    pub(in crate::flex) data: &'a [f32],
    pub(in crate::flex) starts: &'a [usize],
    pub(in crate::flex) steps: &'a [usize],
}

impl Gathered<'_> {
    /// # Panics
    /// If an element lies beyond the slice.
    fn check(&self) {
        let most = |places: &[usize]| places.iter().copied().max();
        if let (Some(start), Some(step)) = (most(self.starts), most(self.steps)) {
            assert!(start + step < self.data.len(), "a factor reaches beyond its slice");
        }
    }
}

/// Patches of an image of rounded numbers: rows of neighbours, as far apart in each patch.
#[derive(Clone, Copy)]
pub(in crate::flex) struct Patches<'a> {
    pub(in crate::flex) data: &'a [bf16],
    /// Where each begins.
    pub(in crate::flex) starts: &'a [usize],
    pub(in crate::flex) rows: usize,
    /// Numbers of a row.
    pub(in crate::flex) run: usize,
    /// From a row to the next.
    pub(in crate::flex) apart: usize,
}

impl Patches<'_> {
    /// # Panics
    /// If a patch reaches beyond the image.
    pub(super) fn check(&self) {
        let last = self.starts.iter().max().map_or(0, |start| start + (self.rows - 1) * self.apart + self.run);
        assert!(last <= self.data.len(), "a patch reaches beyond the image");
    }
}

/// Writes every element of `start + a b`, row after row, on this thread; `b` is laid out in panels for the tiles of this kernel.
///
/// # Panics
/// If the shapes disagree or `a` reaches beyond its slice.
pub(in crate::flex) fn place_product_of_gathered(
    kernel: &Kernel,
    out: &mut [MaybeUninit<f32>],
    start: Start<'_>,
    a: Gathered<'_>,
    panels: &[f32],
    columns: usize,
) {
    a.check();
    let (rows, links) = (a.starts.len(), a.steps.len());
    assert_eq!(out.len(), rows * columns, "shape of a product");
    assert!(columns.next_multiple_of(kernel.columns) * links <= panels.len(), "a factor has too few columns");
    let start = start.place(columns);
    let out = Place { data: out.as_mut_ptr().cast::<f32>(), stride: columns };
    for column in (0..columns).step_by(kernel.columns) {
        let panel = Place { data: panels[column * links..].as_ptr(), stride: kernel.columns };
        for row in (0..rows).step_by(kernel.rows) {
            let starts = &a.starts[row..rows.min(row + kernel.rows)];
            // SAFETY: the first factor was checked; the panel has these links, and the tile lies within the result.
            unsafe {
                let (start, out) = (start.at(row, column), out.at(row, column));
                let grow = kernel.gathers[0][starts.len() - 1];
                let columns = kernel.columns.min(columns - column);
                let a = Places { data: a.data.as_ptr(), starts: starts.as_ptr(), steps: a.steps.as_ptr() };
                grow(links, a, panel, start, out, columns);
            }
        }
    }
}

/// Lets the chains of `out`, rows of `b.columns` neighbours, go on with those of `aᵀ b` on this thread: a column of `a`, which is a row of
/// the result, is at `starts[k] + row` of link k.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(in crate::flex) fn add_product_of_turned(
    kernel: &Kernel,
    out: &mut [f32],
    data: &[f32],
    starts: &[usize],
    b: Matrix<'_>,
) {
    let columns = b.columns;
    assert_eq!(starts.len(), b.rows, "shapes of a product");
    // Chains of no link stay as they are.
    let (Some(last), false) = (starts.iter().max(), out.is_empty()) else { return };
    assert!(columns > 0 && out.len().is_multiple_of(columns), "rows of the result");
    let (rows, links) = (out.len() / columns, starts.len());
    assert!(b.column_stride == 1 && b.extent() <= b.data.len(), "a factor reaches beyond its slice");
    assert!(last + rows <= data.len(), "a factor reaches beyond its slice");
    let out = Place { data: out.as_mut_ptr(), stride: columns };
    // Whole tiles read the second factor where it lies.
    let whole = columns / kernel.columns * kernel.columns;
    let tiles = |panel: Place<*const f32>, column: usize| {
        for row in (0..rows).step_by(kernel.rows) {
            let count = kernel.rows.min(rows - row);
            let columns = kernel.columns.min(columns - column);
            // SAFETY: the factors have these rows and links; the tile lies within the result, which is borrowed alone.
            unsafe {
                let out = out.at(row, column);
                let a = Places { data: data.as_ptr().add(row), starts: starts.as_ptr(), steps: starts.as_ptr() };
                let grow = kernel.gathers[1][count - 1];
                grow(links, a, panel, out.begins(), out, columns);
            }
        }
    };
    for column in (0..whole).step_by(kernel.columns) {
        tiles(Place { data: b.data[column..].as_ptr(), stride: b.row_stride }, column);
    }
    if whole < columns {
        PANELS.with_borrow_mut(|[_, panels]| {
            pack::columns(kernel, panels, b.split_columns(whole).1);
            tiles(Place { data: panels.as_ptr(), stride: kernel.columns }, whole);
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::numbers;
    use super::super::{Multiplier, laid_out, product_with};
    use super::*;

    /// A slice and where rows begin in it, which overlap, and how far columns are from there, in two runs.
    fn gathered(rows: usize, links: usize) -> (Vec<f32>, Vec<usize>, Vec<usize>) {
        let steps = (0..links).map(|link| link + if link > links / 2 { 5 } else { 0 }).collect::<Vec<_>>();
        let starts = (0..rows).map(|row| row * 2 + row % 3).collect::<Vec<_>>();
        (numbers(2 * rows + links + 8, 1), starts, steps)
    }

    /// An interpreter takes fewer.
    const MOST: [usize; 3] = if cfg!(miri) { [7, 12, 20] } else { [30, 40, 80] };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 100 }))]

        #[test]
        fn a_gathered_factor_gives_the_bits_of_one_that_lies_in_rows(
            rows in 1..MOST[0], links in 1..MOST[1], columns in 1..MOST[2], bias: bool,
        ) {
            let (data, starts, steps) = gathered(rows, links);
            let row = |&start: &usize| steps.iter().map(|step| data[start + step]).collect::<Vec<_>>();
            let laid = starts.iter().flat_map(row).collect::<Vec<_>>();
            let (b, row) = (numbers(links * columns, 2), numbers(columns, 3));
            let b = Matrix::rows(&b, links, columns, columns);
            let start = if bias { Start::Row(&row) } else { Start::Zero };
            for kernel in Kernel::all() {
                let (panels, _) = laid_out(kernel, b);
                let mut found = Vec::with_capacity(rows * columns);
                let room = &mut found.spare_capacity_mut()[..rows * columns];
                let a = Gathered { data: &data, starts: &starts, steps: &steps };
                place_product_of_gathered(kernel, room, start, a, &panels, columns);
                // SAFETY: the product was written.
                unsafe { found.set_len(rows * columns) }
                let a = Matrix::rows(&laid, rows, links, links);
                prop_assert_eq!(&found, &product_with(Multiplier::Vectors(kernel), start, a, b));
            }
            // The same rows as columns of a factor whose links begin where they do.
            let turned = starts.iter().flat_map(|start| &data[*start..start + links]).copied().collect::<Vec<_>>();
            let g = numbers(rows * columns, 4);
            let g = Matrix::rows(&g, rows, columns, columns);
            for kernel in Kernel::all() {
                let mut found = vec![0.0; links * columns];
                add_product_of_turned(kernel, &mut found, &data, &starts, g);
                let a = Matrix::rows(&turned, rows, links, links).transposed();
                prop_assert_eq!(&found, &product_with(Multiplier::Vectors(kernel), Start::Zero, a, g));
            }
        }
    }

    #[test]
    fn chains_of_no_link_stay_as_they_are() {
        let mut out = [1.0, 2.0];
        add_product_of_turned(Kernel::best(), &mut out, &[], &[], Matrix::rows(&[], 0, 2, 2));
        assert_eq!(out, [1.0, 2.0]);
    }

    #[test]
    #[should_panic(expected = "a factor reaches beyond its slice")]
    fn a_window_beyond_the_image_is_refused() {
        let a = Gathered { data: &[1.0; 4], starts: &[0, 3], steps: &[0, 1] };
        let mut out = [MaybeUninit::uninit(); 2];
        place_product_of_gathered(Kernel::best(), &mut out, Start::Zero, a, &[0.0; 64], 1);
    }

    #[test]
    #[should_panic(expected = "a factor reaches beyond its slice")]
    fn a_turned_window_beyond_the_image_is_refused() {
        let g = Matrix::rows(&[1.0; 2], 2, 1, 1);
        add_product_of_turned(Kernel::best(), &mut [0.0; 2], &[1.0; 4], &[0, 3], g);
    }
}
