//! The shape of a decoder.

use burn::tensor::Device;
use firebrick_kernels::{Heads, Precision};
use firebrick_types::Seed;
use serde::{Deserialize, Serialize};

use crate::layers::Source;
use crate::{Decoder, Error, ScoredDecoder};

/// The longest context, in tokens: tables of positions are made for all of it.
const LONGEST: usize = 1 << 20;

/// The shape of a [`Decoder`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Blocks.
    pub n_layer: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads; they divide `d_model`.
    pub heads: usize,
    /// Width inside the feed-forward part.
    pub d_ff: usize,
    /// What the blocks are made of.
    pub architecture: Architecture,
}

/// What the blocks of a [`Decoder`] are made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Heads of keys and of values; they divide `heads`. None is as many as of queries.
    pub key_value_heads: Option<usize>,
    /// How a token knows its place.
    pub positions: Positions,
    /// How the residual stream is scaled before it is read.
    pub norm: Norm,
    /// Added to the variance or the mean square.
    pub norm_epsilon: f64,
    /// The unit inside the feed-forward part.
    pub feed_forward: FeedForward,
    /// Whether attention and feed-forward part read the same stream, rather than one after the other.
    pub parallel_residual: bool,
    /// Which linear maps add a bias.
    pub biases: Biases,
    /// Whether the output is the transposed input embedding.
    pub tied: bool,
    /// What linear maps, their gradients and the logits round their factors to, in training as in sampling. Folders of other programs do
    /// not tell it.
    #[serde(default, skip_serializing_if = "is_f32")]
    pub precision: Precision,
}

/// Whether nothing is rounded: what folders need not tell.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_f32(precision: &Precision) -> bool {
    *precision == Precision::F32
}

/// How a token knows its place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A learned vector of each place.
    Learned,
    /// Queries and keys are turned.
    Rotary(RotaryConfig),
}

/// How queries and keys are turned.
///
/// ```text
/// frequencyᵢ = theta^(−2i / dims)        i < dims / 2
/// ```
///
/// Su et al. 2021, [arXiv:2104.09864](https://arxiv.org/abs/2104.09864), section 3.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotaryConfig {
    /// The base.
    pub theta: f64,
    /// Numbers of a head that are turned; even.
    pub dims: usize,
    /// How the frequencies were changed for longer contexts.
    pub scaling: RotaryScaling,
}

/// How frequencies were changed for longer contexts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotaryScaling {
    /// Not at all.
    None,
    /// Every frequency is divided by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Frequencies whose wave is longer than `original_context / low` are divided by the factor, those whose wave is shorter than
    /// `original_context / high` are kept, and those between are a mixture (Llama 3.1).
    Llama3 {
        /// The factor.
        factor: f64,
        /// Waves of the original context below which the factor holds.
        low: f64,
        /// Waves of the original context above which nothing changes.
        high: f64,
        /// The context of pretraining.
        original_context: usize,
    },
}

