//! Losses of a policy by its own log-probabilities of both responses.

use burn::tensor::{Tensor, activation::log_sigmoid};

/// The loss of direct preference optimisation of each pair, in nats.
///
/// ```text
/// L = −log σ(β ((log π(y⁺) − log π₀(y⁺)) − (log π(y⁻) − log π₀(y⁻))))
/// ```
///
/// Rafailov et al. 2023, [arXiv:2305.18290](https://arxiv.org/abs/2305.18290), eq. 7; `sigmoid` of TRL.
///
/// # Shapes
/// - `chosen`, `rejected`: log π(y | x) − log π₀(y | x) of the chosen and the rejected response, summed over its tokens, `[pairs]`
/// - returns `[pairs]`
///
/// # Panics
/// If the shapes disagree.
pub fn dpo_loss(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64) -> Tensor<1> {
    firebrick_tensor::assert_shape!(rejected, chosen.dims());
    log_sigmoid((chosen - rejected) * beta).neg()
}
