//! One loop for every objective that is a sum over samples.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::Tensor;
use firebrick_tensor::Workers;
use serde::{Deserialize, Serialize};
use tracing::debug_span;

use crate::gradients::fork;
use crate::{AdamWConfig, Error, Gradients, Learner, Run, Schedule, Step, Values};

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

/// How samples are read by a loop that passes over them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passes {
    /// Samples of one optimiser step.
    pub batch_size: usize,
    /// Samples computed at a time: changes memory and speed, and the results only by the order of summation.
    pub micro_batch_size: usize,
    /// How often all samples are read.
    pub passes: usize,
    /// The optimiser; its schedule counts samples.
    pub fit: FitConfig,
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
    /// What was read, in the unit of [`Samples`], of which throughput is told.
    pub units: u64,
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
    /// A share without metrics, of this many units.
    pub fn new(share: Tensor<1>, units: u64) -> Self {
        Self { share, units, metrics: Vec::new() }
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

/// The summed gradients, metrics (`loss` first) and units of micro-batches, computed by the workers and summed in their order.
pub fn gradients_of<M, S>(
    model: &M,
    micro_batches: Vec<S>,
    workers: &Workers,
    loss: impl Fn(&M, &S) -> Loss + Sync,
) -> (Gradients, Values, u64)
where
    M: Module + Send,
    S: Send,
{
    let forks = micro_batches.into_iter().map(|micro_batch| (fork(model), micro_batch)).collect();
    let compute = |(model, micro_batch)| {
        let Loss { share, units, metrics } = loss(&model, &micro_batch);
        let value = f64::from(share.clone().without_autodiff().into_scalar::<f32>());
        (Gradients::of(&model, &share), value, units, metrics)
    };
    let start = (Gradients::default(), vec![("loss".to_owned(), 0.0)], 0);
    workers.fold(forks, compute, start, |(total, mut values, read), (gradients, share, units, metrics)| {
        values[0].1 += share;
        for (name, part) in metrics {
            let known = values.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value);
            match (known, part) {
                (Some(value), Part::Share(share)) => *value += share,
                (Some(value), Part::Greatest(other)) => *value = value.max(other),
                (None, Part::Share(value) | Part::Greatest(value)) => values.push((name.to_owned(), value)),
            }
        }
        (total + gradients, values, read + units)
    })
}

/// The samples that a loop takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Samples {
    /// In all, every pass counted.
    pub count: u64,
    /// Of one optimiser step; the last may have fewer.
    pub per_step: u64,
    /// What throughput is told in, for instance `tokens`.
    pub unit: &'static str,
}

/// The model after all its samples, so many of them an optimiser step.
///
/// `batch` gives the micro-batches of the samples at some places, `loss` their shares. With checkpoints the loop goes on from the newest
/// one, to the bits it would have reached without interruption: nothing it computes depends on anything but the step. Metrics:
/// `loss`, those of the losses, `grad_norm`, `lr`, those of the probe.
///
/// # Errors
/// If a loss or gradient is not finite, a batch cannot be had, a checkpoint cannot be written, or the observer or probe fails.
pub fn fit<M, S>(
    model: M,
    config: &FitConfig,
    samples: Samples,
    mut run: Run<'_, M>,
    mut batch: impl FnMut(Range<u64>) -> Result<Vec<S>, Error>,
    loss: impl Fn(&M, &S) -> Loss + Sync,
) -> Result<M, Error>
where
    M: Module + Send,
    S: Send,
{
    let Samples { count, per_step, unit } = samples;
    let steps = count.div_ceil(per_step);
    let (mut learner, start) = run.begin(Learner::new(model, config.adamw, config.clip_norm), unit, steps)?;
    for step in start..steps {
        let _step = debug_span!("step", number = step + 1).entered();
        let places = step * per_step..count.min((step + 1) * per_step);
        let learning_rate = config.learning_rate * config.schedule.factor(places.start);
        let (gradients, mut values, units) = gradients_of(learner.model(), batch(places.clone())?, &run.workers, &loss);
        let norm;
        (learner, norm) = learner
            .step(values[0].1, gradients, learning_rate, &run.workers)
            .map_err(|what| run.non_finite(what, step, places.start))?;
        values.push(("grad_norm".to_owned(), norm));
        values.push(("lr".to_owned(), learning_rate));
        let new_samples = places.end - places.start;
        let done = Step { done: step + 1, steps, samples: places.end, new_samples, units };
        run.end_step(&done, values, learner.model(), &learner)?;
    }
    Ok(learner.into_model())
}
