#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "the one crate that may hold it")]
#![deny(clippy::undocumented_unsafe_blocks)]

mod cache;
#[cfg(feature = "flex")]
mod flex;
mod images;
mod memory;
pub mod plain;
mod prepacked;

pub use cache::{Chunk, KeyValues};
pub use images::{Window, avg_pool2d, conv2d, conv2d_adjoint, conv2d_in, max_pool2d, soft_unpool};
pub use memory::keep_freed_memory;
pub use prepacked::Prepacked;

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

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

    /// Each position's place in its own sequence, row after row.
    pub fn positions(&self) -> Vec<usize> {
        self.first.iter().enumerate().map(|(index, first)| index % self.seq - first).collect()
    }

    /// The first position that each position reads, row after row.
    pub fn first(&self) -> &[usize] {
        &self.first
    }
}

/// How many heads ask, and how many answer: with fewer keys and values than queries, neighbouring queries share them.
///
/// Ainslie et al. 2023, [arXiv:2305.13245](https://arxiv.org/abs/2305.13245).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads of queries.
    pub query: usize,
    /// Heads of keys, and as many of values; they divide those of queries.
    pub key_value: usize,
}

impl Heads {
    /// As many heads of keys and values as of queries.
    pub fn same(heads: usize) -> Self {
        Self { query: heads, key_value: heads }
    }

    /// Heads of queries, keys and values together.
    pub fn all(&self) -> usize {
        self.query + 2 * self.key_value
    }
}

/// Angles by position: the first `2 half` numbers of a head are turned in pairs `(i, half + i)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// `[positions, half]`
    cos: Arc<[f32]>,
    /// `[positions, half]`
    sin: Arc<[f32]>,
    half: usize,
}

impl Rotary {
    /// The angles of this many positions.
    ///
    /// ```text
    /// angle(position, i) = position · frequencyᵢ
    /// ```
    ///
    /// Su et al. 2021, [arXiv:2104.09864](https://arxiv.org/abs/2104.09864), eq. 15.
    ///
    /// # Panics
    /// If there is no frequency.
    pub fn new(frequencies: &[f64], positions: usize) -> Self {
        assert!(!frequencies.is_empty(), "rotary positions need at least one frequency");
        let angles = (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        let table = |f: fn(f64) -> f64| angles.clone().map(|angle| f(angle) as f32).collect();
        Self { cos: table(f64::cos), sin: table(f64::sin), half: frequencies.len() }
    }

    /// Pairs that are turned.
    pub fn half(&self) -> usize {
        self.half
    }

    fn cos(&self, position: usize) -> &[f32] {
        &self.cos[position * self.half..][..self.half]
    }

    fn sin(&self, position: usize) -> &[f32] {
        &self.sin[position * self.half..][..self.half]
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

/// The Gaussian error linear unit as GPT-2 approximates it.
///
/// ```text
/// gelu(x) ≈ ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
/// ```
///
/// Hendrycks and Gimpel 2016, [arXiv:1606.08415](https://arxiv.org/abs/1606.08415), section 2.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::gelu_tanh(x);
    }
    plain::gelu_tanh(x)
}

/// The gated unit of each pair of elements: gates in the first half of a row, what they let through in the second.
///
/// ```text
/// swiglu(a, b) = a σ(a) b
/// ```
///
/// Shazeer 2020, [arXiv:2002.05202](https://arxiv.org/abs/2002.05202), eq. 6.
///
/// # Shapes
/// - `x`: `[tokens, 2 d_ff]`
/// - returns `[tokens, d_ff]`
///
/// # Panics
/// If the width is odd.
pub fn swiglu(x: Tensor<2>) -> Tensor<2> {
    let [_, width] = x.dims();
    assert!(width.is_multiple_of(2), "a width of {width} has no halves");
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::swiglu(x);
    }
    plain::swiglu(x)
}

/// A linear map of each row.
///
/// ```text
/// y = x W + b
/// ```
///
/// The weights may be BF16 in memory, where they are not trained; what is computed is f32, as if they had been widened first.
///
/// # Shapes
/// - `x`: `[tokens, d_input]`
/// - `weight`: `[d_input, d_output]`
/// - `bias`: `[d_output]`
/// - returns `[tokens, d_output]`
///
/// # Panics
/// If the shapes disagree.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let ([_, d_input], [rows, d_output]) = (x.dims(), weight.dims());
    assert_eq!(d_input, rows, "shapes of x and weight");
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [d_output], "shape of the bias");
    }
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::linear(x, weight, bias, Precision::F32);
    }
    plain::linear(x, weight, bias)
}

/// What the factors of a product are rounded to before they are multiplied; it is summed in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To BF16: eight bits of a number count. Faster where the processor has a matrix unit (Intel's AMX) or, as AMD's have, AVX-512's BF16; slower elsewhere.
    Bf16,
}

