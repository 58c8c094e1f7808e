//! The decoder transformer.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Int, Tensor};
use firebrick_kernels::{Chunk, PackedWeight, Precision, Rotary, gelu, gelu_tanh, swiglu};
use firebrick_tensor::{CausalLm, Feed, Incremental, TokenBatch, indices};
use firebrick_types::Seed;

use crate::attention::Attention;
use crate::cache::KvCache;
use crate::config::{DecoderConfig, FeedForward, Positions};
use crate::layers::{Embedding, NormLayer, Projection, Source};
use crate::lora::LoraConfig;

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
    lm_head: Option<Projection>,
    context: usize,
    #[module(skip)]
    angles: Option<Rotary>,
    /// The table of embeddings, where it is the head too.
    #[module(skip)]
    prepacked: Option<PackedWeight>,
    #[module(skip)]
    precision: Precision,
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
    fc: Projection,
    proj: Projection,
    #[module(skip)]
    unit: FeedForward,
}

/// Where in a block a linear map stands.
enum Part<'a> {
    Attention(&'a str),
    FeedForward(&'a str),
}

impl Mlp {
    fn new(config: &DecoderConfig, residual: f64, source: Source, device: &Device) -> Self {
        let DecoderConfig { d_model, d_ff, architecture, .. } = *config;
        let unit = architecture.feed_forward;
        let width = if unit == FeedForward::Swiglu { 2 * d_ff } else { d_ff };
        let bias = architecture.biases.feed_forward;
        Self {
            fc: Projection::new([d_model, width], bias, 1.0, source.derive("fc"), device),
            proj: Projection::new([d_ff, d_model], bias, residual, source.derive("mlp.proj"), device),
            unit,
        }
    }

    fn with_maps(self, mut f: impl FnMut(&str, Projection) -> Projection) -> Self {
        Self { fc: f("mlp.fc", self.fc), proj: f("mlp.proj", self.proj), ..self }
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
    pub(crate) fn new(config: &DecoderConfig, source: Source, device: &Device) -> Self {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }
        let DecoderConfig { vocab, context, n_layer, d_model, architecture, .. } = *config;
        let norm = || NormLayer::new(architecture.norm, d_model, architecture.norm_epsilon, device);
        let residual = 1.0 / (2.0 * n_layer as f64).sqrt();
        let embedded = 0.75 / (d_model as f64).sqrt();
        let block = |layer: usize| {
            let source = source.derive("block").at(&[layer as u64]);
            Block {
                ln_1: norm(),
                attn: Attention::new(config, residual, source.derive("attn"), device),
                ln_2: norm(),
                mlp: Mlp::new(config, residual, source, device),
                parallel: architecture.parallel_residual,
            }
        };
        let (wpe, angles) = match architecture.positions {
            Positions::Learned => {
                (Some(Embedding::new([context, d_model], 0.5 * embedded, source.derive("wpe"), device)), None)
            }
            Positions::Rotary(rotary) => (None, Some(Rotary::new(&rotary.frequencies(), context))),
        };
        let head = || Projection::new([d_model, vocab], false, 1.0, source.derive("lm_head"), device);
        let decoder = Self {
            wte: Embedding::new([vocab, d_model], embedded, source.derive("wte"), device),
            wpe,
            blocks: (0..n_layer).map(block).collect(),
            ln_f: norm(),
            lm_head: (!architecture.tied).then(head),
            context,
            angles,
            prepacked: None,
            precision: Precision::F32,
        };
        decoder.in_precision(architecture.precision)
    }

    /// The same decoder, frozen, with trainable adapters beside its linear maps; at first they add nothing.
    ///
    /// # Panics
    /// If the rank is 0.
    #[must_use]
    pub fn with_lora(self, config: &LoraConfig, seed: Seed) -> Self {
        assert!(config.rank > 0, "adapters of rank 0 add nothing");
        let adapt = |layer: usize, name: &str, map: Projection| {
            map.adapted(config, seed.derive("lora").derive(name).at(&[layer as u64]))
        };
        self.no_grad().with_maps(|layer, part, map| match part {
            Part::Attention(name) if config.attention => adapt(layer, name, map),
            Part::FeedForward(name) if config.feed_forward => adapt(layer, name, map),
            _ => map,
        })
    }

    /// The decoder that this is with its adapters, without them.
    #[must_use]
    pub fn merged(self) -> Self {
        self.with_maps(|_, _, map| map.merged())
    }

    /// The decoder without its adapters: what it was before they were trained. It shares the weights.
    #[must_use]
    pub fn without_lora(&self) -> Self {
        self.clone().with_maps(|_, _, map| map.bare())
    }

    /// The same decoder with its matrices as BF16 in memory: half as large, and not trained themselves.
    ///
    /// Numbers that are BF16 anyway, as many checkpoints' are, stay the same; what is computed is f32.
    #[must_use]
    pub fn half_width(self) -> Self {
        struct Halve;
        impl ModuleMapper for Halve {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                if D == 2 { param.map(|tensor| tensor.cast(DType::BF16).detach()) } else { param }
            }
        }
        self.no_grad().map(&mut Halve)
    }

    /// The same decoder, which rounds the factors of its linear maps, of their gradients and of its logits to this.
    ///
    /// Its weights stay f32, and what is sampled stays what is trained, to the bit.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        let lm_head = self.lm_head.clone().map(|head| head.in_precision(precision));
        let body = self.with_maps(|_, _, map| map.in_precision(precision));
        Self { lm_head, precision, prepacked: None, ..body }
    }

    fn with_maps(self, mut f: impl FnMut(usize, Part<'_>, Projection) -> Projection) -> Self {
        let block = |(layer, block): (usize, Block)| Block {
            attn: block.attn.with_maps(|name, map| f(layer, Part::Attention(name), map)),
            mlp: block.mlp.with_maps(|name, map| f(layer, Part::FeedForward(name), map)),
            ..block
        };
        Self { blocks: self.blocks.into_iter().enumerate().map(block).collect(), ..self }
    }

    /// The width of the residual stream.
    pub fn d_model(&self) -> usize {
        self.wte.weight.dims()[1]
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.wte.weight.device()
    }

    /// The residual stream after the last norm, `[tokens, d_model]`.
    ///
    /// # Panics
    /// If a sequence is longer than the context.
    pub fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        let (starts, positions) = (batch.sequence_starts(), batch.sequence_starts().positions());
        let mut x = self.embed(batch.ids(), &positions);
        for block in &self.blocks {
            x = block.forward(x, |attn, x| attn.forward(x, starts, self.angles.as_ref(), &positions));
        }
        self.ln_f.forward(x)
    }

    /// The logits of hidden states `[tokens, d_model]`, `[tokens, vocab]`.
    pub(crate) fn unembed(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => {
                let table = self.wte.weight.val().transpose();
                match &self.prepacked {
                    Some(prepacked) => prepacked.linear(hidden, table, None),
                    None => firebrick_kernels::linear_in(self.precision, hidden, table, None),
                }
            }
        }
    }

    /// The residual stream before the first block, `[tokens, d_model]`.
    fn embed(&self, ids: Tensor<1, Int>, positions: &[usize]) -> Tensor<2> {
        let context = self.context;
        let last = positions.iter().max().map_or(0, |last| last + 1);
        assert!(last <= context, "a sequence of {last} tokens does not fit the context of {context}");
        let device = ids.device();
        let embedded = self.wte.forward(ids);
        match &self.wpe {
            Some(wpe) => embedded + wpe.forward(indices(positions, &device)),
            None => embedded,
        }
    }
}

