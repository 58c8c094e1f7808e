//! Optimiser steps, one at a time: what `fit` does, so that it can be stopped between two of them.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_kernels::token_log_probs;
use firebrick_models::{Cnn, Decoder, ScoredDecoder, open_cnn, open_decoder, open_scored};
use firebrick_preference::PairLosses;
use firebrick_tensor::{PackedBatch, Parameters, TokenBatch};
use firebrick_train::{AdamW, FitConfig, Gradients, Loss, gradients_of, lm};
use firebrick_types::{Seed, TokenId};

use super::{Bench, Checked};
use crate::cell::{ADAPTERS, Job, Task};

/// Steps whose losses must agree: the later ones tell whether the optimisers do.
const CHECKED_STEPS: usize = 3;

/// A model and its optimiser between two steps.
struct Trainer<M> {
    model: Option<M>,
    optimizer: AdamW,
    fit: FitConfig,
}

impl<M: Module + Send> Trainer<M> {
    fn new(model: M, fit: FitConfig) -> Self {
        Self { model: Some(model), optimizer: AdamW::new(fit.adamw), fit }
    }

    fn step<S: Send>(&mut self, micro_batches: Vec<S>, loss: impl Fn(&M, &S) -> Loss + Sync) -> f64 {
        let model = self.model.take().expect("there is a model between two steps");
        let (gradients, values, _) = gradients_of(&model, micro_batches, loss);
        let norm = gradients.global_norm();
        let gradients = gradients.clip(norm, self.fit.clip_norm);
        self.model = Some(self.optimizer.step(model, gradients, self.fit.learning_rate));
        values[0].1
    }

