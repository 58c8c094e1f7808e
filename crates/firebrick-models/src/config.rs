//! The shape of a decoder.

use burn::tensor::Device;
use firebrick_types::Seed;
use serde::{Deserialize, Serialize};

use crate::{Decoder, Error, ScoredDecoder};

/// The shape of a [`Decoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        Self { vocab, context, n_layer, d_model, heads: d_model / 64, d_ff: 4 * d_model }
    }

    /// The parameters that the paper counts, without embeddings, norms and biases: 12 n_layer d_model² in the family.
    pub fn non_embedding_parameters(&self) -> usize {
        self.n_layer * (4 * self.d_model * self.d_model + 2 * self.d_model * self.d_ff)
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// If one is zero or the heads do not divide the width.
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
        if !self.d_model.is_multiple_of(self.heads) {
            return Err(Error::Heads { heads: self.heads, d_model: self.d_model });
        }
        Ok(())
    }

    /// A decoder with weights drawn from this seed.
    ///
    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init(&self, seed: Seed, device: &Device) -> Decoder {
        Decoder::new(self, seed, device)
    }

    /// A decoder with a scalar head whose weights are drawn with standard deviation `1/√(d_model + 1)` (T-18).
    ///
    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init_scored(&self, seed: Seed, device: &Device) -> ScoredDecoder {
        ScoredDecoder::from_body(Decoder::new(self, seed, device), seed)
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
    }
}