impl CausalLm for Decoder {
    fn logits(&self, batch: &TokenBatch) -> Tensor<2> {
        self.unembed(self.hidden(batch))
    }

    fn logits_at(&self, batch: &TokenBatch, places: &[usize]) -> Tensor<2> {
        self.unembed(self.hidden(batch).select(0, indices(places, batch.device())))
    }

    fn vocab(&self) -> usize {
        self.wte.weight.dims()[0]
    }

    fn context(&self) -> usize {
        self.context
    }
}

impl Incremental for Decoder {
    type Cache = KvCache;

    /// It takes twice the memory. The numbers it gives are the same to the bit; once trained further it reads its matrices
    /// themselves again.
    fn prepacked(self) -> Self {
        let tied = self.lm_head.is_none().then(|| self.wte.weight.val().transpose());
        let prepacked = tied.and_then(|table| PackedWeight::of(table, self.precision));
        let lm_head = self.lm_head.clone().map(Projection::prepacked);
        Self { lm_head, prepacked, ..self.with_maps(|_, _, map| map.prepacked()) }
    }

    fn cache(&self, slots: usize, capacity: usize) -> KvCache {
        let (device, capacity) = (self.device(), capacity.min(self.context));
        let layer = |block: &Block| block.attn.cache(slots, capacity, self.d_model(), &device);
        KvCache { layers: self.blocks.iter().map(layer).collect(), lengths: vec![0; slots] }
    }

    fn extend(&self, cache: &mut KvCache, feeds: &[Feed<'_>]) -> Tensor<2> {
        let device = self.device();
        let chunk = |&Feed { slot, tokens }: &Feed<'_>| Chunk {
            slot,
            past: std::mem::replace(&mut cache.lengths[slot], usize::MAX),
            tokens: tokens.len(),
        };
        let chunks = feeds.iter().map(chunk).collect::<Vec<_>>();
        for &Chunk { slot, past, tokens } in &chunks {
            assert!(past < usize::MAX, "slot {slot} is fed twice");
            cache.lengths[slot] = past + tokens;
        }
        let ids = feeds.iter().flat_map(|feed| feed.tokens).map(|&id| id as usize).collect::<Vec<_>>();
        let positions = chunks.iter().flat_map(|chunk| chunk.past..chunk.past + chunk.tokens).collect::<Vec<_>>();
        let mut x = self.embed(indices(&ids, &device), &positions);
        for (block, cache) in self.blocks.iter().zip(&mut cache.layers) {
            x = block.forward(x, |attn, x| attn.extend(x, cache, &chunks, self.angles.as_ref(), &positions));
        }
        if positions.len() > chunks.len() {
            let ends = chunks.iter().scan(0, |end, chunk| {
                *end += chunk.tokens;
                Some(*end - 1)
            });
            x = x.select(0, indices(&ends.collect::<Vec<_>>(), &device));
        }
        self.unembed(self.ln_f.forward(x))
    }

    fn forget(&self, cache: &mut KvCache, slot: usize) {
        cache.lengths[slot] = 0;
    }

    fn copy(&self, cache: &mut KvCache, from: usize, to: usize) {
        let tokens = cache.lengths[from];
        cache.layers.iter_mut().for_each(|layer| layer.copy(from, to, tokens));
        cache.lengths[to] = tokens;
    }
}
