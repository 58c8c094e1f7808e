//! How much better an action was than expected.

use burn::tensor::Tensor;
use firebrick_tensor::{Mask, assert_shape};

/// Generalised advantage estimates of the steps that count; 0 elsewhere.
///
/// ```text
/// δₜ = rₜ + γ mₜ₊₁ Vₜ₊₁ − Vₜ        Aₜ = δₜ + γ λ mₜ₊₁ Aₜ₊₁
/// ```
///
/// Schulman et al. 2016, [arXiv:1506.02438](https://arxiv.org/abs/1506.02438), eq. 16. Spec: R-04, T-15. The steps that count
/// (mₜ = 1) are contiguous in each row; the episode ends with the last of them, so nothing is bootstrapped past it. Gradients do not flow
/// (T-16). Not whitened: see [`firebrick_tensor::masked::whiten`]. Returns are advantages plus values.
///
/// # Shapes
/// - `rewards`, `values`, `mask`: `[batch, steps]`
/// - returns `[batch, steps]`
///
/// # Panics
/// If the shapes disagree.
pub fn gae(rewards: Tensor<2>, values: Tensor<2>, mask: &Mask, gamma: f64, lambda: f64) -> Tensor<2> {
    let [batch, steps] = mask.dims();
    assert_shape!(rewards, [batch, steps]);
    assert_shape!(values, [batch, steps]);
    let (rewards, values, mask) = (rewards.detach(), values.detach(), mask.tensor());
    let column = |tensor: &Tensor<2>, step: usize| tensor.clone().slice([0..batch, step..step + 1]);
    let mut next = Tensor::<2>::zeros([batch, 1], &rewards.device()); // γ mₜ₊₁ (Vₜ₊₁ + λ Aₜ₊₁)
    let mut advantages = Vec::with_capacity(steps);
    for step in (0..steps).rev() {
        let (value, counts) = (column(&values, step), column(&mask, step));
        let advantage = (column(&rewards, step) + next - value.clone()) * counts.clone();
        next = (value + advantage.clone() * lambda) * counts * gamma;
        advantages.push(advantage);
    }
    advantages.reverse();
    Tensor::cat(advantages, 1)
}
