//! One comparison of numbers with a tolerance.

use burn::tensor::Tensor;

/// Numbers that [`assert_close`] compares: a tensor, a slice, a vector or one number.
pub trait Numbers {
    /// The numbers in row-major order.
    fn numbers(self) -> Vec<f64>;

    /// The shape, where the type has one; a flat list has none and fits every shape of its length.
    fn shape(&self) -> Option<Vec<usize>>;
}

impl<const D: usize> Numbers for Tensor<D> {
    fn numbers(self) -> Vec<f64> {
        self.into_data().try_into_vec_as().expect("every float type converts to f64")
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(self.dims().to_vec())
    }
}

impl Numbers for Vec<f64> {
    fn numbers(self) -> Vec<f64> {
        self
    }

    fn shape(&self) -> Option<Vec<usize>> {
        None
    }
}

impl Numbers for &[f64] {
    fn numbers(self) -> Vec<f64> {
        self.to_vec()
    }

    fn shape(&self) -> Option<Vec<usize>> {
        None
    }
}

impl<const N: usize> Numbers for [f64; N] {
    fn numbers(self) -> Vec<f64> {
        self.to_vec()
    }

    fn shape(&self) -> Option<Vec<usize>> {
        None
    }
}

impl Numbers for f64 {
    fn numbers(self) -> Vec<f64> {
        vec![self]
    }

    fn shape(&self) -> Option<Vec<usize>> {
        None
    }
}

/// Asserts that two lists of numbers agree element by element.
///
/// ```text
/// |actualᵢ − expectedᵢ| ≤ tolerance · max(1, |expectedᵢ|)
/// ```
/// The tolerance is absolute below one and relative above. Equal infinities agree; NaN agrees with nothing.
///
/// # Panics
/// If shapes or lengths differ, or an element does: the message shows the worst element, its index and both values.
#[track_caller]
pub fn assert_close(actual: impl Numbers, expected: impl Numbers, tolerance: f64) {
    assert_within(actual, expected, |expected| tolerance * expected.abs().max(1.0));
}

/// [`assert_close`] with the difference that is allowed at each expected value.
#[track_caller]
pub(crate) fn assert_within(actual: impl Numbers, expected: impl Numbers, allowed: impl Fn(f64) -> f64) {
    let (shape, expected_shape) = (actual.shape(), expected.shape());
    if let (Some(shape), Some(expected_shape)) = (&shape, &expected_shape) {
        assert_eq!(shape, expected_shape, "the shapes differ (actual, expected)");
    }
    let (actual, expected) = (actual.numbers(), expected.numbers());
    assert_eq!(actual.len(), expected.len(), "the numbers of elements differ (actual, expected)");

    let excess: Vec<f64> = actual.iter().zip(&expected).map(|(&a, &e)| excess(a, e, allowed(e))).collect();
    let wrong = excess.iter().filter(|&&excess| excess > 1.0).count();
    let Some(worst) = (0..excess.len()).max_by(|&i, &j| excess[i].total_cmp(&excess[j])).filter(|_| wrong > 0) else {
        return;
    };
    panic!(
        "{wrong} of {} elements differ; the worst is {:?}: actual {}, expected {}, allowed difference {:e}",
        excess.len(),
        index_of(worst, &shape.or(expected_shape).unwrap_or_else(|| vec![excess.len()])),
        actual[worst],
        expected[worst],
        allowed(expected[worst]),
    );
}

/// `|actual − expected| / allowed`; infinite where the two cannot be compared.
fn excess(actual: f64, expected: f64, allowed: f64) -> f64 {
    if actual == expected {
        return 0.0;
    }
    let excess = (actual - expected).abs() / allowed;
    if excess.is_nan() { f64::INFINITY } else { excess }
}

/// The index in a row-major tensor of `shape` of its element number `flat`.
fn index_of(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let along = flat % size;
            flat /= size;
            along
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;

    #[test]
    fn agrees_within_the_tolerance_absolute_below_one_and_relative_above() {
        assert_close([0.001, 1000.0], [0.0019, 1000.9], 1e-3); // 0.0009 of 0.001 allowed, 0.9 of 1.0009 allowed
        assert_close([f64::INFINITY, f64::NEG_INFINITY], [f64::INFINITY, f64::NEG_INFINITY], 1e-6);
        assert_close(Vec::new(), Vec::new(), 1e-6);
    }

    #[test]
    fn a_tensor_meets_a_tensor_a_list_and_a_number() {
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &cpu());
        assert_close(x.clone(), x.clone(), 0.0);
        assert_close(x.clone(), [1.0, 2.0, 3.0, 4.0].as_slice(), 0.0);
        assert_close(x.sum(), 10.0, 0.0);
    }

    #[test]
    #[should_panic(expected = "2 of 4 elements differ; \
        the worst is [1, 0]: actual 3, expected 3.5, allowed difference 3.5e-3")]
    fn the_worst_element_is_shown() {
        // 0.5 / 3.5 is worse than 0.01 / 1.
        assert_close(Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 0.0]], &cpu()), [1.0, 2.0, 3.5, 0.01], 1e-3);
    }

    #[test]
    #[should_panic(expected = "the worst is [1]: actual NaN, expected NaN")]
    fn nan_agrees_with_nothing() {
        assert_close([0.0, f64::NAN], [0.0, f64::NAN], 1.0);
    }

    #[test]
    #[should_panic(expected = "actual -inf, expected inf")]
    fn infinities_of_opposite_sign_differ() {
        assert_close(f64::NEG_INFINITY, f64::INFINITY, 1.0);
    }

    #[test]
    #[should_panic(expected = "actual 1, expected inf")]
    fn a_number_is_not_close_to_infinity() {
        assert_close(1.0, f64::INFINITY, 1.0);
    }

    #[test]
    #[should_panic(expected = "the shapes differ")]
    fn shapes_must_agree() {
        assert_close(Tensor::<2>::zeros([2, 3], &cpu()), Tensor::<2>::zeros([3, 2], &cpu()), 1.0);
    }

    #[test]
    #[should_panic(expected = "the numbers of elements differ")]
    fn lengths_must_agree() {
        assert_close(Tensor::<1>::zeros([2], &cpu()), [0.0; 3], 1.0);
    }
}
