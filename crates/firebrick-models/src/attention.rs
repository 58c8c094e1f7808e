//! Causal self-attention with several heads.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_kernels::{Chunk, Heads, KeyValues, Rotary, SequenceStarts};

use crate::config::{Biases, DecoderConfig};
use crate::layers::{Projection, Source};

#[derive(Module, Debug)]
pub(crate) struct Attention {
    qkv: Projection,
    proj: Projection,
    heads: usize,
    key_value_heads: usize,
}

impl Attention {
    pub(crate) fn new(config: &DecoderConfig, residual: f64, source: Source, device: &Device) -> Self {
        let (d_model, heads) = (config.d_model, config.heads());
        let Biases { qkv, attention, .. } = config.architecture.biases;
        let width = heads.all() * config.d_head();
        Self {
            qkv: Projection::new([d_model, width], qkv, 1.0, source.derive("qkv"), device),
            proj: Projection::new([d_model, d_model], attention, residual, source.derive("proj"), device),
            heads: heads.query,
            key_value_heads: heads.key_value,
        }
    }

    /// The same with each map made anew; the name tells which it is.
    pub(crate) fn with_maps(self, mut f: impl FnMut(&str, Projection) -> Projection) -> Self {
        Self { qkv: f("qkv", self.qkv), proj: f("proj", self.proj), ..self }
    }

    fn heads(&self) -> Heads {
        Heads { query: self.heads, key_value: self.key_value_heads }
    }

    /// An empty cache of as many slots with room for so many tokens each.
    pub(crate) fn cache(&self, slots: usize, capacity: usize, d_model: usize, device: &Device) -> KeyValues {
        KeyValues::new(slots, capacity, self.key_value_heads, d_model / self.heads, device)
    }

    /// Every position reads what stands before it in its sequence, `[batch · seq, d_model]`.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        starts: &SequenceStarts,
        angles: Option<&Rotary>,
        positions: &[usize],
    ) -> Tensor<2> {
        let [batch, seq] = starts.dims();
        let qkv = self.asked(x, angles, positions);
        let [tokens, width] = qkv.dims();
        let read = firebrick_kernels::attention(qkv.reshape([batch, seq, width]), self.heads(), starts);
        let [_, _, read_width] = read.dims();
        self.proj.forward(read.reshape([tokens, read_width]))
    }

    /// New tokens of some sequences read the cache and each other.
    pub(crate) fn extend(
        &self,
        x: Tensor<2>,
        cache: &mut KeyValues,
        chunks: &[Chunk],
        angles: Option<&Rotary>,
        positions: &[usize],
    ) -> Tensor<2> {
        let qkv = self.asked(x, angles, positions);
        self.proj.forward(firebrick_kernels::attention_cached(qkv, self.heads(), cache, chunks))
    }

    /// Queries, keys and values of each token, turned by the angles of these positions.
    fn asked(&self, x: Tensor<2>, angles: Option<&Rotary>, positions: &[usize]) -> Tensor<2> {
        let qkv = self.qkv.forward(x);
        match angles {
            Some(angles) => {
                let [tokens, width] = qkv.dims();
                let turned = firebrick_kernels::rotary(qkv.unsqueeze::<3>(), self.heads(), angles, positions);
                turned.reshape([tokens, width])
            }
            None => qkv,
        }
    }
}
