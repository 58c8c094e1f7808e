//! Factors laid out so that a tile reads them from beginning to end.

use super::tile::Kernel;
use super::{Element, Matrix};

/// Links that are turned from columns to rows together.
pub(super) const TURNED: usize = 16;

/// Panels as high as a tile, of a first factor that lies column by column: for each link the numbers of the panel's rows, side
/// by side. The last panel may have fewer.
pub(super) fn rows(kernel: &Kernel, panels: &mut Vec<f32>, a: Matrix<'_>) {
    assert!(a.row_stride == 1 && a.extent() <= a.data.len(), "columns of neighbours");
    panels.resize(panels.len().max(a.rows * a.columns), 0.0);
    if a.columns == 0 {
        return;
    }
    for first in (0..a.rows).step_by(kernel.rows) {
        let rows = kernel.rows.min(a.rows - first);
        let to = panels[first * a.columns..].as_mut_ptr();
        // SAFETY: the columns lie in their slice, and the panel has as many rows of their length.
        unsafe { (kernel.copy)(a.columns, rows, a.data[first..].as_ptr(), a.column_stride, to, rows) }
    }
}

/// Rows of neighbours, [`stride`] apart.
pub(super) fn apart(kernel: &Kernel, rows: &mut Vec<f32>, a: Matrix<'_>) {
    assert!(a.column_stride == 1 && a.extent() <= a.data.len(), "rows of neighbours");
    let stride = stride(a.columns);
    rows.resize(rows.len().max(a.rows * stride), 0.0);
    // SAFETY: the rows lie in their slice, and there is room for as many.
    unsafe { (kernel.copy)(a.rows, a.columns, a.data.as_ptr(), a.row_stride, rows.as_mut_ptr(), stride) }
}

/// How far rows of so many numbers are laid apart: a line of the caches more, so that they do not push each other out.
pub(super) fn stride(columns: usize) -> usize {
    columns.next_multiple_of(16) + 16
}

/// Panels as wide as a tile: for each link the numbers of the panel's columns, side by side, 0 where the matrix has none.
pub(super) fn columns<T: Element>(kernel: &Kernel, panels: &mut Vec<f32>, b: Matrix<'_, T>) {
    let width = kernel.columns;
    panels.resize(panels.len().max(b.columns.next_multiple_of(width) * b.rows), 0.0);
    for first in (0..b.columns).step_by(width) {
        let panel = &mut panels[first * b.rows..][..width * b.rows];
        let columns = width.min(b.columns - first);
        if columns < width {
            panel.fill(0.0);
        }
        lay(kernel, panel, b.split_columns(first).1.split_columns(columns).0);
    }
}

/// Writes the matrix into the rows of a panel.
fn lay<T: Element>(kernel: &Kernel, panel: &mut [f32], from: Matrix<'_, T>) {
    let width = kernel.columns;
    assert!(from.extent() <= from.data.len() && from.rows * width <= panel.len(), "a panel of another size");
    if from.column_stride == 1 {
        let to = panel.as_mut_ptr();
        // SAFETY: the matrix lies in its slice and its rows in those of the panel; the kernel runs on this processor.
        return unsafe { T::copy(kernel)(from.rows, from.columns, from.data.as_ptr(), from.row_stride, to, width) };
    }
    // A block that is turned is whole in the panel; where the matrix has no such block it is copied number by number.
    let whole = if from.row_stride == 1 && width.is_multiple_of(TURNED) { from.rows / TURNED * TURNED } else { 0 };
    for row in (0..whole).step_by(TURNED) {
        for column in (0..from.columns).step_by(TURNED) {
            let columns = TURNED.min(from.columns - column);
            let (read, to) = (&from.data[row + column * from.column_stride..], &mut panel[row * width + column..]);
            // SAFETY: each of the columns has sixteen numbers from this row on, and each of the panel's rows sixteen places
            // from this column on; the kernel runs on this processor.
            unsafe { T::turn(kernel)(columns, read.as_ptr(), from.column_stride, to.as_mut_ptr(), width) }
        }
    }
    for row in whole..from.rows {
        for column in 0..from.columns {
            panel[row * width + column] = from.data[row * from.row_stride + column * from.column_stride].f32();
        }
    }
}