    fn gradients<S: Send>(&self, micro_batches: Vec<S>, loss: impl Fn(&M, &S) -> Loss + Sync) -> Parameters {
        let model = self.model.as_ref().expect("there is a model between two steps");
        let (gradients, _, _) = gradients_of(model, micro_batches, loss);
        named(model, &gradients)
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
pub(super) struct Lm {
    trainer: Trainer<Decoder>,
    rows: Vec<Vec<TokenId>>,
    micro_batch: usize,
    device: Device,
}

impl Lm {
    pub(super) fn open(job: &Job, rows: &[Vec<TokenId>], dir: &Path, micro_batch: usize) -> Result<Self> {
        let device = Device::flex().autodiff();
        let (model, _) = open_decoder(&dir.join("model"), &device)?;
        Ok(Self { trainer: Trainer::new(model, job.fit), rows: rows.to_vec(), micro_batch, device })
    }

    fn micro_batches(&self) -> Vec<(PackedBatch, f32)> {
        let targets = self.rows.iter().map(|row| row.len() - 1).sum::<usize>() as f32;
        self.rows.chunks(self.micro_batch).map(|rows| (PackedBatch::of(rows, &self.device), targets)).collect()
    }

    fn loss(model: &Decoder, (batch, targets): &(PackedBatch, f32)) -> Loss {
        let total = lm::packed_token_losses(model, batch).sum();
        Loss::new(total / *targets, batch.tokens() as u64)
    }

    fn step(&mut self) -> f64 {
        self.trainer.step(self.micro_batches(), Self::loss)
    }
}

impl Bench for Lm {
    fn check(&mut self) -> Checked {
        let gradients = self.trainer.gradients(self.micro_batches(), Self::loss);
        Checked { losses: (0..CHECKED_STEPS).map(|_| self.step()).collect(), gradients, tokens: Vec::new() }
    }

    fn run(&mut self, steps: usize) -> Vec<f64> {
        timed(steps, || _ = self.step())
    }
}

/// Preference modelling, as `firebrick_preference::train` does it.
pub(super) struct Pairs {
    trainer: Trainer<ScoredDecoder>,
    better: Vec<Vec<TokenId>>,
    worse: Vec<Vec<TokenId>>,
    /// Of the ranked loss and of the language-model loss.
    weights: [f64; 2],
    micro_batch: usize,
    device: Device,
}

impl Pairs {
    pub(super) fn open(job: &Job, dir: &Path, micro_batch: usize) -> Result<Self> {
        let Task::Pairs { better, worse, ranked_weight, lm_weight, lora } = &job.task else {
            bail!("the job holds no pairs")
        };
        let device = Device::flex().autodiff();
        let (model, _) = open_scored(&dir.join("model"), &device)?;
        let model = match lora {
            Some(lora) => model.half_width().with_lora(lora, Seed::new(ADAPTERS)),
            None => model,
        };
        Ok(Self {
            trainer: Trainer::new(model, job.fit),
            better: better.clone(),
            worse: worse.clone(),
            weights: [*ranked_weight, *lm_weight],
            micro_batch,
            device,
        })
    }

    fn micro_batches(&self) -> Vec<(TokenBatch, TokenBatch, f64)> {
        let chunks = self.better.chunks(self.micro_batch).zip(self.worse.chunks(self.micro_batch));
        let batch = |(better, worse): (&[Vec<TokenId>], &[Vec<TokenId>])| {
            let share = better.len() as f64 / self.better.len() as f64;
            (TokenBatch::from_ragged(better, &self.device), TokenBatch::from_ragged(worse, &self.device), share)
        };
        chunks.map(batch).collect()
    }

    fn loss(model: &ScoredDecoder, weights: [f64; 2], batch: &(TokenBatch, TokenBatch, f64)) -> Loss {
        let (better, worse, share) = batch;
        let losses = PairLosses::of(model, better, worse);
        let total = losses.ranked.mean() * weights[0] + losses.lm.mean() * weights[1];
        let tokens = better.lengths().iter().chain(worse.lengths()).sum::<usize>() as u64;
        Loss::new(total * *share, tokens)
    }

    fn step(&mut self) -> f64 {
        let weights = self.weights;
        self.trainer.step(self.micro_batches(), |model, batch| Self::loss(model, weights, batch))
    }
}

impl Bench for Pairs {
    fn check(&mut self) -> Checked {
        let weights = self.weights;
        let loss = |model: &ScoredDecoder, batch: &_| Self::loss(model, weights, batch);
        let gradients = self.trainer.gradients(self.micro_batches(), loss);
        Checked { losses: (0..CHECKED_STEPS).map(|_| self.step()).collect(), gradients, tokens: Vec::new() }
    }

    fn run(&mut self, steps: usize) -> Vec<f64> {
        timed(steps, || _ = self.step())
    }
}

/// Classification of images.
pub(super) struct Images {
    trainer: Trainer<Cnn>,
    pixels: Vec<f32>,
    labels: Vec<TokenId>,
    micro_batch: usize,
    device: Device,
}

impl Images {
    pub(super) fn open(job: &Job, dir: &Path, micro_batch: usize) -> Result<Self> {
        let Task::Images { pixels, labels } = &job.task else { bail!("the job holds no images") };
        let device = Device::flex().autodiff();
        let model = open_cnn(&dir.join("model"), &device)?;
        let (pixels, labels) = (pixels.clone(), labels.clone());
        Ok(Self { trainer: Trainer::new(model, job.fit), pixels, labels, micro_batch, device })
    }

    fn micro_batches(&self) -> Vec<(Tensor<4>, Tensor<1, Int>, f32)> {
        let [height, width, channels] = self.trainer.model.as_ref().expect("a model between two steps").config().image;
        let numbers = height * width * channels * self.micro_batch;
        let images = self.labels.len() as f32;
        let batch = |(pixels, labels): (&[f32], &[TokenId])| {
            let pixels = TensorData::new(pixels.to_vec(), [labels.len(), height, width, channels]);
            let labels = labels.iter().map(|&label| i64::from(label)).collect::<Vec<_>>();
            let count = labels.len();
            let labels = Tensor::from_data(TensorData::new(labels, [count]), &self.device);
            (Tensor::from_data(pixels, &self.device), labels, images)
        };
        self.pixels.chunks(numbers).zip(self.labels.chunks(self.micro_batch)).map(batch).collect()
    }

    fn loss(model: &Cnn, (pixels, labels, images): &(Tensor<4>, Tensor<1, Int>, f32)) -> Loss {
        let log_probs = token_log_probs(model.logits(pixels.clone()), labels.clone());
        Loss::new(-log_probs.sum() / *images, labels.dims()[0] as u64)
    }

    fn step(&mut self) -> f64 {
        self.trainer.step(self.micro_batches(), Self::loss)
    }
}

impl Bench for Images {
    fn check(&mut self) -> Checked {
        let gradients = self.trainer.gradients(self.micro_batches(), Self::loss);
        Checked { losses: (0..CHECKED_STEPS).map(|_| self.step()).collect(), gradients, tokens: Vec::new() }
    }

    fn run(&mut self, steps: usize) -> Vec<f64> {
        timed(steps, || _ = self.step())
    }
}
