//! A generative model of a classifier's activations.

mod belief;
mod decoder;
mod files;
mod network;
mod prior;

use burn::tensor::Tensor;

pub use belief::{Belief, Level, Upward};
pub(super) use decoder::NormalEquations;
pub(crate) use decoder::patches;
pub use decoder::{Decoder, DecoderMode};
pub(super) use network::Block;
pub use network::Network;
use prior::Screen;
pub(crate) use prior::fit as fit_prior;
pub use prior::{Component, Posterior, PriorConfig};

use crate::pooling::unwindow;

/// A generative model of a classifier's activations, from its classes down to the pixels.
///
/// ```text
/// y ~ Cat(1/K)                 z ~ N(0, I)
/// x, aᴸ | y, z ~ N(μ_y + U_y z, diag ψ_y)          pixels and top activations: one of y's components
/// sˡ | y ~ Cat(ρˡ_y)                               which pixel of each window of the pool won
/// aˡ⁻¹ | aˡ, sˡ ~ N(φ(Vˡ * unpool(aˡ, sˡ) + cˡ), diag τˡ⁻¹)
/// ```
///
/// The factors z are read from the seen pixels directly, exactly and in one solve, as if the way down were linear; what they say of the
/// top activations is then rendered through the decoders, whose switches and rectifiers are not.
#[derive(Clone, Debug)]
pub struct GenerativeModel {
    pub(crate) network: Network,
    /// Of each block, what it reads from what it gives.
    pub(crate) decoders: Vec<Decoder>,
    pub(crate) prior: Vec<Component>,
    /// ρ of each block: `[classes, height, width, channels, pool²]`.
    pub(crate) switches: Vec<Tensor<5>>,
    /// Their logarithms, laid out as the images.
    pub(crate) log_switches: Vec<Tensor<4>>,
    /// What a pixel is believed to be before it is seen, `[1, height, width, channels]`.
    pub(crate) pixels: Belief,
    /// Which components are worth being asked about pixels.
    pub(crate) screen: Screen,
}

impl GenerativeModel {
    /// The model of these parts.
    pub(crate) fn of(
        network: Network,
        decoders: Vec<Decoder>,
        prior: Vec<Component>,
        switches: Vec<Tensor<5>>,
        pixels: Belief,
    ) -> Self {
        let as_images = |(block, rho): (&Block, &Tensor<5>)| unwindow(rho.clone().log(), block.pool);
        let log_switches = network.blocks.iter().zip(&switches).map(as_images).collect();
        let screen = Screen::of(&prior, network.image().iter().product());
        Self { network, decoders, prior, switches, log_switches, pixels, screen }
    }

    /// The classifier, in blocks.
    pub fn network(&self) -> &Network {
        &self.network
    }
}
