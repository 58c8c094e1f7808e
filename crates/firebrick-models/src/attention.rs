//! Causal self-attention with several heads.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use firebrick_tensor::softmax;
use firebrick_types::Seed;

use crate::cache::KvCache;
use crate::layers::linear;

/// What a hidden column adds to an attention score; its probability is then exactly 0.
pub(crate) const HIDDEN: f32 = -1e9;

#[derive(Module, Debug)]
pub(crate) struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

impl Attention {
    pub(crate) fn new(d_model: usize, heads: usize, residual: f64, seed: Seed, device: &Device) -> Self {
        Self {
            qkv: linear(d_model, 3 * d_model, 0.02, seed.derive("qkv"), device),
            proj: linear(d_model, d_model, residual, seed.derive("proj"), device),
            heads,
        }
    }

    /// Queries, keys and values, each `[batch, heads, seq, d_head]`, of `[batch · seq, d_model]`.
    fn split(&self, x: Tensor<2>, batch: usize) -> [Tensor<4>; 3] {
        let [tokens, d_model] = x.dims();
        let (seq, heads) = (tokens / batch, self.heads);
        let qkv = self.qkv.forward(x);
        [0, 1, 2].map(|part| {
            qkv.clone()
                .slice([0..tokens, part * d_model..(part + 1) * d_model])
                .reshape([batch, seq, heads, d_model / heads])
                .swap_dims(1, 2)
        })
    }

    /// What the queries read: `softmax(q kᵀ/√d_head + bias) v`, merged to `[batch · seq, d_model]` and projected.
    fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Tensor<4>) -> Tensor<2> {
        let [batch, heads, seq, d_head] = q.dims();
        let scores = (q * (d_head as f64).powf(-0.5)).matmul(k.swap_dims(2, 3)) + bias;
        let read = softmax(scores).matmul(v); // [batch, heads, seq, d_head]
        self.proj.forward(read.swap_dims(1, 2).reshape([batch * seq, heads * d_head]))
    }

    /// Every position reads itself and those before it; also returns keys and values.
    pub(crate) fn forward(&self, x: Tensor<2>, batch: usize, bias: Tensor<4>) -> (Tensor<2>, Tensor<4>, Tensor<4>) {
        let [q, k, v] = self.split(x, batch);
        (self.attend(q, k.clone(), v.clone(), bias), k, v)
    }

    /// One new token of every sequence reads the cache and itself.
    pub(crate) fn step(&self, x: Tensor<2>, layer: usize, cache: &mut KvCache) -> Tensor<2> {
        let [batch, _] = x.dims();
        let [q, k, v] = self.split(x, batch);
        let [_, heads, _, d_head] = k.dims();
        let column = cache.column;
        let put = |kept: &mut Tensor<4>, new: Tensor<4>| {
            // Taken out first, so that the cache is written in place.
            let whole = std::mem::replace(kept, Tensor::empty([1, 1, 1, 1], &new.device()));
            *kept = whole.slice_assign([0..batch, 0..heads, column..column + 1, 0..d_head], new);
            kept.clone().slice([0..batch, 0..heads, 0..column + 1, 0..d_head])
        };
        let k = put(&mut cache.keys[layer], k);
        let v = put(&mut cache.values[layer], v);
        let bias = cache.bias.clone().slice([0..batch, 0..1, 0..1, 0..column + 1]);
        self.attend(q, k, v, bias)
    }
}
