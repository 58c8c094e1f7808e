//! The clipped losses of PPO.

use burn::tensor::Tensor;
use firebrick_tensor::assert_shape;

/// The clipped policy loss of every token, and what it was made of.
#[derive(Clone, Debug)]
pub struct PolicyLoss {
    /// The loss.
    pub loss: Tensor<1>,
    /// The probability ratio, without gradient.
    pub ratio: Tensor<1>,
    /// 1 where the clipped branch is the larger loss, so that no gradient flows.
    pub clipped: Tensor<1>,
}

/// The clipped surrogate loss of every token.
///
/// ```text
/// ρₜ = exp(log π(aₜ) − log π_old(aₜ))        Lₜ = max(−Aₜ ρₜ, −Aₜ clip(ρₜ, 1 − ε, 1 + ε))
/// ```
///
/// Schulman et al. 2017, [arXiv:1707.06347](https://arxiv.org/abs/1707.06347), eq. 7. Spec: R-03, B-26, T-01. `old` and `advantages`
/// carry no gradient (T-16).
///
/// # Shapes
/// - all `[tokens]`
///
/// # Panics
/// If the shapes disagree.
pub fn policy_loss(log_probs: Tensor<1>, old: Tensor<1>, advantages: Tensor<1>, clip: f64) -> PolicyLoss {
    let dims = log_probs.dims();
    assert_shape!(old, dims);
    assert_shape!(advantages, dims);
    let advantages = advantages.detach();
    let ratio = (log_probs - old.detach()).exp();
    let free = advantages.clone() * ratio.clone() * -1.0;
    let bounded = advantages * ratio.clone().clamp(1.0 - clip, 1.0 + clip) * -1.0;
    PolicyLoss {
        loss: free.clone().max_pair(bounded.clone()),
        ratio: ratio.detach(),
        clipped: bounded.detach().greater(free.detach()).float(),
    }
}

/// The clipped value loss of every token, and what it was made of.
#[derive(Clone, Debug)]
pub struct ValueLoss {
    /// The loss.
    pub loss: Tensor<1>,
    /// 1 where the clipped branch is the larger loss.
    pub clipped: Tensor<1>,
}

/// The clipped squared error of every token's value.
///
/// ```text
/// Lₜ = ½ max((Vₜ − Rₜ)², (clip(Vₜ, V_old − ε, V_old + ε) − Rₜ)²)
/// ```
///
/// The larger of the two, about the value at rollout (T-17). Spec: R-03. `old` and `returns` carry no gradient (T-16).
///
/// # Shapes
/// - all `[tokens]`
///
/// # Panics
/// If the shapes disagree.
pub fn value_loss(values: Tensor<1>, old: Tensor<1>, returns: Tensor<1>, clip: f64) -> ValueLoss {
    let dims = values.dims();
    assert_shape!(old, dims);
    assert_shape!(returns, dims);
    let (old, returns) = (old.detach(), returns.detach());
    let near = old.clone() + (values.clone() - old).clamp(-clip, clip);
    let free = (values - returns.clone()).square();
    let bounded = (near - returns).square();
    ValueLoss {
        loss: free.clone().max_pair(bounded.clone()) * 0.5,
        clipped: bounded.detach().greater(free.detach()).float(),
    }
}
