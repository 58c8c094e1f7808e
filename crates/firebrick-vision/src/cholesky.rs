//! Small symmetric positive definite systems, on the host in f64.

/// The lower factor of a symmetric positive definite matrix.
///
/// ```text
/// A = L Lᵀ
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Cholesky {
    /// Row after row; above the diagonal what stood there.
    lower: Vec<f64>,
    size: usize,
}

impl Cholesky {
    /// Of a matrix, row after row; only its lower half is read. None if it is not positive definite.
    ///
    /// # Panics
    /// If it is not square.
    pub(crate) fn of(mut matrix: Vec<f64>, size: usize) -> Option<Self> {
        assert_eq!(matrix.len(), size * size, "a matrix of {size} rows");
        for row in 0..size {
            for column in 0..=row {
                let (above, below) = matrix.split_at(row * size);
                let (left, right) = if column == row {
                    (&below[..column], &below[..column])
                } else {
                    (&above[column * size..][..column], &below[..column])
                };
                let rest = below[column] - left.iter().zip(right).map(|(a, b)| a * b).sum::<f64>();
                matrix[row * size + column] = if column < row {
                    rest / matrix[column * size + column]
                } else if rest > 0.0 {
                    rest.sqrt()
                } else {
                    return None;
                };
            }
        }
        Some(Self { lower: matrix, size })
    }

    /// The logarithm of the determinant of A.
    pub(crate) fn log_determinant(&self) -> f64 {
        (0..self.size).map(|row| 2.0 * self.lower[row * self.size + row].ln()).sum()
    }

    /// The x of `A x = b`, in the place of b.
    ///
    /// # Panics
    /// If b has another length.
    pub(crate) fn solve(&self, b: &mut [f64]) {
        let size = self.size;
        assert_eq!(b.len(), size, "a right-hand side of {size} numbers");
        for row in 0..size {
            let known = self.lower[row * size..][..row].iter().zip(&*b).map(|(l, x)| l * x).sum::<f64>();
            b[row] = (b[row] - known) / self.lower[row * size + row];
        }
        for row in (0..size).rev() {
            b[row] /= self.lower[row * size + row];
            let x = b[row];
            b[..row].iter_mut().zip(&self.lower[row * size..][..row]).for_each(|(b, l)| *b -= l * x);
        }
    }

    /// The inverse of A, row after row.
    pub(crate) fn inverse(&self) -> Vec<f64> {
        let mut inverse = vec![0.0; self.size * self.size];
        for (row, column) in inverse.chunks_exact_mut(self.size.max(1)).enumerate() {
            column[row] = 1.0;
            self.solve(column);
        }
        inverse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_solved_and_inverted() {
        // [4 2 0; 2 5 3; 0 3 6] [1 2 -1]ᵀ = [8 9 0]ᵀ, of determinant 60.
        let matrix = vec![4.0, 2.0, 0.0, 2.0, 5.0, 3.0, 0.0, 3.0, 6.0];
        let factor = Cholesky::of(matrix.clone(), 3).unwrap();
        let mut x = [8.0, 9.0, 0.0];
        factor.solve(&mut x);
        for (found, expected) in x.iter().zip([1.0, 2.0, -1.0]) {
            assert!((found - expected).abs() < 1e-12, "{x:?}");
        }
        assert!((factor.log_determinant() - 60.0_f64.ln()).abs() < 1e-12);
        let inverse = factor.inverse();
        for row in 0..3 {
            for column in 0..3 {
                let product = (0..3).map(|k| matrix[row * 3 + k] * inverse[k * 3 + column]).sum::<f64>();
                assert!((product - f64::from(u8::from(row == column))).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        assert!(Cholesky::of(vec![1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(Cholesky::of(vec![0.0], 1).is_none());
    }
}
