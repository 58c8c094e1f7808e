//! One loop for every objective that is a sum over samples.

use burn::module::Module;
use burn::tensor::Tensor;
use firebrick_tensor::Parameters;
use serde::{Deserialize, Serialize};

use crate::gradients::fork;
use crate::{
    AdamW, AdamWConfig, Checkpoint, Checkpoints, Error, Event, Gradients, Observer, Schedule, Values, parallel_fold,
};

/// How [`fit`] optimises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Its factor over samples.
    pub schedule: Schedule,
    /// Gradients longer than this are scaled down to it.
    pub clip_norm: f64,
    /// The optimiser.
    pub adamw: AdamWConfig,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-3, schedule: Schedule::Constant, clip_norm: 1.0, adamw: AdamWConfig::default() }
    }
}

/// What one micro-batch contributes: its share of the loss of the whole batch, and of every metric.
///
/// Shares add up: a mean over the batch is divided by the batch's count, not the micro-batch's, so that cutting a batch
/// otherwise changes nothing but the order of summation.
#[derive(Debug)]
pub struct Loss {
    /// The share of the loss, `[1]`.
    pub share: Tensor<1>,
    /// The tokens read, of which throughput is told.
    pub tokens: u64,
    /// What each micro-batch says of the metrics, by name.
    pub metrics: Vec<(&'static str, Part)>,
}

/// What a micro-batch says of a metric of its batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// A share: those of all micro-batches are added up.
    Share(f64),
    /// An extreme: the greatest counts.
    Greatest(f64),
}

impl Loss {
    /// A share without metrics, of this many tokens.
    pub fn new(share: Tensor<1>, tokens: u64) -> Self {
        Self { share, tokens, metrics: Vec::new() }
    }

    /// With the share of one more metric.
    #[must_use]
    pub fn with(mut self, name: &'static str, share: f64) -> Self {
        self.metrics.push((name, Part::Share(share)));
        self
    }

    /// With one more metric of which the greatest value counts.
    #[must_use]
    pub fn with_greatest(mut self, name: &'static str, value: f64) -> Self {
        self.metrics.push((name, Part::Greatest(value)));
        self
    }
}

/// The summed gradients, metrics (`loss` first) and tokens of micro-batches, computed on the machine's cores and summed in
/// their order.
pub fn gradients_of<M, S>(
    model: &M,
    micro_batches: Vec<S>,
    loss: impl Fn(&M, &S) -> Loss + Sync,
) -> (Gradients, Values, u64)
where
    M: Module + Send,
    S: Send,
{
    let forks = micro_batches.into_iter().map(|micro_batch| (fork(model), micro_batch)).collect();
    let compute = |(model, micro_batch)| {
        let Loss { share, tokens, metrics } = loss(&model, &micro_batch);
        let value = f64::from(share.clone().without_autodiff().into_scalar::<f32>());
        (Gradients::of(&model, &share), value, tokens, metrics)
    };
    let start = (Gradients::default(), vec![("loss".to_owned(), 0.0)], 0);
    parallel_fold(forks, compute, start, |(total, mut values, read), (gradients, share, tokens, metrics)| {
        values[0].1 += share;
        for (name, part) in metrics {
            let known = values.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value);
            match (known, part) {
                (Some(value), Part::Share(share)) => *value += share,
                (Some(value), Part::Greatest(other)) => *value = value.max(other),
                (None, Part::Share(value) | Part::Greatest(value)) => values.push((name.to_owned(), value)),
            }
        }
        (total + gradients, values, read + tokens)
    })
}

/// The model after one pass over `samples` samples, `samples_per_step` of them an optimiser step; the last may have fewer.
///
/// `batch` gives the micro-batches of a step, `loss` their shares. With `checkpoints` the loop goes on from the newest one, to the
/// bits it would have reached without interruption: nothing it computes depends on anything but the step.
///
/// # Errors
/// If a loss or gradient is not finite, a batch cannot be had, a checkpoint cannot be written, or the observer fails.
#[expect(clippy::too_many_arguments, reason = "a loop is named by its parts; a struct would only rename them")]
pub fn fit<M, S>(
    mut model: M,
    config: &FitConfig,
    samples: u64,
    samples_per_step: u64,
    mut checkpoints: Option<&mut Checkpoints>,
    observer: &mut dyn Observer,
    mut batch: impl FnMut(u64) -> Result<Vec<S>, Error>,
    loss: impl Fn(&M, &S) -> Loss + Sync,
) -> Result<M, Error>
where
    M: Module + Send,
    S: Send,
{
    let device = model.devices().into_iter().next().expect("a module has parameters").inner();
    let mut optimizer = AdamW::new(config.adamw);
    let mut start = 0;
    if let Some(checkpoint) = checkpoints.as_deref().map_or(Ok(None), Checkpoints::load::<u64>)? {
        (model, optimizer) = restore(model, &checkpoint, config, &device, checkpoints.as_deref())?;
        start = checkpoint.steps;
    }
    let steps = samples.div_ceil(samples_per_step);
    observer.on(Event::Begin { unit: "tokens", steps, done: start })?;
    for step in start..steps {
        let before = step * samples_per_step;
        let learning_rate = config.learning_rate * config.schedule.factor(before);
        let (gradients, mut values, tokens) = gradients_of(&model, batch(step)?, &loss);
        let norm = gradients.global_norm();
        for (what, value) in [("loss", values[0].1), ("grad_norm", norm)] {
            if !value.is_finite() {
                let checkpoint = checkpoints.as_deref().and_then(Checkpoints::newest);
                return Err(Error::NonFinite { what, value, step, samples: before, checkpoint });
            }
        }
        model = optimizer.step(model, gradients.clip(norm, config.clip_norm), learning_rate);
        values.push(("grad_norm".to_owned(), norm));
        values.push(("lr".to_owned(), learning_rate));
        let seen = samples.min(before + samples_per_step);
        observer.on(Event::Step { done: step + 1, samples: seen, units: tokens, values: &values })?;
        if let Some(checkpoints) = checkpoints.as_deref_mut().filter(|checkpoints| checkpoints.due()) {
            let (optimizer_steps, state) = optimizer.state();
            let tensors = Parameters::default().with("model.", Parameters::trained(&model)).with("adamw.", state);
            checkpoints.save(&Checkpoint { steps: step + 1, tensors, counters: optimizer_steps })?;
        }
    }
    Ok(model)
}

fn restore<M: Module>(
    model: M,
    checkpoint: &Checkpoint<u64>,
    config: &FitConfig,
    device: &burn::tensor::Device,
    checkpoints: Option<&Checkpoints>,
) -> Result<(M, AdamW), Error> {
    let model = checkpoint.tensors.under("model.").load_trained(model).map_err(|error| Error::Damaged {
        path: checkpoints.and_then(Checkpoints::newest).unwrap_or_default(),
        reason: error.to_string(),
    })?;
    let optimizer = AdamW::restore(config.adamw, checkpoint.counters, &checkpoint.tensors.under("adamw."), device);
    Ok((model, optimizer))
}