impl RotaryScaling {
    /// How frequencies were changed that are divided by these factors, one a pair, as GGUF files tell it; none where no way gives them.
    ///
    /// Several numbers of `Llama3` give the same factors. Those of the published models, `low` 1 and `high` 4, are preferred.
    pub(crate) fn of_factors(theta: f64, factors: &[f64]) -> Option<Self> {
        /// Factors are kept as `f32`, with a relative rounding of 2⁻²⁴ each.
        const TOLERANCE: f64 = 1e-5;
        let plain = RotaryConfig { theta, dims: 2 * factors.len(), scaling: Self::None };
        let frequencies = plain.frequencies();
        let gives = |scaling: &Self| {
            let scaled = RotaryConfig { scaling: *scaling, ..plain }.frequencies();
            let pairs = scaled.iter().zip(&frequencies).zip(factors);
            pairs.into_iter().all(|((scaled, plain), factor)| (scaled * factor / plain - 1.0).abs() <= TOLERANCE)
        };
        let &factor = factors.last()?;
        let simple = [Self::None, Self::Linear { factor }];
        if let Some(scaling) = simple.into_iter().find(gives) {
            return Some(scaling);
        }
        // What is kept of each frequency beside its stretched one, a straight line of the waves that a token has of it, but for the
        // ends, where it is 1 and 0.
        let waves = frequencies.iter().map(|frequency| frequency / std::f64::consts::TAU);
        let kept = factors.iter().map(|each| (1.0 / each - 1.0 / factor) / (1.0 - 1.0 / factor));
        let points = waves.zip(kept).collect::<Vec<_>>();
        let inside = |&(_, kept): &(f64, f64)| kept > TOLERANCE && kept < 1.0 - TOLERANCE;
        let published = points.iter().filter(|point| inside(point)).map(|(waves, kept)| {
            let original_context = ((1.0 + 3.0 * kept) / waves).round() as usize;
            Self::Llama3 { factor, low: 1.0, high: 4.0, original_context }
        });
        let first = points.iter().rposition(|&(_, kept)| kept >= 1.0 - TOLERANCE).unwrap_or(0);
        let last = points.iter().position(|&(_, kept)| kept <= TOLERANCE)?;
        let line = &points[first.min(last)..=last];
        let through = line.iter().enumerate().flat_map(|(index, a)| line[index + 1..].iter().map(move |b| (a, b)));
        let general = through.map(|(&(waves_a, kept_a), &(waves_b, kept_b))| {
            const ORIGINAL_CONTEXT: usize = 8192;
            let between = ORIGINAL_CONTEXT as f64 * (waves_a - waves_b) / (kept_a - kept_b);
            let low = ORIGINAL_CONTEXT as f64 * waves_a - kept_a * between;
            Self::Llama3 { factor, low, high: low + between, original_context: ORIGINAL_CONTEXT }
        });
        published.chain(general).find(gives)
    }
}

impl RotaryConfig {
    /// The angle that each pair is turned by, from one position to the next.
    pub fn frequencies(&self) -> Vec<f64> {
        let scaled = |frequency: f64| match self.scaling {
            RotaryScaling::None => frequency,
            RotaryScaling::Linear { factor } => frequency / factor,
            RotaryScaling::Llama3 { factor, low, high, original_context } => {
                let waves = original_context as f64 * frequency / std::f64::consts::TAU;
                let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
                kept * frequency + (1.0 - kept) * frequency / factor
            }
        };
        (0..self.dims / 2).map(|pair| scaled(self.theta.powf(-2.0 * pair as f64 / self.dims as f64))).collect()
    }
}

/// How the residual stream is scaled before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// To mean 0 and variance 1.
    Layer,
    /// To root mean square 1.
    Rms,
}

/// The unit inside the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForward {
    /// The Gaussian error linear unit.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    /// A gated unit.
    Swiglu,
}

/// Which linear maps add a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Biases {
    /// To queries, keys and values.
    pub qkv: bool,
    /// To what attention has read.
    pub attention: bool,
    /// Into and out of the feed-forward part.
    pub feed_forward: bool,
}

impl Architecture {
    /// GPT-2's, which the papers follow, with the unit itself for its approximation.
    pub fn gpt() -> Self {
        Self {
            key_value_heads: None,
            positions: Positions::Learned,
            norm: Norm::Layer,
            norm_epsilon: 1e-5,
            feed_forward: FeedForward::Gelu,
            parallel_residual: false,
            biases: Biases { qkv: true, attention: true, feed_forward: true },
            tied: true,
            precision: Precision::F32,
        }
    }

    /// Llama's: RMS norm, rotary positions over whole heads of `d_head`, gated units, no biases.
    pub fn llama(d_head: usize) -> Self {
        Self {
            positions: Positions::Rotary(RotaryConfig { theta: 10_000.0, dims: d_head, scaling: RotaryScaling::None }),
            norm: Norm::Rms,
            feed_forward: FeedForward::Swiglu,
            biases: Biases { qkv: false, attention: false, feed_forward: false },
            tied: false,
            ..Self::gpt()
        }
    }
}

impl DecoderConfig {
    /// The papers' family: fixed aspect ratio, one free number.
    ///
    /// ```text
    /// d_model = 128 n_layer     d_ff = 4 d_model     N = 12 n_layer d_model²
    /// ```
    ///
    /// Askell et al. 2021, §1.2 and table 1. Spec: A-01. Heads of 64 are our choice; the paper states none.
    pub fn family(n_layer: usize, context: usize, vocab: usize) -> Self {
        let d_model = 128 * n_layer;
        let architecture = Architecture::gpt();
        Self { vocab, context, n_layer, d_model, heads: d_model / 64, d_ff: 4 * d_model, architecture }
    }

