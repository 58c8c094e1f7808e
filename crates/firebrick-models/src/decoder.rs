//! The decoder transformer.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_kernels::{Reach, gelu};
use firebrick_tensor::{CausalLm, Incremental, PackedBatch, PackedLm, TokenBatch};
use firebrick_types::Seed;

use crate::DecoderConfig;
use crate::attention::{Attention, HIDDEN};
use crate::cache::KvCache;
use crate::layers::{LayerNorm, embedding, linear};

/// A decoder-only transformer: pre-norm blocks, GELU, learned positions, the output tied to the input embedding.
///
/// The papers state layers, widths, context and vocabulary; the rest follows GPT-2, which they follow.
/// Fields are named after GPT-2's checkpoints.
#[derive(Module, Debug)]
pub struct Decoder {
    wte: Embedding,
    wpe: Embedding,
    blocks: Vec<Block>,
    ln_f: LayerNorm,
}

#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Mlp {
    fc: Linear,
    proj: Linear,
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.proj.forward(gelu(self.fc.forward(x)))
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
        let DecoderConfig { vocab, context, n_layer, d_model, heads, d_ff } = *config;
        let residual = 1.0 / (2.0 * n_layer as f64).sqrt();
        let embedded = 0.75 / (d_model as f64).sqrt();
        let block = |layer: usize| {
            let seed = seed.derive("block").at(&[layer as u64]);
            Block {
                ln_1: LayerNorm::new(d_model, device),
                attn: Attention::new(d_model, heads, residual, seed.derive("attn"), device),
                ln_2: LayerNorm::new(d_model, device),
                mlp: Mlp {
                    fc: linear(d_model, d_ff, 1.0, seed.derive("fc"), device),
                    proj: linear(d_ff, d_model, residual, seed.derive("mlp.proj"), device),
                },
            }
        };
        Self {
            wte: embedding(vocab, d_model, embedded, seed.derive("wte"), device),
            wpe: embedding(context, d_model, 0.5 * embedded, seed.derive("wpe"), device),
            blocks: (0..n_layer).map(block).collect(),
            ln_f: LayerNorm::new(d_model, device),
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
        hidden.matmul(self.wte.weight.val().transpose())
    }

    /// One causal pass, `[batch · seq, d_model]`; `keep` sees each layer's queries, keys and values.
    fn read(&self, ids: Tensor<2, Int>, keep: impl FnMut(usize, &Tensor<3>)) -> Tensor<2> {
        let [batch, seq] = ids.dims();
        let context = self.context();
        assert!(seq <= context, "a sequence of {seq} tokens does not fit the context of {context}");
        let positions = self.wpe.weight.val().slice([0..seq, 0..self.d_model()]).unsqueeze::<3>();
        self.blocks(ids, positions, &Reach::causal(batch, seq), keep)
    }

    /// The blocks over ids at these positions `[1 or batch, seq, d_model]`.
    fn blocks(
        &self,
        ids: Tensor<2, Int>,
        positions: Tensor<3>,
        reach: &Reach,
        mut keep: impl FnMut(usize, &Tensor<3>),
    ) -> Tensor<2> {
        let [batch, seq] = ids.dims();
        let mut x = (self.wte.forward(ids) + positions).reshape([batch * seq, self.d_model()]);
        for (layer, block) in self.blocks.iter().enumerate() {
            x = x.clone() + block.attn.forward(block.ln_1.forward(x), reach, |qkv| keep(layer, qkv));
            x = x.clone() + block.mlp.forward(block.ln_2.forward(x));
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
        self.wpe.weight.dims()[0]
    }
}

impl PackedLm for Decoder {
    fn packed_logits(&self, packed: &PackedBatch) -> Tensor<3> {
        let [batch, seq] = packed.ids().dims();
        let positions = self.wpe.forward(packed.positions().clone());
        let hidden = self.blocks(packed.ids().clone(), positions, packed.reach(), |_, _| ());
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
        let positions = cache.lengths.iter().map(|&length| length as i64).collect::<Vec<_>>();
        let positions = Tensor::<1, Int>::from_data(TensorData::new(positions, [batch]), &self.device());
        let mut x = self.wte.forward(ids.reshape([batch, 1])).reshape([batch, d_model])
            + self.wpe.weight.val().select(0, positions);
        for (layer, block) in self.blocks.iter().enumerate() {
            x = x.clone() + block.attn.step(block.ln_1.forward(x), layer, cache);
            x = x.clone() + block.mlp.forward(block.ln_2.forward(x));
        }
        cache.column += 1;
        cache.lengths.iter_mut().for_each(|length| *length += 1);
        self.unembed(self.ln_f.forward(x))
    }

    fn retain(&self, rows: &[usize], cache: &mut KvCache) {
        cache.keep(rows);
    }
}
