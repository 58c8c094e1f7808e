//! A and B copied into panels that a microkernel reads from beginning to end.

use std::cell::RefCell;

use super::isa::TRANSPOSED_BLOCK;
use super::matrix::Matrix;
use super::microkernel::{Kernel, Operand};

thread_local! {
    /// Packed A and packed B.
    pub(super) static BUFFERS: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Panels of MR rows of a column-major A: for each k the numbers of the panel's rows, side by side. The last panel may have fewer.
pub(super) fn a_panels(kernel: &Kernel, panels: &mut Vec<f32>, a: Matrix<'_>) {
    assert!(a.row_stride == 1 && a.extent() <= a.data.len(), "a column-major matrix");
    panels.resize(panels.len().max(a.rows * a.columns), 0.0);
    if a.columns == 0 {
        return;
    }
    for ir in (0..a.rows).step_by(kernel.mr) {
        let mr = kernel.mr.min(a.rows - ir);
        let to = panels[ir * a.columns..].as_mut_ptr();
        // SAFETY: the columns lie in their slice, and the panel has as many rows of their length.
        unsafe { (kernel.f32.copy)(a.columns, mr, a.data[ir..].as_ptr(), a.column_stride, to, mr) }
    }
}

/// The rows of a row-major A, [`row_stride`] apart.
pub(super) fn a_rows(kernel: &Kernel, rows: &mut Vec<f32>, a: Matrix<'_>) {
    assert!(a.column_stride == 1 && a.extent() <= a.data.len(), "a row-major matrix");
    let stride = row_stride(a.columns);
    rows.resize(rows.len().max(a.rows * stride), 0.0);
    // SAFETY: the rows lie in their slice, and there is room for as many.
    unsafe { (kernel.f32.copy)(a.rows, a.columns, a.data.as_ptr(), a.row_stride, rows.as_mut_ptr(), stride) }
}

/// How far apart rows of so many numbers are packed: a cache line more, so that they do not evict each other.
pub(super) fn row_stride(columns: usize) -> usize {
    columns.next_multiple_of(16) + 16
}

/// Panels of NR columns of B: for each k the numbers of the panel's columns, side by side, 0 where the matrix has none.
pub(super) fn b_panels<T: Operand>(kernel: &Kernel, panels: &mut Vec<f32>, b: Matrix<'_, T>) {
    let nr = kernel.nr;
    panels.resize(panels.len().max(b.columns.next_multiple_of(nr) * b.rows), 0.0);
    for jr in (0..b.columns).step_by(nr) {
        let panel = &mut panels[jr * b.rows..][..nr * b.rows];
        let columns = nr.min(b.columns - jr);
        if columns < nr {
            panel.fill(0.0);
        }
        b_panel(kernel, panel, b.split_columns(jr).1.split_columns(columns).0);
    }
}

/// Writes at most NR columns into the rows of a panel.
fn b_panel<T: Operand>(kernel: &Kernel, panel: &mut [f32], b: Matrix<'_, T>) {
    let nr = kernel.nr;
    let routines = T::routines(kernel);
    assert!(b.extent() <= b.data.len() && b.rows * nr <= panel.len(), "a panel of another size");
    if b.column_stride == 1 {
        let to = panel.as_mut_ptr();
        // SAFETY: the matrix lies in its slice and its rows in those of the panel; the kernel runs on this processor.
        return unsafe { (routines.copy)(b.rows, b.columns, b.data.as_ptr(), b.row_stride, to, nr) };
    }
    // A block that is transposed is whole in the panel; where the matrix has no such block it is copied number by number.
    const SIDE: usize = TRANSPOSED_BLOCK;
    let whole = if b.row_stride == 1 && nr.is_multiple_of(SIDE) { b.rows / SIDE * SIDE } else { 0 };
    for row in (0..whole).step_by(SIDE) {
        for column in (0..b.columns).step_by(SIDE) {
            let columns = SIDE.min(b.columns - column);
            let (from, to) = (&b.data[row + column * b.column_stride..], &mut panel[row * nr + column..]);
            // SAFETY: each of the columns has sixteen numbers from this row on, and each of the panel's rows sixteen places
            // from this column on; the kernel runs on this processor.
            unsafe { (routines.transpose)(columns, from.as_ptr(), b.column_stride, to.as_mut_ptr(), nr) }
        }
    }
    for row in whole..b.rows {
        for column in 0..b.columns {
            panel[row * nr + column] = b.data[row * b.row_stride + column * b.column_stride].f32();
        }
    }
}
