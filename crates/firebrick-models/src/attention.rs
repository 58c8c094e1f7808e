//! Causal self-attention with several heads.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use firebrick_kernels::{Heads, Reach};
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
            qkv: linear(d_model, 3 * d_model, 1.0, seed.derive("qkv"), device),
            proj: linear(d_model, d_model, residual, seed.derive("proj"), device),
            heads,
        }
    }

    /// Every position reads what it can reach; `keep` sees queries, keys and values, `[batch, seq, 3 d_model]`.
    pub(crate) fn forward(&self, x: Tensor<2>, reach: &Reach, keep: impl FnOnce(&Tensor<3>)) -> Tensor<2> {
        let [tokens, d_model] = x.dims();
        let [batch, seq] = reach.dims();
        let qkv = self.qkv.forward(x).reshape([batch, seq, 3 * d_model]);
        keep(&qkv);
        let read = firebrick_kernels::attention(qkv, Heads::same(self.heads), reach);
        self.proj.forward(read.reshape([tokens, d_model]))
    }

    /// The queries (0), keys (1) or values (2) of `[batch, seq, 3 d_model]`, `[batch, heads, seq, d_head]`.
    pub(crate) fn part(&self, qkv: Tensor<3>, part: usize) -> Tensor<4> {
        let [batch, seq, width] = qkv.dims();
        let d_model = width / 3;
        let part = qkv.slice([0..batch, 0..seq, part * d_model..(part + 1) * d_model]);
        part.reshape([batch, seq, self.heads, d_model / self.heads]).swap_dims(1, 2)
    }

    /// One new token of every sequence reads the cache and itself.
    pub(crate) fn step(&self, x: Tensor<2>, layer: usize, cache: &mut KvCache) -> Tensor<2> {
        let [batch, d_model] = x.dims();
        let qkv = self.qkv.forward(x).reshape([batch, 1, 3 * d_model]);
        let [q, k, v] = [0, 1, 2].map(|part| self.part(qkv.clone(), part));
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
        let scores = (q * (d_head as f64).powf(-0.5)).matmul(k.swap_dims(2, 3)) + bias;
        let read = softmax(scores).matmul(v); // [batch, heads, 1, d_head]
        self.proj.forward(read.reshape([batch, d_model]))
    }
}
