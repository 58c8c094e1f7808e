//! A decoder with a scalar head.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_kernels::Precision;
use firebrick_tensor::{CausalLm, ScoringLm, SequenceScorer, TokenBatch, TokenValues, indices};
use firebrick_types::Seed;

use crate::layers::{Projection, Source};
use crate::{Decoder, LoraConfig};

/// A [`Decoder`] with a linear head of one output: a preference model where it is read at the last token, a
/// critic where it is read everywhere (M-02).
#[derive(Module, Debug)]
pub struct ScoredDecoder {
    body: Decoder,
    head: Projection,
}

impl ScoredDecoder {
    /// This body with a new head, its weights drawn with standard deviation `1/√(d_model + 1)`, its bias 0 (T-18).
    pub fn from_body(body: Decoder, seed: Seed) -> Self {
        let d_model = body.d_model();
        let gain = (d_model as f64 / (d_model as f64 + 1.0)).sqrt();
        let head = Projection::new([d_model, 1], true, gain, Source::Drawn(seed.derive("head")), &body.device());
        Self { body, head }
    }

    /// The same model with its decoder frozen and [adapted](Decoder::with_lora); the head is trained as it is.
    #[must_use]
    pub fn with_lora(self, config: &LoraConfig, seed: Seed) -> Self {
        Self { body: self.body.with_lora(config, seed), ..self }
    }

    /// The model that this is with its adapters, without them.
    #[must_use]
    pub fn merged(self) -> Self {
        Self { body: self.body.merged(), ..self }
    }

    /// The same model with the matrices of its decoder [as BF16 in memory](Decoder::half_width); its head is trained as it is.
    #[must_use]
    pub fn half_width(self) -> Self {
        Self { body: self.body.half_width(), ..self }
    }

    /// The same model, the linear maps of whose decoder [round their factors](Decoder::in_precision).
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { body: self.body.in_precision(precision), ..self }
    }

    /// The decoder without its head.
    pub fn body(&self) -> &Decoder {
        &self.body
    }

    /// The same model with a head that gives 0 everywhere: how a critic may begin (T-18).
    #[must_use]
    pub fn with_zero_head(self) -> Self {
        let head = Projection::zero([self.body.d_model(), 1], &self.body.device());
        Self { head, ..self }
    }

    /// The same model, whose scores are less by what its head adds to each of them: as a preference model it prefers the same (T-25).
    ///
    /// The loss of a comparison does not depend on that number, but rounding leaves it a gradient that is not quite 0, which Adam makes
    /// steps of.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self { head: self.head.without_bias(), ..self }
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.body.device()
    }

    fn read_out(&self, hidden: Tensor<2>, batch: &TokenBatch) -> Tensor<1> {
        let last = indices(&batch.last(), batch.device());
        self.head.forward(hidden.select(0, last)).flatten(0, 1)
    }
}

impl SequenceScorer for ScoredDecoder {
    fn scores(&self, batch: &TokenBatch) -> Tensor<1> {
        self.read_out(self.body.hidden(batch), batch)
    }

    fn context(&self) -> usize {
        self.body.context()
    }
}

impl ScoringLm for ScoredDecoder {
    fn scores_and_logits(&self, batch: &TokenBatch, positions: &[usize]) -> (Tensor<1>, Tensor<2>) {
        let hidden = self.body.hidden(batch);
        let predicting = hidden.clone().select(0, indices(positions, batch.device()));
        (self.read_out(hidden, batch), self.body.unembed(predicting))
    }
}

impl TokenValues for ScoredDecoder {
    fn values(&self, batch: &TokenBatch) -> Tensor<1> {
        self.head.forward(self.body.hidden(batch)).flatten(0, 1)
    }
}
