//! The losses of a pair.

use burn::tensor::{Tensor, activation::log_sigmoid};
use firebrick_tensor::assert_shape;

/// The ranked loss of each pair, in nats.
///
/// ```text
/// L = log(1 + exp(r_rejected − r_chosen)) = −log σ(r_chosen − r_rejected)
/// ```
///
/// Askell et al. 2021, eq. 3.1. Spec: A-16. Stable for differences of any size; a constant added to all scores changes nothing.
///
/// # Shapes
/// - `chosen`, `rejected`: scores `[batch]`
/// - returns `[batch]`
///
/// # Panics
/// If the shapes disagree.
pub fn ranked_loss(chosen: Tensor<1>, rejected: Tensor<1>) -> Tensor<1> {
    assert_shape!(rejected, chosen.dims());
    log_sigmoid(chosen - rejected).neg()
}

/// 1 for each pair whose chosen response has the higher score, ½ for a tie, 0 otherwise.
///
/// # Panics
/// If the shapes disagree.
pub fn pair_accuracy(chosen: Tensor<1>, rejected: Tensor<1>) -> Vec<f32> {
    assert_shape!(rejected, chosen.dims());
    let differences = (chosen - rejected).into_data().try_to_vec::<f32>().expect("scores are f32");
    let right = |difference: f32| match difference.partial_cmp(&0.0) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Equal) => 0.5,
        _ => 0.0,
    };
    differences.into_iter().map(right).collect()
}
