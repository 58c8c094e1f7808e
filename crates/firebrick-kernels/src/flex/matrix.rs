//! Products of matrices that lie anywhere in a slice.

/// A matrix of some elements of a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` neighbours, `stride` apart, from the beginning of the slice.
    pub(super) fn rows(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
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
}

fn extent(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + (columns - 1) * column_stride + 1 }
}

/// Whether a product replaces what was there or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Place,
    Sum,
}

/// Writes `a b` into rows `stride` apart, on this thread.
///
/// # Panics
/// If the shapes disagree or a matrix reaches beyond its slice.
pub(super) fn product(out: &mut [f32], stride: usize, into: Into, a: Matrix<'_>, b: Matrix<'_>) {
    assert_eq!(a.columns, b.rows, "shapes of a product");
    assert!(stride >= b.columns, "rows of the result overlap");
    assert!(a.extent() <= a.data.len() && b.extent() <= b.data.len(), "a factor reaches beyond its slice");
    assert!(extent(a.rows, b.columns, stride, 1) <= out.len(), "the result reaches beyond its slice");
    // SAFETY: the assertions hold every element of the three matrices within its slice; `out` is borrowed alone, so
    // it overlaps neither factor, and its rows do not overlap each other.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            stride as isize,
            into == Into::Sum,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
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
}
