//! Products whose first factor is gathered from a slice: element `r, k` is the number at `starts[r] + steps[k]`.

use std::mem::MaybeUninit;

use super::tile::Kernel;
use super::{Matrix, PANELS, Place, Start, extent, pack};

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
    let start = match start {
        Start::Zero => Place::ZERO,
        Start::Row(row) => {
            assert_eq!(row.len(), columns, "the row where a product begins");
            Place { data: row.as_ptr(), stride: 0 }
        }
    };
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
                grow(links, a.steps.as_ptr(), a.data.as_ptr(), starts.as_ptr(), panel, start, out, columns);
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
    assert!(columns > 0 && out.len().is_multiple_of(columns), "rows of the result");
    let (rows, links) = (out.len() / columns, starts.len());
    assert_eq!(links, b.rows, "shapes of a product");
    assert!(b.column_stride == 1 && b.extent() <= b.data.len(), "a factor reaches beyond its slice");
    if let (Some(start), true) = (starts.iter().max(), rows > 0) {
        assert!(start + rows <= data.len(), "a factor reaches beyond its slice");
    }
    assert!(extent(rows, columns, columns, 1) <= out.len(), "the result reaches beyond its slice");
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
                let data = data.as_ptr().add(row);
                let grow = kernel.gathers[1][count - 1];
                grow(links, starts.as_ptr(), data, starts.as_ptr(), panel, out.begins(), out, columns);
            }
        }
    };
    for column in (0..whole).step_by(kernel.columns) {
        tiles(Place { data: b.data[column..].as_ptr(), stride: b.row_stride }, column);
    }
    if whole < columns && links > 0 {
        PANELS.with_borrow_mut(|[_, panels]| {
            pack::columns(kernel, panels, b.split_columns(whole).1);
            tiles(Place { data: panels.as_ptr(), stride: kernel.columns }, whole);
        });
    }
}
