//! What each token of a response earns.

use burn::tensor::Tensor;
use firebrick_tensor::{Mask, assert_shape, k1};

/// The reward of every response token: minus the weighted KL estimate, and the score at the last one.
///
/// ```text
/// rₜ = −β (log π(aₜ) − log π₀(aₜ)) + [t = T] · score
/// ```
///
/// Bai et al. 2022, eq. 4.1, with the penalty on each token: its sum over the response estimates the sequence's divergence. Spec:
/// B-25, T-05, T-07, T-41 (the score is not transformed).
///
/// # Shapes
/// - `scores`: `[batch]`
/// - `log_probs`, `reference`, `mask`: `[batch, steps]`; the mask counts the response's tokens, contiguous in each row
/// - returns `[batch, steps]`, 0 where the mask does not count
///
/// # Panics
/// If the shapes disagree.
pub fn shaped_rewards(
    scores: Tensor<1>,
    log_probs: Tensor<2>,
    reference: Tensor<2>,
    mask: &Mask,
    kl_coefficient: f64,
) -> Tensor<2> {
    let [batch, steps] = mask.dims();
    assert_shape!(scores, [batch]);
    assert_shape!(log_probs, [batch, steps]);
    assert_shape!(reference, [batch, steps]);
    let counts = mask.tensor();
    let penalty = k1(log_probs, reference) * counts.clone() * -kl_coefficient;
    // A token is the last one if it counts and the next one does not.
    let next = match steps {
        1 => Tensor::zeros([batch, 1], &counts.device()),
        _ => Tensor::cat(
            vec![counts.clone().slice([0..batch, 1..steps]), Tensor::zeros([batch, 1], &counts.device())],
            1,
        ),
    };
    let last = counts.clone() * (next * -1.0 + 1.0);
    penalty + last * scores.reshape([batch, 1])
}