impl Precision {
    /// BF16 on a processor that has instructions for it, f32 elsewhere: for numbers that are uncertain by more than is rounded off.
    pub fn fastest(device: &Device) -> Self {
        #[cfg(feature = "flex")]
        if is_flex(device) && flex::has_bf16() {
            return Self::Bf16;
        }
        _ = device;
        Self::F32
    }
}

/// [`linear`] with its factors rounded, and those of its gradients likewise.
///
/// ```text
/// y = bf16(x) bf16(W) + b        dx = bf16(g) bf16(W)ᵀ        dW = bf16(x)ᵀ bf16(g)
/// ```
///
/// The result is the same to the bit in every batch, as of [`linear`]. Processors with a matrix unit (Intel's AMX) sum in another order than
/// the others, which agree to the bit.
///
/// Micikevicius et al. 2018, [arXiv:1710.03740](https://arxiv.org/abs/1710.03740), section 3: weights are kept in f32.
///
/// # Panics
/// If the shapes disagree.
pub fn linear_in(precision: Precision, x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    if precision == Precision::F32 {
        return linear(x, weight, bias);
    }
    assert_eq!(x.dims()[1], weight.dims()[0], "shapes of x and weight");
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::linear(x, weight, bias, precision);
    }
    plain::linear_bf16(x, weight, bias)
}

/// Rows scaled to root mean square 1, then by a weight.
///
/// ```text
/// y = x / √(mean(x²) + ε) · weight
/// ```
///
/// Zhang and Sennrich 2019, [arXiv:1910.07467](https://arxiv.org/abs/1910.07467), eq. 4.
///
/// # Shapes
/// - `x`: `[tokens, d_model]`
/// - `weight`: `[d_model]`
/// - returns `[tokens, d_model]`
///
/// # Panics
/// If the shapes disagree.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let [_, d_model] = x.dims();
    assert_eq!(weight.dims(), [d_model], "shape of the weight");
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::rms_norm(x, weight, epsilon);
    }
    plain::rms_norm(x, weight, epsilon)
}

/// Queries and keys turned by the angles of their positions; values as they are.
///
/// ```text
/// (a, b) → (a cos θ − b sin θ, b cos θ + a sin θ)
/// ```
///
/// Su et al. 2021, [arXiv:2104.09864](https://arxiv.org/abs/2104.09864), eq. 34.
///
/// # Shapes
/// - `qkv`: `[batch, seq, width]`, queries, keys and values of all heads side by side
/// - `positions`: one of each token, row after row
/// - returns `[batch, seq, width]`
///
/// # Panics
/// If the heads do not divide the width, a head is narrower than what is turned, or a position is not in the table.
pub fn rotary(qkv: Tensor<3>, heads: Heads, rotary: &Rotary, positions: &[usize]) -> Tensor<3> {
    let [batch, seq, width] = qkv.dims();
    assert!(width.is_multiple_of(heads.all()), "{} heads do not divide a width of {width}", heads.all());
    assert!(
        2 * rotary.half <= width / heads.all(),
        "heads of {} are narrower than what is turned",
        width / heads.all()
    );
    assert_eq!(positions.len(), batch * seq, "one position of each token");
    #[cfg(feature = "flex")]
    if is_flex(&qkv.device()) {
        return flex::rotary(qkv, heads, rotary, positions);
    }
    plain::rotary(qkv, heads, rotary, positions)
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
/// - `qkv`: `[batch, seq, heads.all() d_head]`, queries, keys and values of all heads side by side
/// - returns `[batch, seq, heads.query d_head]`
///
/// # Panics
/// If the heads do not divide the width or each other, or the reach is of another batch.
pub fn attention(qkv: Tensor<3>, heads: Heads, reach: &Reach) -> Tensor<3> {
    let [batch, seq, width] = qkv.dims();
    assert!(width.is_multiple_of(heads.all()), "{} heads do not divide a width of {width}", heads.all());
    assert!(heads.query.is_multiple_of(heads.key_value), "{heads:?}: the second must divide the first");
    assert_eq!(reach.dims(), [batch, seq], "the reach of another batch");
    #[cfg(feature = "flex")]
    if is_flex(&qkv.device()) {
        return flex::attention(qkv, heads, reach);
    }
    plain::attention(qkv, heads, reach)
}

/// What new tokens read of their sequences up to themselves, head by head; the cache keeps their keys and values.
///
/// The same numbers as [`attention`] over the whole sequences gives them; with the feature `flex`, the same bits.
///
/// # Shapes
/// - `qkv`: `[tokens, heads.all() d_head]`, the new tokens of one chunk after another
/// - returns `[tokens, heads.query d_head]`
///
/// # Panics
/// If the heads do not divide the width or each other, the chunks are of other tokens, a chunk is empty, or the cache has no
/// such slot or no room.
pub fn attention_cached(qkv: Tensor<2>, heads: Heads, cache: &mut KeyValues, chunks: &[Chunk]) -> Tensor<2> {
    let [tokens, width] = qkv.dims();
    assert!(width.is_multiple_of(heads.all()), "{} heads do not divide a width of {width}", heads.all());
    assert!(heads.query.is_multiple_of(heads.key_value), "{heads:?}: the second must divide the first");
    assert_eq!(chunks.iter().map(|chunk| chunk.tokens).sum::<usize>(), tokens, "tokens of the chunks");
    assert!(chunks.iter().all(|chunk| chunk.tokens > 0), "a chunk is empty");
    cache.attention(qkv, heads, chunks)
}

/// The greater of each element and 0.
pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::relu(x);
    }
    plain::relu(x)
}

