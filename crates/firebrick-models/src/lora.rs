//! Low-rank adapters: a few numbers to train instead of all.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use firebrick_types::Seed;
use serde::{Deserialize, Serialize};

use crate::layers::{Source, normal};

/// Which linear maps of a decoder are adapted, and how.
///
/// Hu et al. 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Columns of `A` and rows of `B`.
    pub rank: usize,
    /// What the adapters add is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Whether the maps of attention are adapted: queries, keys and values together, and the output.
    pub attention: bool,
    /// Whether the maps of the feed-forward layers are.
    pub feed_forward: bool,
}

/// Rank 8, twice as much alpha, every linear map of the blocks.
impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, attention: true, feed_forward: true }
    }
}

/// What is added to a linear map.
///
/// ```text
/// y = x W + b + (α / r) x A B
/// ```
///
/// Hu et al. 2021, section 4.1: `A` begins normal, `B` at 0, so that at first nothing is added.
#[derive(Module, Debug)]
pub(crate) struct Lora {
    /// `[d_input, rank]`
    a: Param<Tensor<2>>,
    /// `[rank, d_output]`
    b: Param<Tensor<2>>,
    scale: f64,
}

impl Lora {
    pub(crate) fn new([d_input, d_output]: [usize; 2], config: &LoraConfig, seed: Seed, device: &Device) -> Self {
        let deviation = 1.0 / (d_input as f64).sqrt();
        Self {
            a: Param::from_tensor(normal([d_input, config.rank], deviation, Source::Drawn(seed), device)),
            b: Param::from_tensor(Tensor::zeros([config.rank, d_output], device)),
            scale: config.alpha / config.rank as f64,
        }
    }

    /// What is added to the result, `[tokens, d_output]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let low = firebrick_kernels::linear(x, self.a.val(), None) * self.scale;
        firebrick_kernels::linear(low, self.b.val(), None)
    }

    /// What is added to the weights, `[d_input, d_output]`.
    pub(crate) fn delta(&self) -> Tensor<2> {
        firebrick_kernels::linear(self.a.val() * self.scale, self.b.val(), None)
    }
}
