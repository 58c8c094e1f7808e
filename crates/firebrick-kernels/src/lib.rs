#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "the one crate that may hold it")]
#![deny(clippy::undocumented_unsafe_blocks)]

#[cfg(feature = "flex")]
mod flex;
mod memory;
pub mod plain;

pub use memory::keep_freed_memory;

use std::sync::Arc;

#[cfg(feature = "flex")]
use burn::tensor::Device;
use burn::tensor::{Int, Tensor};

/// Where each position of a batch begins to read: the first position of its own sequence.
///
/// Position `p` of a row reads positions `first ..= p` of that row. In a row that holds one sequence `first` is 0
/// everywhere; in a packed row it is where the position's own sequence starts, so that none sees another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    first: Arc<[usize]>,
    seq: usize,
}

impl Reach {
    /// One sequence in each of `batch` rows of `seq` positions.
    pub fn causal(batch: usize, seq: usize) -> Self {
        Self { first: vec![0; batch * seq].into(), seq }
    }

    /// Rows of several sequences; `first` holds `seq` positions of each row.
    ///
    /// # Panics
    /// If the rows are not whole, or a row's starts are not those of consecutive sequences.
    pub fn packed(first: Vec<usize>, seq: usize) -> Self {
        assert!(seq > 0 && first.len().is_multiple_of(seq), "{} positions are not rows of {seq}", first.len());
        for row in first.chunks_exact(seq) {
            for (position, &start) in row.iter().enumerate() {
                let begins = start == position;
                assert!(begins || position > 0 && start == row[position - 1], "position {position} reads from {start}");
            }
        }
        Self { first: first.into(), seq }
    }

    /// Rows and positions of each.
    pub fn dims(&self) -> [usize; 2] {
        [self.first.len() / self.seq, self.seq]
    }

    /// The first position that each position reads, row after row.
    pub fn first(&self) -> &[usize] {
        &self.first
    }
}

/// The Gaussian error linear unit of each element.
///
/// ```text
/// gelu(x) = x Φ(x) = ½ x (1 + erf(x / √2))
/// ```
///
/// Hendrycks and Gimpel 2016, [arXiv:1606.08415](https://arxiv.org/abs/1606.08415).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::gelu(x);
    }
    plain::gelu(x)
}

/// Rows scaled to mean 0 and variance 1, then by a weight and a bias.
///
/// ```text
/// y = (x − x̄) / √(σ² + ε) · weight + bias
/// ```
///
/// Ba, Kiros and Hinton 2016, [arXiv:1607.06450](https://arxiv.org/abs/1607.06450).
///
/// # Shapes
/// - `x`: `[tokens, d_model]`
/// - `weight`, `bias`: `[d_model]`
/// - returns `[tokens, d_model]`
///
/// # Panics
/// If the shapes disagree.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let [_, d_model] = x.dims();
    assert_eq!((weight.dims(), bias.dims()), ([d_model], [d_model]), "shapes of weight and bias");
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::layer_norm(x, weight, bias, epsilon);
    }
    plain::layer_norm(x, weight, bias, epsilon)
}

/// What each position reads of its sequence up to itself, head by head.
///
/// ```text
/// o = softmax(q kᵀ / √d_head) v        over the positions within reach
/// ```
///
/// Vaswani et al. 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762), eq. 1.
///
/// # Shapes
/// - `qkv`: `[batch, seq, 3 d_model]`, queries, keys and values side by side, each of `heads` heads
/// - returns `[batch, seq, d_model]`
///
/// # Panics
/// If the heads do not divide the width, or the reach is of another batch.
pub fn attention(qkv: Tensor<3>, heads: usize, reach: &Reach) -> Tensor<3> {
    let [batch, seq, width] = qkv.dims();
    assert!(width.is_multiple_of(3 * heads), "{heads} heads do not divide 3 d_model = {width}");
    assert_eq!(reach.dims(), [batch, seq], "the reach of another batch");
    #[cfg(feature = "flex")]
    if is_flex(&qkv.device()) {
        return flex::attention(qkv, heads, reach);
    }
    plain::attention(qkv, heads, reach)
}

/// The log-probability that each position's logits give to its target token, in nats.
///
/// ```text
/// log p(t) = xₜ − ln Σᵢ exp(xᵢ)
/// ```
///
/// # Shapes
/// - `logits`: `[tokens, vocab]`
/// - `targets`: `[tokens]`
/// - returns `[tokens]`
///
/// # Panics
/// If the shapes disagree, or a target is not in the vocabulary.
pub fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [tokens, _] = logits.dims();
    assert_eq!(targets.dims(), [tokens], "shape of `targets`");
    #[cfg(feature = "flex")]
    if is_flex(&logits.device()) {
        return flex::token_log_probs(logits, targets);
    }
    plain::token_log_probs(logits, targets)
}

#[cfg(feature = "flex")]
fn is_flex(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), burn::backend::DispatchDevice::Flex(_))
}
