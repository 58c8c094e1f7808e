//! Distributions of tokens: log-probabilities, entropy, and the Kullback-Leibler divergence with its estimators.

use burn::tensor::Tensor;

use crate::assert_shape;

/// Log-probabilities over the last axis.
///
/// ```text
/// log pᵢ = xᵢ − max x − ln Σⱼ exp(xⱼ − max x)
/// ```
///
/// Written in elementary operations, so that a training device and a plain one compute the same bits.
pub fn log_softmax<const D: usize>(logits: Tensor<D>) -> Tensor<D> {
    let axis = D - 1;
    let shifted = logits.clone() - logits.detach().max_dim(axis);
    let log_sum = shifted.clone().exp().sum_dim(axis).log();
    shifted - log_sum
}

/// Probabilities over the last axis, in elementary operations like [`log_softmax`].
pub fn softmax<const D: usize>(logits: Tensor<D>) -> Tensor<D> {
    let axis = D - 1;
    let exp = (logits.clone() - logits.detach().max_dim(axis)).exp();
    let sum = exp.clone().sum_dim(axis);
    exp / sum
}

/// The entropy of each position's distribution, in nats.
///
/// ```text
/// H = −Σᵢ pᵢ log pᵢ
/// ```
///
/// # Shapes
/// - `logits`: `[tokens, vocab]`
/// - returns `[tokens]`
pub fn entropy(logits: Tensor<2>) -> Tensor<1> {
    let log_p = log_softmax(logits);
    (log_p.clone().exp() * log_p).sum_dim(1).flatten(0, 1).neg()
}

/// The exact divergence of each position's distribution from a reference, in nats.
///
/// ```text
/// D(p ‖ q) = Σᵢ pᵢ (log pᵢ − log qᵢ)
/// ```
///
/// # Shapes
/// - `logits`, `reference`: `[tokens, vocab]`
/// - returns `[tokens]`
///
/// # Panics
/// If the shapes disagree.
pub fn kl(logits: Tensor<2>, reference: Tensor<2>) -> Tensor<1> {
    assert_shape!(reference, logits.dims());
    let log_p = log_softmax(logits);
    let log_q = log_softmax(reference);
    (log_p.clone().exp() * (log_p - log_q)).sum_dim(1).flatten(0, 1)
}

/// The estimator of D(p ‖ q) that goes into the reward, of tokens sampled from p, in nats.
///
/// ```text
/// k₁ = log p(x) − log q(x)
/// ```
///
/// Unbiased; single values may be negative (T-06). Schulman 2020, *Approximating KL divergence*. Spec: T-05.
pub fn k1<const D: usize>(log_p: Tensor<D>, log_q: Tensor<D>) -> Tensor<D> {
    log_p - log_q
}

/// The squared estimator of D(p ‖ q): never negative, biased, in nats.
///
/// ```text
/// k₂ = ½ (log p(x) − log q(x))²
/// ```
///
/// Spec: T-05.
pub fn k2<const D: usize>(log_p: Tensor<D>, log_q: Tensor<D>) -> Tensor<D> {
    (log_p - log_q).square() * 0.5
}

/// The corrected estimator of D(p ‖ q): never negative and unbiased, in nats.
///
/// ```text
/// k₃ = q(x)/p(x) − 1 − log(q(x)/p(x))
/// ```
///
/// The ratio is reference over sampler; the other way round is a known mistake. Spec: T-05.
pub fn k3<const D: usize>(log_p: Tensor<D>, log_q: Tensor<D>) -> Tensor<D> {
    let log_ratio = log_q - log_p;
    log_ratio.clone().exp() - 1.0 - log_ratio
}
