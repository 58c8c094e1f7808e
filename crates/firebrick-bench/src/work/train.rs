//! Optimiser steps, one at a time: what `fit` does, so that it can be stopped between two of them.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use firebrick_kernels::Precision;
use firebrick_models::{open_decoder, open_scored};
use firebrick_preference::Pair;
use firebrick_preference::reward_model::PairLosses;
use firebrick_tensor::{Parameters, TokenBatch, Workers};
use firebrick_train::lm::token_losses;
use firebrick_train::{FitConfig, Gradients, Learner, Loss, gradients_of};
use firebrick_types::Seed;
use firebrick_vision::classifiers::{self, Classifier, Cnn, open_cnn};

use super::{Bench, Checked};
use crate::cell::{ADAPTERS, Job, Task};

/// Steps whose losses must agree: the later ones tell whether the optimisers do.
const CHECKED_STEPS: usize = 3;

/// The loss of a micro-batch.
type Objective<M, S> = dyn Fn(&M, &S) -> Loss + Sync;

/// Steps of one objective on the same micro-batches.
struct Training<M, S> {
    /// There is one between two steps.
    learner: Option<Learner<M>>,
    learning_rate: f64,
    workers: Workers,
    micro_batches: Box<dyn Fn() -> Vec<S>>,
    loss: Box<Objective<M, S>>,
}

impl<M: Module + Send, S: Send> Training<M, S> {
    fn new(
        model: M,
        fit: FitConfig,
        micro_batches: impl Fn() -> Vec<S> + 'static,
        loss: impl Fn(&M, &S) -> Loss + Sync + 'static,
    ) -> Self {
        let learner = Some(Learner::new(model, fit.adamw, fit.clip_norm));
        let (micro_batches, loss) = (Box::new(micro_batches), Box::new(loss));
        Self { learner, learning_rate: fit.learning_rate, workers: Workers::default(), micro_batches, loss }
    }

    fn step(&mut self) -> f64 {
        let learner = self.learner.take().expect("there is a learner between two steps");
        let (gradients, values, _) = gradients_of(learner.model(), (self.micro_batches)(), &self.workers, &self.loss);
        let stepped = learner.step(values[0].1, gradients, self.learning_rate, &self.workers);
        self.learner = Some(stepped.expect("the losses of a small learning rate are finite").0);
        values[0].1
    }
}

impl<M: Module + Send, S: Send> Bench for Training<M, S> {
    fn check(&mut self) -> Checked {
        let model = self.learner.as_ref().expect("there is a learner between two steps").model();
        let (gradients, _, _) = gradients_of(model, (self.micro_batches)(), &self.workers, &self.loss);
        let gradients = named(model, &gradients);
        Checked { losses: (0..CHECKED_STEPS).map(|_| self.step()).collect(), gradients, tokens: Vec::new() }
    }

    fn run(&mut self, steps: usize) -> Vec<f64> {
        timed(steps, || _ = self.step())
    }
}

/// The gradients in the shapes of their parameters.
pub(super) fn named<M: Module>(model: &M, gradients: &Gradients) -> Parameters {
    let mut found = Parameters::default();
    for (name, shape, _) in Parameters::of(model).iter() {
        if let Some(gradient) = gradients.named(name) {
            let values = gradient.to_data().try_to_vec::<f32>().expect("gradients are f32");
            found.insert(name, shape.to_vec(), values);
        }
    }
    found
}

/// The seconds of each of so many calls.
pub(super) fn timed(steps: usize, mut step: impl FnMut()) -> Vec<f64> {
    let seconds = |_| {
        let start = Instant::now();
        step();
        start.elapsed().as_secs_f64()
    };
    (0..steps).map(seconds).collect()
}

/// Language modelling, as `pretrain` does it.
pub(super) fn lm(job: &Job, dir: &Path, micro_batch: usize, precision: Precision) -> Result<Box<dyn Bench>> {
    let Task::Lm { rows } = job.task.clone() else { bail!("the job holds no rows") };
    let device = Device::flex().autodiff();
    let model = open_decoder(&dir.join("model"), &device)?.0.in_precision(precision);
    let targets = rows.iter().map(|row| row.len() - 1).sum::<usize>() as f32;
    let micro_batches = move || rows.chunks(micro_batch).map(|rows| TokenBatch::of(rows, &device)).collect();
    Ok(Box::new(Training::new(model, job.fit, micro_batches, move |model, batch| {
        Loss::new(token_losses(model, batch).sum() / targets, batch.tokens() as u64)
    })))
}

/// Preference modelling, as `firebrick_preference::reward_model` does it.
pub(super) fn pairs(job: &Job, dir: &Path, micro_batch: usize, precision: Precision) -> Result<Box<dyn Bench>> {
    let Task::Pairs { chosen, rejected, ranked_weight, lm_weight, lora } = job.task.clone() else {
        bail!("the job holds no pairs")
    };
    let device = Device::flex().autodiff();
    let (model, _) = open_scored(&dir.join("model"), &device)?;
    let model = match &lora {
        Some(lora) => model.half_width().with_lora(lora, Seed::new(ADAPTERS)),
        None => model,
    };
    let model = model.in_precision(precision);
    let pairs = chosen.into_iter().zip(rejected).map(|(chosen, rejected)| Pair::new(Vec::new(), chosen, rejected));
    let pairs = pairs.collect::<Vec<_>>();
    let count = pairs.len() as f64;
    let micro_batches = move || pairs.chunks(micro_batch).map(<[Pair]>::to_vec).collect();
    Ok(Box::new(Training::new(model, job.fit, micro_batches, move |model, pairs: &Vec<Pair>| {
        let losses = PairLosses::of(model, pairs, &device);
        let total = losses.ranked.sum() * ranked_weight + losses.lm.sum() * lm_weight;
        let tokens = pairs.iter().map(|pair| (pair.chosen.len() + pair.rejected.len()) as u64).sum();
        Loss::new(total / count, tokens)
    })))
}

/// Classification of images, as `firebrick_vision::classifiers` does it.
pub(super) fn images(job: &Job, dir: &Path, micro_batch: usize, precision: Precision) -> Result<Box<dyn Bench>> {
    let Task::Images { pixels, labels } = job.task.clone() else { bail!("the job holds no images") };
    let device = Device::flex().autodiff();
    let model = open_cnn(&dir.join("model"), &device)?.in_precision(precision);
    let [height, width, channels] = model.config().image;
    let images = labels.len() as f32;
    let micro_batches = move || {
        let chunks = pixels.chunks(height * width * channels * micro_batch).zip(labels.chunks(micro_batch));
        let batch = |(pixels, labels): (&[f32], &[u8])| {
            let pixels = TensorData::new(pixels.to_vec(), [labels.len(), height, width, channels]);
            (Tensor::<4>::from_data(pixels, &device), labels.to_vec())
        };
        chunks.map(batch).collect()
    };
    Ok(Box::new(Training::new(model, job.fit, micro_batches, move |model: &Cnn, (pixels, labels)| {
        let losses = classifiers::losses(model.logits(pixels.clone()), labels);
        Loss::new(losses.sum() / images, labels.len() as u64)
    })))
}
