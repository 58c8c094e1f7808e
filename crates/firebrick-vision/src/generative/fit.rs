//! How a model is fitted to images, once, the classifier frozen.

use burn::tensor::{Tensor, TensorData};
use firebrick_kernels::linear;
use firebrick_tensor::indices;
use firebrick_types::Seed;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::evidence::{Evidence, Query};
use super::model::{
    Belief, Block, Decoder, DecoderMode, GenerativeModel, Network, NormalEquations, PriorConfig, fit_prior,
};
use super::passes::{SweepConfig, sweep};
use crate::Error;
use crate::classifiers::Cnn;
use crate::images::Images;
use crate::pooling::{unpool, unwindow, windows, won};

/// How a model is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerativeConfig {
    /// How decoders are had.
    pub decoder: DecoderMode,
    /// The prior of the top activations.
    pub prior: PriorConfig,
    /// Pixels that images are moved by at most, as those the classifier learnt from.
    pub shift: usize,
    /// Images that are looked at, at most.
    pub images: usize,
}

impl Default for GenerativeConfig {
    fn default() -> Self {
        let decoder = DecoderMode::Ridge { alpha: 1e-4 };
        Self { decoder, prior: PriorConfig::default(), shift: 2, images: 20_000 }
    }
}

/// Images that are computed at a time.
const CHUNK: usize = 100;
/// Images that decoders are fitted to, at most: each has hundreds of places.
const DECODED: usize = 2000;
/// Added to the counts of switches.
const LAPLACE: f64 = 0.01;
/// The least variance of a rendered channel or a pixel.
const LEAST_NOISE: f64 = 1e-4;

impl GenerativeModel {
    /// The model of a frozen classifier, fitted to images.
    ///
    /// # Errors
    /// If a layer of the classifier cannot be modelled, images are of another size, or a class has none.
    pub fn fit(cnn: Cnn, images: &Images, config: &GenerativeConfig, seed: Seed) -> Result<Self, Error> {
        let network = Network::of(cnn)?;
        if images.size() != network.image() {
            return Err(Error::Size { found: images.size(), expected: network.image() });
        }
        if let Some(&label) = images.labels().iter().find(|label| usize::from(**label) >= network.classes()) {
            return Err(Error::Class { class: usize::from(label), classes: network.classes() });
        }
        let mut order = (0..images.len()).collect::<Vec<_>>();
        order.shuffle(&mut seed.derive("fit/order").rng());
        order.truncate(config.images);
        let mut sums = Sums::new(&network);
        for (index, chunk) in order.chunks(CHUNK).enumerate() {
            let (pixels, labels) = moved(images, chunk, config.shift, seed, &network);
            sums.add(&network, pixels, &labels, index * CHUNK < DECODED);
        }
        let Sums { normals, switches, pixels, squares, tops, count } = sums;
        let mut decoders = Vec::new();
        for (index, (block, normal)) in network.blocks.iter().zip(normals).enumerate() {
            let (weight, bias) = normal.solve(block, config.decoder);
            let noise = Tensor::ones([weight.dims()[3]], &weight.device());
            decoders.push(Decoder { weight, bias, noise, window: block.window, rectified: index > 0 });
        }
        let sample = &order[..order.len().min(10 * CHUNK)];
        measure_noise(&network, &mut decoders, sample, |chunk| moved(images, chunk, config.shift, seed, &network).0);
        let prior = (0..network.classes()).map(|class| {
            let top = tops[class].clone();
            let data = if top.is_empty() { Tensor::zeros([0, 1], &pixels.device()) } else { Tensor::cat(top, 0) };
            fit_prior(class, data, &config.prior, seed.derive("fit/prior").at(&[class as u64]))
        });
        let prior = prior.collect::<Result<Vec<_>, _>>()?.concat();
        let mean = pixels / count;
        let variance = (squares / count - mean.clone().square()).clamp_min(LEAST_NOISE);
        let switches = switches.into_iter().map(|counts| {
            let counts = counts + LAPLACE;
            counts.clone() / counts.sum_dim(4)
        });
        let pixels = Belief { mean, variance };
        let mut model = Self::of(network, decoders, prior, switches.collect(), pixels);
        if let DecoderMode::Robust { rounds, .. } = config.decoder {
            let looked = &order[..order.len().min(DECODED)];
            for round in 0..rounds {
                model.render_under_masks(images, looked, config, seed, round)?;
            }
        }
        Ok(model)
    }

