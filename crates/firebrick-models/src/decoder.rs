//! The decoder transformer.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_kernels::{Reach, Rotary, gelu, gelu_tanh, swiglu};
use firebrick_tensor::{CausalLm, Incremental, PackedBatch, PackedLm, TokenBatch};
use firebrick_types::Seed;

use crate::attention::{Attention, HIDDEN};
use crate::cache::KvCache;
use crate::config::{DecoderConfig, FeedForward, Positions};
use crate::layers::{NormLayer, embedding, linear};

/// A decoder-only transformer of pre-norm blocks; the [`Architecture`](crate::Architecture) says what they are made of.
///
/// The papers state layers, widths, context and vocabulary; the rest follows GPT-2, which they follow.
/// Fields are named after GPT-2's checkpoints.
#[derive(Module, Debug)]
pub struct Decoder {
    wte: Embedding,
    wpe: Option<Embedding>,
    blocks: Vec<Block>,
    ln_f: NormLayer,
    lm_head: Option<Linear>,
    context: usize,
    #[module(skip)]
    angles: Option<Rotary>,
}

#[derive(Module, Debug)]
struct Block {
    ln_1: NormLayer,
    attn: Attention,
    ln_2: NormLayer,
    mlp: Mlp,
    parallel: bool,
}

impl Block {
    /// The stream after this block; `attend` is its attention, over a sequence or over a cache.
    fn forward(&self, x: Tensor<2>, attend: impl FnOnce(&Attention, Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let read = attend(&self.attn, self.ln_1.forward(x.clone()));
        if self.parallel {
            let thought = self.mlp.forward(self.ln_2.forward(x.clone()));
            return x + read + thought;
        }
        let x = x + read;
        x.clone() + self.mlp.forward(self.ln_2.forward(x))
    }
}

#[derive(Module, Debug)]
struct Mlp {
    /// With a gated unit, gates and what they let through side by side.
    fc: Linear,
    proj: Linear,
    #[module(skip)]
    unit: FeedForward,
}

impl Mlp {
    fn new(config: &DecoderConfig, residual: f64, seed: Seed, device: &Device) -> Self {
        let DecoderConfig { d_model, d_ff, architecture, .. } = *config;
        let unit = architecture.feed_forward;
        let width = if unit == FeedForward::Swiglu { 2 * d_ff } else { d_ff };
        let bias = architecture.biases.feed_forward;
        Self {
            fc: linear([d_model, width], bias, 1.0, seed.derive("fc"), device),
            proj: linear([d_ff, d_model], bias, residual, seed.derive("mlp.proj"), device),
            unit,
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.fc.forward(x);
        self.proj.forward(match self.unit {
            FeedForward::Gelu => gelu(x),
            FeedForward::GeluTanh => gelu_tanh(x),
            FeedForward::Swiglu => swiglu(x),
        })
    }
}

impl Decoder {
    /// Normal weights of standard deviation `1/√d_input`, those that write into the residual stream smaller by
    /// `√(2 n_layer)`; embeddings of `¾/√d_model`, positions of half of that.
    ///
    /// GPT-2's 0.02 is about this at its width; a narrow model that starts with it learns far more slowly.
    pub(crate) fn new(config: &DecoderConfig, seed: Seed, device: &Device) -> Self {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }
        let DecoderConfig { vocab, context, n_layer, d_model, architecture, .. } = *config;
        let norm = || NormLayer::new(architecture.norm, d_model, architecture.norm_epsilon, device);
        let residual = 1.0 / (2.0 * n_layer as f64).sqrt();
        let embedded = 0.75 / (d_model as f64).sqrt();
        let block = |layer: usize| {
            let seed = seed.derive("block").at(&[layer as u64]);
            Block {
                ln_1: norm(),
                attn: Attention::new(config, residual, seed.derive("attn"), device),
                ln_2: norm(),
                mlp: Mlp::new(config, residual, seed, device),
                parallel: architecture.parallel_residual,
            }
        };
        let (wpe, angles) = match architecture.positions {
            Positions::Learned => (Some(embedding(context, d_model, 0.5 * embedded, seed.derive("wpe"), device)), None),
            Positions::Rotary(rotary) => (None, Some(Rotary::new(&rotary.frequencies(), context))),
        };
        let head = || linear([d_model, vocab], false, 1.0, seed.derive("lm_head"), device);
        Self {
            wte: embedding(vocab, d_model, embedded, seed.derive("wte"), device),
            wpe,
            blocks: (0..n_layer).map(block).collect(),
            ln_f: norm(),
            lm_head: (!architecture.tied).then(head),
            context,
            angles,
        }
    }

    /// The width of the residual stream.
    pub fn d_model(&self) -> usize {
        self.wte.weight.dims()[1]
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.wte.weight.device()
    }

    /// The residual stream after the last norm, `[batch, seq, d_model]`, of ids `[batch, seq]`.
    ///
    /// # Panics
    /// If the sequence is longer than the context.
    pub fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        self.read(ids, |_, _| ()).reshape([batch, seq, self.d_model()])
    }

