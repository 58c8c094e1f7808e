//! Causal self-attention with several heads.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use firebrick_kernels::{Heads, Reach, Rotary};
use firebrick_tensor::softmax;
use firebrick_types::Seed;

use crate::cache::KvCache;
use crate::config::{Biases, DecoderConfig};
use crate::layers::linear;

/// What a hidden column adds to an attention score; its probability is then exactly 0.
pub(crate) const HIDDEN: f32 = -1e9;

#[derive(Module, Debug)]
pub(crate) struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
    key_value_heads: usize,
}

impl Attention {
    pub(crate) fn new(config: &DecoderConfig, residual: f64, seed: Seed, device: &Device) -> Self {
        let (d_model, heads) = (config.d_model, config.heads());
        let Biases { qkv, attention, .. } = config.architecture.biases;
        let width = heads.all() * config.d_head();
        Self {
            qkv: linear([d_model, width], qkv, 1.0, seed.derive("qkv"), device),
            proj: linear([d_model, d_model], attention, residual, seed.derive("proj"), device),
            heads: heads.query,
            key_value_heads: heads.key_value,
        }
    }

    fn heads(&self) -> Heads {
        Heads { query: self.heads, key_value: self.key_value_heads }
    }

    /// Queries, keys and values of each token, `[batch, seq, width]`, turned by the angles of these positions.
    fn asked(&self, x: Tensor<2>, [batch, seq]: [usize; 2], angles: Option<&Rotary>, positions: &[usize]) -> Tensor<3> {
        let qkv = self.qkv.forward(x);
        let [_, width] = qkv.dims();
        let qkv = qkv.reshape([batch, seq, width]);
        match angles {
            Some(angles) => firebrick_kernels::rotary(qkv, self.heads(), angles, positions),
            None => qkv,
        }
    }

    /// Every position reads what it can reach; `keep` sees queries, keys and values, `[batch, seq, width]`.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        reach: &Reach,
        angles: Option<&Rotary>,
        positions: &[usize],
        keep: impl FnOnce(&Tensor<3>),
    ) -> Tensor<2> {
        let [tokens, d_model] = x.dims();
        let qkv = self.asked(x, reach.dims(), angles, positions);
        keep(&qkv);
        let read = firebrick_kernels::attention(qkv, self.heads(), reach);
        self.proj.forward(read.reshape([tokens, d_model]))
    }

    /// The queries (0), keys (1) or values (2) of `[batch, seq, width]`, `[batch, heads, seq, d_head]`.
    pub(crate) fn part(&self, qkv: Tensor<3>, part: usize) -> Tensor<4> {
        let [batch, seq, width] = qkv.dims();
        let Heads { query, key_value } = self.heads();
        let d_head = width / self.heads().all();
        let (from, heads) = [(0, query), (query, key_value), (query + key_value, key_value)][part];
        let part = qkv.slice([0..batch, 0..seq, from * d_head..(from + heads) * d_head]);
        part.reshape([batch, seq, heads, d_head]).swap_dims(1, 2)
    }

    /// One new token of every sequence reads the cache and itself.
    pub(crate) fn step(&self, x: Tensor<2>, layer: usize, angles: Option<&Rotary>, cache: &mut KvCache) -> Tensor<2> {
        let [batch, d_model] = x.dims();
        let qkv = self.asked(x, [batch, 1], angles, &cache.lengths);
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
        // Queries that share a head of keys and values stand together, [batch, key_value_heads, shared, d_head].
        let q = q.reshape([batch, heads, self.heads / heads, d_head]);
        let scores = (q * (d_head as f64).powf(-0.5)).matmul(k.swap_dims(2, 3)) + bias;
        let read = softmax(scores).matmul(v);
        self.proj.forward(read.reshape([batch, d_model]))
    }
}
