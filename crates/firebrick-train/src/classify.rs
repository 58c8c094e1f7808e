//! Classification of images: cross-entropy over their classes.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_kernels::token_log_probs;
use firebrick_tensor::Classifier;
use firebrick_types::{Images, Seed};
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::{Checkpoints, Error, Event, FitConfig, Loss, Observer, ObserverError, fit, parallel_map};

/// How images are learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifyConfig {
    /// How often each image is seen.
    pub epochs: u64,
    /// Images of one optimiser step.
    pub batch_size: usize,
    /// Images computed at a time: changes memory and speed, and the results only by the order of summation.
    pub micro_batch_size: usize,
    /// Pixels that an image is moved by at most, in each direction, anew in every epoch.
    pub shift: usize,
    /// The optimiser; its schedule counts images.
    pub fit: FitConfig,
}

/// Pixels of bytes as numbers from 0 to 1, `[batch, height, width, channels]`.
///
/// # Panics
/// If the pixels are not whole images.
pub fn pixels(bytes: &[u8], [height, width, channels]: [usize; 3], device: &Device) -> Tensor<4> {
    let batch = bytes.len() / (height * width * channels);
    let values = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(values, [batch, height, width, channels]), device)
}

/// The negative log-probability of each image's class, `[batch]`, in nats.
///
/// ```text
/// −log softmax(x)ₜ
/// ```
///
/// # Shapes
/// - `logits`: `[batch, classes]`
///
/// # Panics
/// If there is not one label of each row, or a label is no class.
pub fn losses(logits: Tensor<2>, labels: &[u8]) -> Tensor<1> {
    let labels = labels.iter().map(|&label| i64::from(label)).collect::<Vec<_>>();
    let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [logits.dims()[0]]), &logits.device());
    token_log_probs(logits, labels).neg()
}

/// Images of a micro-batch, moved, with what their random numbers depend on.
struct Batch {
    pixels: Tensor<4>,
    labels: Vec<u8>,
    seeds: Vec<Seed>,
    /// Of the whole batch.
    images: f32,
}

/// The model after so many passes over the images, each in an order of its own.
///
/// Metrics: `loss` (mean over images, nats), `accuracy`, `grad_norm`, `lr`.
///
/// # Errors
/// See [`fit`]; also if there is no image.
///
/// # Panics
/// If the model reads images of another size, or has too few classes.
pub fn train<M: Classifier + Module + Send>(
    model: M,
    images: &Images,
    config: &ClassifyConfig,
    seed: Seed,
    checkpoints: Option<&mut Checkpoints>,
    observer: &mut dyn Observer,
) -> Result<M, Error> {
    if images.is_empty() {
        return Err(Error::Empty { what: "the set of images".into(), fix: "give it at least one image".into() });
    }
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let mut order = Order::new(images.len(), config, seed.derive("classify/order"));
    let (samples, per_step) = (order.samples, order.per_step);
    let batch = |step: u64| {
        let image = |(epoch, index)| (index, seed.derive("classify/image").at(&[epoch, index as u64]));
        let drawn = order.step(step).into_iter().map(image).collect::<Vec<_>>();
        let whole = drawn.len() as f32;
        let micro_batch = |drawn: &[(usize, Seed)]| {
            let mut bytes = Vec::new();
            for &(index, seed) in drawn {
                bytes.extend(moved(images, index, config.shift, seed));
            }
            let (labels, seeds) = drawn.iter().map(|&(index, seed)| (images.labels()[index], seed)).unzip();
            Batch { pixels: pixels(&bytes, images.size(), &device), labels, seeds, images: whole }
        };
        Ok(drawn.chunks(config.micro_batch_size).map(micro_batch).collect())
    };
    let mut observer = InImages(observer);
    fit(model, &config.fit, samples, per_step, checkpoints, &mut observer, batch, |model, batch: &Batch| {
        let logits = model.training_logits(batch.pixels.clone(), &batch.seeds);
        let right = right(&logits, &batch.labels) as f64 / f64::from(batch.images);
        Loss::new(losses(logits, &batch.labels).sum() / batch.images, batch.labels.len() as u64).with("accuracy", right)
    })
}

/// An image moved by so many pixels at most, as its seed has it.
pub(crate) fn moved(images: &Images, index: usize, shift: usize, seed: Seed) -> Vec<u8> {
    let most = shift as i64;
    let mut rng = seed.derive("shift").rng();
    let [down, right] = [(); 2].map(|()| rng.random_range(-most..=most) as isize);
    images.shifted(index, down, right)
}

/// Images again and again, in every epoch in an order of its own.
pub(crate) struct Order {
    seed: Seed,
    epoch: u64,
    images: Vec<usize>,
    /// Images of one step.
    pub(crate) per_step: u64,
    /// Images of all epochs.
    pub(crate) samples: u64,
}

impl Order {
    pub(crate) fn new(count: usize, config: &ClassifyConfig, seed: Seed) -> Self {
        let (per_step, samples) = (config.batch_size as u64, config.epochs * count as u64);
        Self { seed, epoch: u64::MAX, images: (0..count).collect(), per_step, samples }
    }

    /// The epochs and images of a step.
    pub(crate) fn step(&mut self, step: u64) -> Vec<(u64, usize)> {
        let places = step * self.per_step..self.samples.min((step + 1) * self.per_step);
        let image = |place| {
            let count = self.images.len() as u64;
            let epoch = place / count;
            if self.epoch != epoch {
                self.epoch = epoch;
                self.images = (0..count as usize).collect();
                self.images.shuffle(&mut self.seed.at(&[epoch]).rng());
            }
            (epoch, self.images[(place % count) as usize])
        };
        places.map(image).collect()
    }
}

/// An observer that is told of images where the loop speaks of tokens.
pub(crate) struct InImages<'a>(pub(crate) &'a mut dyn Observer);

impl Observer for InImages<'_> {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        self.0.on(match event {
            Event::Begin { steps, done, .. } => Event::Begin { unit: "images", steps, done },
            other => other,
        })
    }
}

/// How many rows are greatest at their class.
fn right(logits: &Tensor<2>, labels: &[u8]) -> usize {
    let found = logits.clone().without_autodiff().argmax(1).into_data();
    found.iter::<i64>().zip(labels).filter(|&(found, &label)| found == i64::from(label)).count()
}

/// The share of the images whose greatest score is that of their class; not a number of none.
///
/// # Panics
/// If the model reads images of another size.
pub fn accuracy<M: Classifier + Module + Send>(model: &M, images: &Images, micro_batch_size: usize) -> f64 {
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let indices = (0..images.len()).collect::<Vec<_>>();
    let chunks = indices.chunks(micro_batch_size).map(|chunk| (model.clone(), chunk)).collect();
    let right = parallel_map(chunks, |(model, chunk): (M, &[usize])| {
        let bytes = chunk.iter().flat_map(|&index| images.image(index)).copied().collect::<Vec<_>>();
        let labels = chunk.iter().map(|&index| images.labels()[index]).collect::<Vec<_>>();
        right(&model.logits(pixels(&bytes, images.size(), &device)), &labels)
    });
    right.into_iter().sum::<usize>() as f64 / images.len() as f64
}
