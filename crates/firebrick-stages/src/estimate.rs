//! What a run will take, before it is begun: memory and time, from the shape of the models alone.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use firebrick_models::{DecoderConfig, FeedForward, LoraConfig, Positions};
use firebrick_tensor::Workers;

/// A model, and how much of it is trained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    parameters: f64,
    trained: f64,
    /// Numbers that a pass keeps for its gradients, of each token.
    kept: f64,
}

impl Load {
    /// A model that is trained: whole, or by adapters.
    pub(crate) fn trained(config: &DecoderConfig, lora: Option<LoraConfig>) -> Self {
        let frozen = Self::frozen(config);
        let DecoderConfig { n_layer, d_model, d_ff, .. } = *config;
        let trained = match lora {
            None => frozen.parameters,
            // Inputs plus outputs of the maps of a block: queries, keys and values; output; up; down.
            Some(lora) => (lora.rank * n_layer * (6 * d_model + 2 * (d_model + d_ff))) as f64,
        };
        // Of each block: inputs and results of its norms and maps. Logits and what their loss keeps.
        let kept = (n_layer * (9 * d_model + 3 * d_ff) + 2 * config.vocab) as f64;
        Self { trained, kept, ..frozen }
    }

    /// A model that only reads.
    pub(crate) fn frozen(config: &DecoderConfig) -> Self {
        let DecoderConfig { vocab, context, n_layer, d_model, d_ff, .. } = *config;
        let heads = config.heads();
        let attention = 2 * d_model * config.d_head() * (heads.query + heads.key_value);
        let maps = if config.architecture.feed_forward == FeedForward::Swiglu { 3 } else { 2 };
        let tables = if config.architecture.tied { 1 } else { 2 };
        let positions = if config.architecture.positions == Positions::Learned { context * d_model } else { 0 };
        let parameters = n_layer * (attention + maps * d_model * d_ff) + tables * vocab * d_model + positions;
        Self { parameters: parameters as f64, trained: 0.0, kept: 0.0 }
    }

    /// Floating-point operations of a forward pass over a token: two for each parameter.
    fn forward(&self) -> f64 {
        2.0 * self.parameters
    }

    /// Those of a forward and a backward pass: gradients of what is trained, and of what each map reads.
    fn forward_and_backward(&self) -> f64 {
        4.0 * self.parameters + 2.0 * self.trained
    }

    /// Bytes of weights, and of gradients and two moments of what is trained.
    fn bytes(&self) -> f64 {
        4.0 * self.parameters + 12.0 * self.trained
    }
}

/// What a stage does at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Floating-point operations.
    flops: f64,
    /// Bytes of its models.
    models: f64,
    /// Bytes that passes keep for their gradients.
    passes: f64,
}

impl Work {
    /// Passes of a model over sequences, at most `length` tokens each.
    pub(crate) fn training(load: &Load, sequences: usize, length: usize, micro_batch: usize, workers: usize) -> Self {
        Self {
            flops: load.forward_and_backward() * (sequences * length) as f64,
            models: load.bytes(),
            passes: 4.0 * load.kept * (micro_batch * length * workers) as f64,
        }
    }

    /// A model reads sequences.
    pub(crate) fn reading(load: &Load, sequences: usize, length: usize) -> Self {
        Self { flops: load.forward() * (sequences * length) as f64, models: load.bytes(), passes: 0.0 }
    }

    /// Both, with all models at once.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            flops: self.flops + other.flops,
            models: self.models + other.models,
            passes: self.passes.max(other.passes),
        }
    }

    /// One after the other: time adds up, memory is the larger one's.
    pub(crate) fn then(self, other: Self) -> Self {
        let larger = if self.models + self.passes > other.models + other.passes { &self } else { &other };
        Self { flops: self.flops + other.flops, models: larger.models, passes: larger.passes }
    }

    /// It in lines for a plan; how fast this machine computes is measured for a moment.
    pub(crate) fn lines(&self, of: &str) -> Vec<String> {
        let rate = flops_per_second(&Workers::default());
        let gib = |bytes: f64| bytes / f64::from(1 << 30);
        let seconds = self.flops / rate;
        let time = match seconds {
            seconds if seconds < 90.0 => format!("{seconds:.0} s"),
            seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
            seconds => format!("{:.1} h", seconds / 3600.0),
        };
        vec![
            format!(
                "memory: about {:.1} GiB: {:.1} of weights, gradients and moments, {:.1} of passes",
                gib(self.models + self.passes),
                gib(self.models),
                gib(self.passes)
            ),
            format!(
                "time: at most about {time} of {of}, if every row fills the context ({:.0} GFLOP/s measured here)",
                rate / 1e9
            ),
        ]
    }
}

/// How fast all workers multiply matrices of the size of a small model's, in operations a second.
fn flops_per_second(workers: &Workers) -> f64 {
    const SIDE: usize = 512;
    let device = Device::flex();
    let square = || Tensor::<2>::random([SIDE, SIDE], Distribution::Default, &device);
    let inputs = (0..workers.count()).map(|_| (square(), square())).collect::<Vec<_>>();
    let count = |(x, weight): (Tensor<2>, Tensor<2>)| {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < Duration::from_millis(150) {
            let _ = firebrick_kernels::linear(x.clone(), weight.clone(), None).into_data();
            done += 1;
        }
        f64::from(done) * 2.0 * (SIDE as f64).powi(3) / start.elapsed().as_secs_f64()
    };
    workers.map(inputs, count).into_iter().sum()
}

#[cfg(test)]
mod tests {
    use firebrick_models::Architecture;

    use super::*;

    #[test]
    fn parameters_are_those_of_the_shape() {
        // GPT-2 small without biases and norms: 12 blocks of 12 d², the embedding and the positions.
        let config = DecoderConfig {
            vocab: 50257,
            context: 1024,
            n_layer: 12,
            d_model: 768,
            heads: 12,
            d_ff: 3072,
            architecture: Architecture::gpt(),
        };
        let load = Load::frozen(&config);
        let tables = if config.architecture.tied { 1.0 } else { 2.0 };
        assert_eq!(load.parameters, 12.0 * 12.0 * 768.0 * 768.0 + (tables * 50257.0 + 1024.0) * 768.0);
        let whole = Load::trained(&config, None);
        assert_eq!((whole.bytes(), whole.forward_and_backward()), (16.0 * whole.parameters, 6.0 * whole.parameters));
        let adapted = Load::trained(&config, Some(LoraConfig { rank: 8, ..LoraConfig::default() }));
        assert!(adapted.trained < 0.02 * adapted.parameters);
    }

    #[test]
    fn what_follows_needs_the_larger_memory_and_both_times() {
        let config = DecoderConfig::family(2, 64, 300);
        let (trained, frozen) = (Load::trained(&config, None), Load::frozen(&config));
        let first = Work::training(&trained, 10, 64, 2, 1);
        let both = first.clone().then(Work::reading(&frozen, 10, 64));
        assert_eq!(both.models, first.models);
        assert!(both.flops > first.flops);
        assert_eq!(first.clone().and(Work::reading(&frozen, 10, 64)).models, trained.bytes() + frozen.bytes());
        assert!(first.lines("training")[0].starts_with("memory: about "));
    }
}