    /// Solves for the decoders anew, from what sweeps with those of now give under rectangles.
    fn render_under_masks(
        &mut self,
        images: &Images,
        order: &[usize],
        config: &GenerativeConfig,
        seed: Seed,
        round: usize,
    ) -> Result<(), Error> {
        let mut normals = self.network.blocks.iter().map(NormalEquations::new).collect::<Vec<_>>();
        let [height, width, _] = images.size();
        for chunk in order.chunks(CHUNK) {
            let (pixels, labels) = moved(images, chunk, config.shift, seed, &self.network);
            let masks = chunk
                .iter()
                .flat_map(|&index| rectangle(height, width, seed.derive("fit/mask").at(&[round as u64, index as u64])));
            let visible = TensorData::new(masks.collect::<Vec<_>>(), [chunk.len(), height, width, 1]);
            let evidence = Evidence { images: pixels, visible: Tensor::from_data(visible, &self.network.device()) };
            let found = sweep(self, &evidence, &Query::Clamp(labels), &SweepConfig::default())?;
            let mut read = evidence.images;
            for ((block, layer), normal) in self.network.blocks.iter().zip(found.layers).zip(&mut normals) {
                let parts = windows(block.rectified(read.clone()), block.pool);
                normal.add(unpool(layer.mean, windows(layer.switches, block.pool), block.pool), read, block.window);
                read = (parts.clone() * won(parts)).sum_dim(4).squeeze_dim::<4>(4);
            }
        }
        for ((block, decoder), normal) in self.network.blocks.iter().zip(&mut self.decoders).zip(normals) {
            // What they leave of the pictures that they were fitted to.
            (decoder.weight, decoder.bias, decoder.noise) = {
                let noise = normal.clone();
                let (weight, bias) = normal.solve(block, config.decoder);
                let noise = noise.residual_variance(&weight, &bias).clamp_min(LEAST_NOISE);
                (weight, bias, noise)
            };
        }
        Ok(())
    }
}

/// 0 in a rectangle of a third to two thirds of each side, somewhere, and 1 elsewhere.
fn rectangle(height: usize, width: usize, seed: Seed) -> Vec<f32> {
    let mut rng = seed.rng();
    let mut side = |length: usize| {
        let size = rng.random_range(length / 3..=2 * length / 3);
        let first = rng.random_range(0..=length - size);
        first..first + size
    };
    let (rows, columns) = (side(height), side(width));
    let hidden = |pixel: usize| rows.contains(&(pixel / width)) && columns.contains(&(pixel % width));
    (0..height * width).map(|pixel| f32::from(u8::from(!hidden(pixel)))).collect()
}

/// Some images as the classifier reads them, moved, and their labels.
fn moved(images: &Images, indices: &[usize], shift: usize, seed: Seed, network: &Network) -> (Tensor<4>, Vec<usize>) {
    let most = shift as i64;
    let mut values = Vec::new();
    for &index in indices {
        let mut rng = seed.derive("fit/shift").at(&[index as u64]).rng();
        let [down, right] = [(); 2].map(|()| rng.random_range(-most..=most) as isize);
        values.extend(images.shifted(index, down, right).into_iter().map(|byte| f32::from(byte) / 255.0));
    }
    let [height, width, channels] = images.size();
    let data = TensorData::new(values, [indices.len(), height, width, channels]);
    let labels = indices.iter().map(|&index| usize::from(images.labels()[index])).collect();
    (Tensor::from_data(data, &network.device()), labels)
}

/// What one pass over the images adds up.
struct Sums {
    normals: Vec<NormalEquations>,
    switches: Vec<Tensor<5>>,
    pixels: Tensor<4>,
    squares: Tensor<4>,
    /// The pixels and top activations of the images of each class, side by side.
    tops: Vec<Vec<Tensor<2>>>,
    count: f64,
}