/// The mean and the variance of [rectified](relu) normal numbers, of their own.
///
/// ```text
/// α = μ / σ
/// m = μ Φ(α) + σ φ(α)
/// v = (μ² + σ²) Φ(α) + μ σ φ(α) − m²
/// ```
///
/// Without variance the number itself, rectified. With the feature `flex` and where no gradient is asked for Φ is within 10⁻⁷.
///
/// # Panics
/// If the shapes disagree.
pub fn rectified_moments<const D: usize>(mean: Tensor<D>, variance: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    assert_eq!(mean.dims(), variance.dims(), "one variance of each mean");
    #[cfg(feature = "flex")]
    if is_flex(&mean.device()) && !mean.is_autodiff() && !variance.is_autodiff() {
        return flex::rectified_moments(mean, variance);
    }
    plain::rectified_moments(mean, variance)
}

/// The rows of a table at these indices.
///
/// # Shapes
/// - `table`: `[entries, width]`
/// - `indices`: `[tokens]`
/// - returns `[tokens, width]`
///
/// # Panics
/// If an index is not in the table.
pub fn embedding(table: Tensor<2>, indices: Tensor<1, Int>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if is_flex(&table.device()) {
        return flex::embedding(table, indices);
    }
    plain::embedding(table, indices)
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

/// The weights that tokens are drawn with, the greatest 1 where `most` is the greatest logit; in memory of the processor.
///
/// ```text
/// wᵢ = exp((xᵢ − most) / temperature)
/// ```
///
/// # Panics
/// If the temperature is not positive.
pub fn boltzmann(logits: &[f32], most: f32, temperature: f64) -> Vec<f64> {
    assert!(temperature > 0.0, "a temperature of {temperature}");
    #[cfg(feature = "flex")]
    {
        let mut weights = vec![0.0; logits.len()];
        flex::vector::boltzmann(logits, most.into(), temperature, &mut weights);
        weights
    }
    #[cfg(not(feature = "flex"))]
    plain::boltzmann(logits, most, temperature)
}

/// The greatest of some numbers, −∞ of none; what is not a number does not count.
pub fn greatest(numbers: &[f32]) -> f32 {
    #[cfg(feature = "flex")]
    return flex::vector::greatest_of(numbers);
    #[cfg(not(feature = "flex"))]
    plain::greatest(numbers)
}

/// The numbers of one step of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// β₁, the decay of the mean.
    pub beta_1: f64,
    /// β₂, the decay of the mean square.
    pub beta_2: f64,
    /// What is left of the weights before the step: 1 − η λ.
    pub kept: f64,
    /// The factor of the mean: η / (1 − β₁ᵗ).
    pub mean_factor: f64,
    /// The factor of the root of the mean square: 1 / √(1 − β₂ᵗ).
    pub root_factor: f64,
    /// ε, added to the denominator.
    pub epsilon: f64,
}

/// Weights, mean and mean square after one step of AdamW; nothing flows back.
///
/// ```text
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// w ← kept w − mean_factor m / (root_factor √v + ε)
/// ```
///
/// Loshchilov and Hutter 2019, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101), algorithm 2.
///
/// # Shapes
/// - all: `[parameters]`
///
/// # Panics
/// If the shapes disagree.
pub fn adamw(
    weights: Tensor<1>,
    gradient: Tensor<1>,
    mean: Tensor<1>,
    square: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let [parameters] = weights.dims();
    for (name, tensor) in [("gradient", &gradient), ("mean", &mean), ("mean square", &square)] {
        assert_eq!(tensor.dims(), [parameters], "shape of the {name}");
    }
    #[cfg(feature = "flex")]
    if is_flex(&weights.device()) {
        return flex::adamw(weights, gradient, mean, square, step);
    }
    plain::adamw(weights, gradient, mean, square, step)
}

/// The sum of the squares of all elements, `[1]`; nothing flows back.
pub fn square_sum(x: Tensor<1>) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::square_sum(x);
    }
    plain::square_sum(x)
}

#[cfg(feature = "flex")]
fn is_flex(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), burn::backend::DispatchDevice::Flex(_))
}