    /// The logits of hidden states `[tokens, d_model]`, `[tokens, vocab]`.
    pub(crate) fn unembed(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => hidden.matmul(self.wte.weight.val().transpose()),
        }
    }

    /// One causal pass, `[batch · seq, d_model]`; `keep` sees each layer's queries, keys and values.
    fn read(&self, ids: Tensor<2, Int>, keep: impl FnMut(usize, &Tensor<3>)) -> Tensor<2> {
        let [batch, seq] = ids.dims();
        let context = self.context;
        assert!(seq <= context, "a sequence of {seq} tokens does not fit the context of {context}");
        let embedded = self.wte.forward(ids);
        let embedded = match &self.wpe {
            Some(wpe) => embedded + wpe.weight.val().slice([0..seq, 0..self.d_model()]).unsqueeze::<3>(),
            None => embedded,
        };
        self.blocks(embedded, &Reach::causal(batch, seq), keep)
    }

    /// The blocks over embedded tokens `[batch, seq, d_model]`.
    fn blocks(&self, embedded: Tensor<3>, reach: &Reach, mut keep: impl FnMut(usize, &Tensor<3>)) -> Tensor<2> {
        let [batch, seq, d_model] = embedded.dims();
        let angles = self.angles.as_ref();
        let positions = angles.map(|_| reach.positions()).unwrap_or_default();
        let mut x = embedded.reshape([batch * seq, d_model]);
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, |attn, x| attn.forward(x, reach, angles, &positions, |qkv| keep(layer, qkv)));
        }
        self.ln_f.forward(x)
    }
}

impl CausalLm for Decoder {
    fn logits(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let hidden = self.read(ids, |_, _| ());
        self.unembed(hidden).reshape([batch, seq, self.vocab()])
    }

    fn vocab(&self) -> usize {
        self.wte.weight.dims()[0]
    }

    fn context(&self) -> usize {
        self.context
    }
}

impl PackedLm for Decoder {
    fn packed_logits(&self, packed: &PackedBatch) -> Tensor<3> {
        let [batch, seq] = packed.ids().dims();
        let embedded = self.wte.forward(packed.ids().clone());
        let embedded = match &self.wpe {
            Some(wpe) => embedded + wpe.forward(packed.positions().clone()),
            None => embedded,
        };
        let hidden = self.blocks(embedded, packed.reach(), |_, _| ());
        self.unembed(hidden).reshape([batch, seq, self.vocab()])
    }
}

impl Incremental for Decoder {
    type Cache = KvCache;

    fn prefill(&self, prompts: &TokenBatch, new_tokens: usize) -> (Tensor<2>, KvCache) {
        let [batch, seq] = prompts.dims();
        let capacity = seq + new_tokens;
        let d_model = self.d_model();
        let device = self.device();
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let roomy = |tensor: Tensor<4>| {
            let [batch, heads, seq, d_head] = tensor.dims();
            Tensor::zeros([batch, heads, capacity, d_head], &device)
                .slice_assign([0..batch, 0..heads, 0..seq, 0..d_head], tensor)
        };
        let hidden = self.read(prompts.ids().clone(), |layer, qkv| {
            let [k, v] = [1, 2].map(|part| self.blocks[layer].attn.part(qkv.clone(), part));
            keys.push(roomy(k));
            values.push(roomy(v));
        });
        let bias = prompts
            .lengths()
            .iter()
            .flat_map(|&length| {
                (0..capacity).map(move |column| if column < length || column >= seq { 0.0 } else { HIDDEN })
            })
            .collect::<Vec<f32>>();
        let last = prompts.lengths().iter().enumerate().map(|(row, length)| (row * seq + length - 1) as i64);
        let last = Tensor::<1, Int>::from_data(TensorData::new(last.collect::<Vec<_>>(), [batch]), &device);
        let logits = self.unembed(hidden.reshape([batch * seq, d_model]).select(0, last));
        let cache = KvCache {
            keys,
            values,
            bias: Tensor::from_data(TensorData::new(bias, [batch, 1, 1, capacity]), &device),
            column: seq,
            lengths: prompts.lengths().to_vec(),
        };
        (logits, cache)
    }

    fn step(&self, ids: Tensor<1, Int>, cache: &mut KvCache) -> Tensor<2> {
        let [batch] = ids.dims();
        let d_model = self.d_model();
        let mut x = self.wte.forward(ids.reshape([batch, 1])).reshape([batch, d_model]);
        if let Some(wpe) = &self.wpe {
            let positions = cache.lengths.iter().map(|&length| length as i64).collect::<Vec<_>>();
            let positions = Tensor::<1, Int>::from_data(TensorData::new(positions, [batch]), &self.device());
            x = x + wpe.weight.val().select(0, positions);
        }
        let angles = self.angles.as_ref();
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, |attn, x| attn.step(x, layer, angles, cache));
        }
        cache.column += 1;
        cache.lengths.iter_mut().for_each(|length| *length += 1);
        self.unembed(self.ln_f.forward(x))
    }

    fn retain(&self, rows: &[usize], cache: &mut KvCache) {
        cache.keep(rows);
    }
}