impl Sums {
    fn new(network: &Network) -> Self {
        let ([height, width, channels], device) = (network.image(), network.device());
        let pixels = Tensor::zeros([1, height, width, channels], &device);
        let counts = |block: &Block| {
            let [height, width, channels] = block.shape;
            Tensor::zeros([network.classes(), height, width, channels, block.pool * block.pool], &device)
        };
        Self {
            normals: network.blocks.iter().map(NormalEquations::new).collect(),
            switches: network.blocks.iter().map(counts).collect(),
            squares: pixels.clone(),
            pixels,
            tops: vec![Vec::new(); network.classes()],
            count: 0.0,
        }
    }

    fn add(&mut self, network: &Network, pixels: Tensor<4>, labels: &[usize], decoded: bool) {
        let [batch, ..] = pixels.dims();
        let device = pixels.device();
        self.count += batch as f64;
        self.pixels = self.pixels.clone() + pixels.clone().sum_dim(0);
        self.squares = self.squares.clone() + pixels.clone().square().sum_dim(0);
        // [classes, batch], 1 where an image is of a class.
        let classes = Tensor::<2>::eye(network.classes(), &device).select(0, indices(labels, &device)).transpose();
        let mut read = pixels.clone();
        for (index, block) in network.blocks.iter().enumerate() {
            let before = block.rectified(read.clone());
            let parts = windows(before, block.pool);
            let won = won(parts.clone());
            let unpooled = unwindow(parts * won.clone(), block.pool);
            if decoded {
                self.normals[index].add(unpooled.clone(), read, block.window);
            }
            let dims = won.dims();
            let each = dims[1..].iter().product::<usize>();
            let counts = linear(classes.clone(), won.reshape([batch, each]), None);
            let [_, height, width, channels, slots] = dims;
            let counts = counts.reshape([network.classes(), height, width, channels, slots]);
            self.switches[index] = self.switches[index].clone() + counts;
            read = windows(unpooled, block.pool).sum_dim(4).squeeze_dim::<4>(4);
        }
        let each = |x: &Tensor<4>| x.shape().num_elements() / batch;
        let joint = [pixels, read].map(|x| x.clone().reshape([batch, each(&x)]));
        let joint = Tensor::cat(joint.to_vec(), 1);
        for (class, tops) in self.tops.iter_mut().enumerate() {
            let of_class = (0..batch).filter(|&image| labels[image] == class).collect::<Vec<_>>();
            if !of_class.is_empty() {
                tops.push(joint.clone().select(0, indices(&of_class, &device)));
            }
        }
    }
}

/// Gives each decoder the mean square of what it leaves, of every channel.
fn measure_noise(
    network: &Network,
    decoders: &mut [Decoder],
    sample: &[usize],
    pixels: impl Fn(&[usize]) -> Tensor<4>,
) {
    let zeros = |decoder: &Decoder| decoder.bias.zeros_like();
    let mut squares = decoders.iter().map(zeros).collect::<Vec<_>>();
    let mut places = vec![0.0; decoders.len()];
    for chunk in sample.chunks(CHUNK) {
        let mut read = pixels(chunk);
        for (index, (block, decoder)) in network.blocks.iter().zip(&*decoders).enumerate() {
            let parts = windows(block.rectified(read.clone()), block.pool);
            let won = won(parts.clone());
            let pooled = (parts * won.clone()).sum_dim(4).squeeze_dim::<4>(4);
            let left = decoder.render(unpool(pooled.clone(), won, block.pool)) - read.clone();
            let [batch, height, width, channels] = read.dims();
            let left = left.square().reshape([batch * height * width, channels]);
            squares[index] = squares[index].clone() + left.sum_dim(0).reshape([channels]);
            places[index] += (batch * height * width) as f64;
            read = pooled;
        }
    }
    for ((decoder, squares), places) in decoders.iter_mut().zip(squares).zip(places) {
        decoder.noise = (squares / places.max(1.0)).clamp_min(LEAST_NOISE);
    }
}
