//! Sums, means and last values of each sequence, where those of several stand in one row; gradients flow through all of them.
//!
//! `lengths` are those of the sequences, as [`TokenBatch::lengths`](crate::TokenBatch::lengths) gives them. A sequence of length
//! 0 has the sum 0 and the mean 0, and no last value.

use burn::tensor::{Device, Tensor};

use crate::indices;

/// The sum over each sequence, `[sequences]`.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use firebrick_tensor::segment;
///
/// let values = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &Device::flex());
/// let sums = segment::sum(values, &[2, 0, 1]).into_data().try_to_vec::<f32>().unwrap();
/// assert_eq!(sums, [3.0, 0.0, 3.0]);
/// ```
///
/// # Shapes
/// - `values`: `[tokens]`, those of one sequence after those of another
///
/// # Panics
/// If the lengths do not add up to the number of values, or there is no sequence.
pub fn sum(values: Tensor<1>, lengths: &[usize]) -> Tensor<1> {
    each(values, lengths, Tensor::sum)
}

/// The mean over each sequence, `[sequences]`.
///
/// # Shapes
/// - `values`: `[tokens]`
///
/// # Panics
/// As of [`sum`].
pub fn mean(values: Tensor<1>, lengths: &[usize]) -> Tensor<1> {
    each(values, lengths, Tensor::mean)
}

/// The last value of each sequence, `[sequences]`.
///
/// # Shapes
/// - `values`: `[tokens]`
///
/// # Panics
/// As of [`sum`]; also if a sequence is empty.
pub fn last(values: Tensor<1>, lengths: &[usize]) -> Tensor<1> {
    assert!(lengths.iter().all(|&length| length > 0), "an empty sequence has no last value");
    check(&values, lengths);
    let ends = lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end - 1)
    });
    let device = values.device();
    values.select(0, indices(&ends.collect::<Vec<_>>(), &device))
}

fn each(values: Tensor<1>, lengths: &[usize], reduce: fn(Tensor<1>) -> Tensor<1>) -> Tensor<1> {
    check(&values, lengths);
    let device: Device = values.device();
    let mut start = 0;
    let one = |&length: &usize| match length {
        0 => Tensor::zeros([1], &device),
        _ => {
            start += length;
            reduce(values.clone().narrow(0, start - length, length))
        }
    };
    Tensor::cat(lengths.iter().map(one).collect(), 0)
}

fn check(values: &Tensor<1>, lengths: &[usize]) {
    let [count] = values.dims();
    assert!(!lengths.is_empty(), "there is no sequence to reduce");
    assert_eq!(lengths.iter().sum::<usize>(), count, "values of sequences of lengths {lengths:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    fn values(device: &Device) -> Tensor<1> {
        Tensor::from_floats([1.0, 2.0, 4.0, 8.0], device)
    }

    #[test]
    fn each_sequence_is_reduced_by_itself() {
        let (device, lengths) = (Device::flex(), [3, 1]);
        assert_eq!(numbers(sum(values(&device), &lengths)), [7.0, 8.0]);
        assert_eq!(numbers(mean(values(&device), &lengths)), [7.0 / 3.0, 8.0]);
        assert_eq!(numbers(last(values(&device), &lengths)), [4.0, 8.0]);
    }

    /// d/dx of 2·(first) + 3·(second): each value gets the weight of its own sequence, a mean's divided by its length.
    #[test]
    fn gradients_reach_the_values_of_their_own_sequence() {
        let device = Device::flex().autodiff();
        let weights = || Tensor::<1>::from_floats([2.0, 3.0], &device);
        let gradient = |reduce: fn(Tensor<1>, &[usize]) -> Tensor<1>| {
            let values = values(&device).require_grad();
            let gradients = (reduce(values.clone(), &[3, 1]) * weights()).sum().backward();
            numbers(values.grad(&gradients).unwrap())
        };
        assert_eq!(gradient(sum), [2.0, 2.0, 2.0, 3.0]);
        assert_eq!(gradient(last), [0.0, 0.0, 2.0, 3.0]);
        for (found, expected) in gradient(mean).into_iter().zip([2.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0, 3.0]) {
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
    }

    #[test]
    #[should_panic(expected = "an empty sequence has no last value")]
    fn an_empty_sequence_has_no_last_value() {
        last(values(&Device::flex()), &[4, 0]);
    }

    #[test]
    #[should_panic(expected = "values of sequences of lengths [3]")]
    fn lengths_are_those_of_all_values() {
        sum(values(&Device::flex()), &[3]);
    }
}
