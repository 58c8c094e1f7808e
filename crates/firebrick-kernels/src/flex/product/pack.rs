//! Factors laid out so that a tile reads them from beginning to end.

use super::tile::Kernel;
use super::{Element, Matrix};

/// Links that are turned from columns to rows together.
pub(super) const TURNED: usize = 16;

/// Panels of `width` rows: for each link the numbers of the panel's rows, side by side. The last panel may have fewer.
pub(super) fn rows(kernel: &Kernel, panels: &mut Vec<f32>, a: Matrix<'_>, width: usize) {
    panels.resize(panels.len().max(a.rows * a.columns + TURNED), 0.0);
    for first in (0..a.rows).step_by(width) {
        let rows = width.min(a.rows - first);
        lay(kernel, &mut panels[first * a.columns..], rows, a.split_rows(first).1.split_rows(rows).0.transposed());
    }
}

/// Panels of `width` columns: for each link the numbers of the panel's columns, side by side, 0 where the matrix has none.
pub(super) fn columns<T: Element>(kernel: &Kernel, panels: &mut Vec<f32>, b: Matrix<'_, T>) {
    let width = kernel.columns;
    panels.resize(panels.len().max(b.columns.next_multiple_of(width) * b.rows + TURNED), 0.0);
    for first in (0..b.columns).step_by(width) {
        let panel = &mut panels[first * b.rows..];
        let columns = width.min(b.columns - first);
        if columns < width {
            panel[..width * b.rows].fill(0.0);
        }
        lay(kernel, panel, width, b.split_columns(first).1.split_columns(columns).0);
    }
}

/// Writes the matrix into rows `stride` apart; what it writes beyond a row is written again by the rows after it.
fn lay<T: Element>(kernel: &Kernel, panel: &mut [f32], stride: usize, from: Matrix<'_, T>) {
    let at = |row: usize, column: usize| from.data[row * from.row_stride + column * from.column_stride].f32();
    let copied = if from.column_stride == 1 {
        for (row, to) in panel.chunks_mut(stride).take(from.rows).enumerate() {
            let from = &from.data[row * from.row_stride..][..from.columns];
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from.f32());
        }
        from.rows
    } else if from.row_stride == 1 {
        let whole = from.rows / TURNED * TURNED;
        for row in (0..whole).step_by(TURNED) {
            for column in (0..from.columns).step_by(TURNED) {
                let columns = TURNED.min(from.columns - column);
                let to = &mut panel[row * stride + column..];
                assert!(to.len() >= (TURNED - 1) * stride + TURNED, "a panel has room for what is written beyond it");
                let read = &from.data[row + column * from.column_stride..];
                assert!(read.len() >= (columns - 1) * from.column_stride + TURNED, "whole columns are turned");
                // SAFETY: both slices are long enough; the kernel runs on this processor.
                unsafe { T::turn(kernel)(columns, read.as_ptr(), from.column_stride, to.as_mut_ptr(), stride) }
            }
        }
        whole
    } else {
        0
    };
    for row in copied..from.rows {
        (0..from.columns).for_each(|column| panel[row * stride + column] = at(row, column));
    }
}
