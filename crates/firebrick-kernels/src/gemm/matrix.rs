//! Strided matrices within slices, and pointers into them.

/// A matrix of some elements of a slice: `data[row · row_stride + column · column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    pub(crate) data: &'a [T],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A row-major matrix from the beginning of the slice.
    pub(crate) fn row_major(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose, of the same elements.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Its first element and leading dimension, and whether it is transposed: column-major.
    ///
    /// # Panics
    /// If it is neither row-major nor column-major.
    pub(super) fn pointer(&self) -> (MatPtr<*const T>, bool) {
        let transposed = self.column_stride != 1;
        assert!(!transposed || self.row_stride == 1, "a matrix that is neither row-major nor column-major");
        let stride = if transposed { self.column_stride } else { self.row_stride };
        (MatPtr { data: self.data.as_ptr(), stride }, transposed)
    }

    /// The length of slice that it takes.
    pub(super) fn extent(&self) -> usize {
        extent(self.rows, self.columns, self.row_stride, self.column_stride)
    }

    #[inline]
    pub(super) fn split_rows(self, at: usize) -> (Self, Self) {
        let rest = &self.data[(at * self.row_stride).min(self.data.len())..];
        (Self { rows: at, ..self }, Self { data: rest, rows: self.rows - at, ..self })
    }

    #[inline]
    pub(super) fn split_columns(self, at: usize) -> (Self, Self) {
        let (first, rest) = self.transposed().split_rows(at);
        (first.transposed(), rest.transposed())
    }
}

/// The length of slice that a strided matrix takes.
pub(super) fn extent(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + (columns - 1) * column_stride + 1 }
}

/// What C holds before the product is added.
#[derive(Clone, Copy)]
pub(crate) enum Init<'a> {
    /// Zeros.
    Zero,
    /// This row, in every row.
    Bias(&'a [f32]),
}

impl Init<'_> {
    /// # Panics
    /// If it is a row of another length.
    pub(super) fn pointer(self, columns: usize) -> MatPtr<*const f32> {
        match self {
            Self::Zero => MatPtr::ZERO,
            Self::Bias(row) => {
                assert_eq!(row.len(), columns, "the bias of a product");
                MatPtr { data: row.as_ptr(), stride: 0 }
            }
        }
    }
}

/// The first element of a matrix or of a part of one, and its leading dimension.
#[derive(Clone, Copy)]
pub(super) struct MatPtr<P> {
    pub(super) data: P,
    pub(super) stride: usize,
}

// SAFETY: parts of C are disjoint, and each has one thread that writes it; what C holds before is written by that thread alone, or by
// none.
unsafe impl<P> Send for MatPtr<P> {}

impl MatPtr<*mut f32> {
    /// # Safety
    /// The element must lie within C.
    #[inline]
    pub(super) unsafe fn at(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's.
        Self { data: unsafe { self.data.add(row * self.stride + column) }, ..self }
    }

    #[inline]
    pub(super) fn cast_const(self) -> MatPtr<*const f32> {
        MatPtr { data: self.data, stride: self.stride }
    }
}

impl MatPtr<*const f32> {
    /// Zeros, wherever it is read.
    pub(super) const ZERO: Self = Self { data: std::ptr::null(), stride: 0 };

    /// Copies so many rows and columns.
    ///
    /// # Safety
    /// They lie within what is read, and alone within what is written.
    #[inline(always)]
    pub(super) unsafe fn copy(self, to: MatPtr<*mut f32>, [rows, columns]: [usize; 2]) {
        for row in 0..rows {
            // SAFETY: the caller's.
            unsafe { std::ptr::copy_nonoverlapping(self.at(row, 0).data, to.at(row, 0).data, columns) }
        }
    }

    /// # Safety
    /// The element must lie within the matrix.
    #[inline]
    pub(super) unsafe fn at(self, row: usize, column: usize) -> Self {
        if self.data.is_null() {
            return self;
        }
        // SAFETY: the caller's.
        Self { data: unsafe { self.data.add(row * self.stride + column) }, ..self }
    }
}