    /// Heads of queries, and of keys and values.
    pub fn heads(&self) -> Heads {
        Heads { query: self.heads, key_value: self.architecture.key_value_heads.unwrap_or(self.heads) }
    }

    /// The width of a head.
    pub fn d_head(&self) -> usize {
        self.d_model / self.heads
    }

    /// The parameters that the paper counts, without embeddings, norms and biases: 12 n_layer d_model² in the family.
    pub fn non_embedding_parameters(&self) -> usize {
        self.n_layer * (4 * self.d_model * self.d_model + 2 * self.d_model * self.d_ff)
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// If one is zero, the context is longer than 2²⁰ tokens, the heads do not divide the width or each other, or what is turned is odd or wider than a head.
    pub fn validate(&self) -> Result<(), Error> {
        let numbers = [
            ("vocab", self.vocab),
            ("context", self.context),
            ("n_layer", self.n_layer),
            ("d_model", self.d_model),
            ("heads", self.heads),
            ("d_ff", self.d_ff),
        ];
        if let Some((key, _)) = numbers.into_iter().find(|&(_, number)| number == 0) {
            return Err(Error::Zero { key });
        }
        if self.context > LONGEST {
            return Err(Error::Context { context: self.context, longest: LONGEST });
        }
        if !self.d_model.is_multiple_of(self.heads) {
            return Err(Error::Heads { heads: self.heads, d_model: self.d_model });
        }
        let key_value = self.heads().key_value;
        if key_value == 0 || !self.heads.is_multiple_of(key_value) {
            return Err(Error::KeyValueHeads { key_value_heads: key_value, heads: self.heads });
        }
        if let Positions::Rotary(RotaryConfig { dims, .. }) = self.architecture.positions
            && (dims == 0 || !dims.is_multiple_of(2) || dims > self.d_head())
        {
            return Err(Error::RotaryDims { dims, d_head: self.d_head() });
        }
        Ok(())
    }

    /// A decoder with weights drawn from this seed.
    ///
    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init(&self, seed: Seed, device: &Device) -> Decoder {
        Decoder::new(self, Source::Drawn(seed), device)
    }

    /// A decoder with weights of 0, for those of a file.
    pub(crate) fn blank(&self, device: &Device) -> Decoder {
        Decoder::new(self, Source::Zero, device)
    }

    /// A decoder with a scalar head whose weights are drawn with standard deviation `1/√(d_model + 1)` (T-18).
    ///
    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init_scored(&self, seed: Seed, device: &Device) -> ScoredDecoder {
        ScoredDecoder::from_body(self.init(seed, device), seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 1 of the paper: layers, width, parameters.
    #[test]
    fn the_family_is_the_papers_table() {
        let table = [
            (4, 512, 12_582_912),
            (6, 768, 42_467_328),
            (10, 1280, 196_608_000),
            (16, 2048, 805_306_368),
            (24, 3072, 2_717_908_992),
            (40, 5120, 12_582_912_000_usize),
            (64, 8192, 51_539_607_552),
        ];
        for (n_layer, d_model, parameters) in table {
            let config = DecoderConfig::family(n_layer, 8192, 65_536);
            assert_eq!((config.d_model, config.d_ff), (d_model, 4 * d_model));
            assert_eq!(config.non_embedding_parameters(), parameters);
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_named() {
        let config = DecoderConfig { heads: 3, ..DecoderConfig::family(1, 8, 8) };
        let message = config.validate().unwrap_err().to_string();
        assert_eq!(message, "`heads` = 3 does not divide `d_model` = 128; choose a divisor");
        let config = DecoderConfig { vocab: 0, ..DecoderConfig::family(1, 8, 8) };
        assert_eq!(config.validate().unwrap_err().to_string(), "`vocab` is 0; it must be at least 1");
        let mut config = DecoderConfig::family(1, 8, 8);
        config.architecture.key_value_heads = Some(3);
        let message = config.validate().unwrap_err().to_string();
        assert_eq!(message, "`key_value_heads` = 3 does not divide `heads` = 2; choose a divisor");
        config.architecture = Architecture::llama(65);
        let message = config.validate().unwrap_err().to_string();
        assert_eq!(message, "rotary `dims` = 65 must be even, at least 2 and at most the width of a head, 64");
    }

    /// Llama 3.1's 8 billion parameters: theta 500000, 128 numbers a head, factor 8, low 1, high 4, context 8192.
    #[test]
    fn llama3_scaling_keeps_short_waves_and_stretches_long_ones() {
        let scaling = RotaryScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192 };
        let plain = RotaryConfig { theta: 500_000.0, dims: 128, scaling: RotaryScaling::None };
        let (plain, scaled) = (plain.frequencies(), RotaryConfig { scaling, ..plain }.frequencies());
        assert_eq!(plain[0], 1.0);
        for (plain, scaled) in plain.iter().zip(&scaled) {
            let wave = std::f64::consts::TAU / plain;
            let ratio = plain / scaled;
            match wave {
                _ if wave < 2048.0 => assert_eq!(ratio, 1.0),
                _ if wave > 8192.0 => assert!((ratio - 8.0).abs() < 1e-12),
                _ => assert!(ratio > 1.0 && ratio < 8.0),
            }
        }
        let linear = RotaryConfig { theta: 100.0, dims: 4, scaling: RotaryScaling::Linear { factor: 2.0 } };
        assert_eq!(linear.frequencies(), [0.5, 0.05]);
    }

    /// Factors of Llama 3's kind, whatever their numbers, are given by some numbers of that kind; others are not.
    #[test]
    fn factors_are_told_by_what_gives_them() {
        let factors = |rotary: RotaryConfig| {
            let plain = RotaryConfig { scaling: RotaryScaling::None, ..rotary }.frequencies();
            // As a file keeps them.
            let factors =
                plain.iter().zip(rotary.frequencies()).map(|(plain, scaled)| f64::from((plain / scaled) as f32));
            factors.collect::<Vec<_>>()
        };
        for (theta, dims) in [(500_000.0, 128), (500_000.0, 64), (10_000.0, 8), (10_000.0, 4)] {
            for (factor, low, high, original_context) in [
                (8.0, 1.0, 4.0, 8192),
                (32.0, 1.0, 4.0, 8192),
                (8.0, 1.0, 4.0, 16),
                (4.0, 2.0, 3.0, 700),
                (8.0, 0.5, 40.0, 100),
            ] {
                let rotary = |scaling| RotaryConfig { theta, dims, scaling };
                let scaling = RotaryScaling::Llama3 { factor, low, high, original_context };
                let given = factors(rotary(scaling));
                let found = RotaryScaling::of_factors(theta, &given).expect("they are of that kind");
                for (found, expected) in rotary(found).frequencies().iter().zip(rotary(scaling).frequencies()) {
                    assert!(
                        (found / expected - 1.0).abs() < 2e-5,
                        "{theta} {dims} {scaling:?}: {found} for {expected}"
                    );
                }
                if (high, dims) == (4.0, 128) {
                    assert_eq!(found, RotaryScaling::Llama3 { factor, low, high, original_context });
                }
            }
        }
        assert_eq!(RotaryScaling::of_factors(1e4, &[1.0; 4]), Some(RotaryScaling::None));
        assert_eq!(RotaryScaling::of_factors(1e4, &[2.5; 4]), Some(RotaryScaling::Linear { factor: 2.5 }));
        for strange in [&[1.0, 3.0, 2.0, 4.0][..], &[1.0, 2.0, 4.0, 8.0], &[1.0, f64::NAN], &[0.0, 1.0], &[]] {
            assert_eq!(RotaryScaling::of_factors(1e4, strange), None, "{strange:?}");
        }
    }

    #[test]
    fn only_a_precision_that_rounds_is_written_down() {
        let config = DecoderConfig::family(1, 8, 8);
        let plain = serde_json::to_string(&config).unwrap();
        assert!(!plain.contains("precision"), "{plain}");
        assert_eq!(serde_json::from_str::<DecoderConfig>(&plain).unwrap(), config);
        let architecture = Architecture { precision: Precision::Bf16, ..config.architecture };
        let rounding = DecoderConfig { architecture, ..config };
        let written = serde_json::to_string(&rounding).unwrap();
        assert!(written.contains("\"precision\":\"bf16\""), "{written}");
        assert_eq!(serde_json::from_str::<DecoderConfig>(&written).unwrap(), rounding);
    }
}
