//! Classification of images: cross-entropy over their classes.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use firebrick_kernels::token_log_probs;
use firebrick_tensor::Workers;
use firebrick_train::{Error, FitConfig, Loss, Order, Run, Samples};
use firebrick_types::Seed;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::classifier::Classifier;
use crate::images::{Images, pixels};

/// How images are learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
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

impl ClassifierConfig {
    /// What a loop over so many images takes.
    pub(crate) fn samples(&self, images: usize) -> Samples {
        Samples { count: self.epochs * images as u64, per_step: self.batch_size as u64, unit: "images" }
    }
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
/// See [`firebrick_train::fit`]; also if there is no image.
///
/// # Panics
/// If the model reads images of another size, or has too few classes.
pub fn fit<M: Classifier + Module + Send>(
    model: M,
    images: &Images,
    config: &ClassifierConfig,
    run: Run<'_, M>,
) -> Result<M, Error> {
    if images.is_empty() {
        return Err(Error::Empty { what: "the set of images".into(), fix: "give it at least one image".into() });
    }
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let seed = run.seed;
    let order_seed = seed.derive("classify/order");
    let mut order = Order::new(images.len(), |epoch| Some(order_seed.at(&[epoch])));
    let samples = config.samples(images.len());
    let batch = |places| {
        let image = |(epoch, index)| (index, seed.derive("classify/image").at(&[epoch, index as u64]));
        let drawn = order.take(places).into_iter().map(image).collect::<Vec<_>>();
        let whole = drawn.len() as f32;
        let micro_batch = |drawn: &[(usize, Seed)]| {
            let mut bytes = Vec::new();
            for &(index, seed) in drawn {
                bytes.extend(randomly_shifted(images, index, config.shift, seed));
            }
            let (labels, seeds) = drawn.iter().map(|&(index, seed)| (images.labels()[index], seed)).unzip();
            Batch { pixels: pixels(&bytes, images.size(), &device), labels, seeds, images: whole }
        };
        Ok(drawn.chunks(config.micro_batch_size).map(micro_batch).collect())
    };
    firebrick_train::fit(model, &config.fit, samples, run, batch, |model, batch: &Batch| {
        let logits = model.training_logits(batch.pixels.clone(), &batch.seeds);
        let right = right(&logits, &batch.labels) as f64 / f64::from(batch.images);
        Loss::new(losses(logits, &batch.labels).sum() / batch.images, batch.labels.len() as u64).with("accuracy", right)
    })
}

/// An image moved by so many pixels at most, as its seed has it.
pub(crate) fn randomly_shifted(images: &Images, index: usize, shift: usize, seed: Seed) -> Vec<u8> {
    let most = shift as i64;
    let mut rng = seed.derive("shift").rng();
    let [down, right] = [(); 2].map(|()| rng.random_range(-most..=most) as isize);
    images.shifted(index, down, right)
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
pub fn accuracy<M: Classifier + Module + Send>(
    model: &M,
    images: &Images,
    micro_batch_size: usize,
    workers: &Workers,
) -> f64 {
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let indices = (0..images.len()).collect::<Vec<_>>();
    let chunks = indices.chunks(micro_batch_size).map(|chunk| (model.clone(), chunk)).collect();
    let right = workers.map(chunks, |(model, chunk): (M, &[usize])| {
        let bytes = chunk.iter().flat_map(|&index| images.image(index)).copied().collect::<Vec<_>>();
        let labels = chunk.iter().map(|&index| images.labels()[index]).collect::<Vec<_>>();
        right(&model.logits(pixels(&bytes, images.size(), &device)), &labels)
    });
    right.into_iter().sum::<usize>() as f64 / images.len() as f64
}
