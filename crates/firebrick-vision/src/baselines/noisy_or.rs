//! A binary model of activations: features that are there or not, each caused by any of those above it.

use burn::tensor::{Tensor, activation};
use firebrick_kernels::{Window, conv2d, linear};
use firebrick_tensor::indices;

use super::activation_model::{ActivationModel, Inpainting};
use crate::Error;
use crate::generative::{Belief, Evidence, GenerativeModel, Query, filled, labels, patches, upward_from};
use crate::pooling::{greatest, unpool, windows, won};

/// Binary features with noisy causes.
///
/// ```text
/// e_i = A (â_i − θ_c)                                     log-odds that a unit is on, of the way up
/// pool: a unit that is on has one of its window on, ρ_k; one that is off has none
/// conv: P(child on) = 1 − (1 − leak) Π_parents (1 − w)^γ
/// ```
///
/// The binary model nearest to *hierarchical compositional networks* (Lázaro-Gredilla, Liu, Phoenix and George 2016; C-14):
/// noisy-OR layers, pools of which one wins. w is the causal strength of Cheng 1997, *From covariation to causation*, counted in images:
/// how much more often a child is on with its parent than without. Parents go together, which noisy-OR does not know; γ takes that back,
/// so that children are on as often as they are.
#[derive(Clone, Debug)]
pub struct NoisyOr<'a> {
    model: &'a GenerativeModel,
    layers: Vec<Layer>,
    /// log P(on) and log P(off) of the top units of each class, `[classes, units]`.
    top: [Tensor<2>; 2],
}

#[derive(Clone, Debug)]
struct Layer {
    /// θ, `[1, 1, 1, channels]`.
    threshold: Tensor<4>,
    /// γ log(1 − w), `[size, size, channels, channels it reads]`.
    off: Tensor<4>,
    /// log(1 − leak), `[channels it reads]`.
    quiet: Tensor<1>,
    window: Window,
    pool: usize,
}

/// A: log-odds of an activation beside its threshold, in deviations.
const SHARPNESS: f64 = 4.0;
/// θ, as a share of a channel's mean where it is above 0.
const ON: f64 = 0.5;
/// The least probability of anything.
const LEAST: f64 = 1e-3;
/// Brightness from which on a pixel is on.
const INK: f64 = 0.5;

impl<'a> NoisyOr<'a> {
    /// Counted in images of known labels, beside the model whose classifier and switches are used.
    ///
    /// # Errors
    /// If images are of another size, or a label is no class.
    ///
    /// # Panics
    /// If there is not one label of each image, or no image.
    pub fn fit(model: &'a GenerativeModel, images: &Tensor<4>, labels: &[u8]) -> Result<Self, Error> {
        let [count, height, width, channels] = images.dims();
        assert!(count == labels.len() && count > 0, "one label of each of {count} images");
        let expected = model.network.image();
        if [height, width, channels] != expected {
            return Err(Error::Size { found: [height, width, channels], expected });
        }
        let classes = model.network.classes();
        if let Some(&class) = labels.iter().find(|label| usize::from(**label) >= classes) {
            return Err(Error::Class { class: usize::from(class), classes });
        }
        let device = images.device();
        let mut children = images.clone().greater_elem(INK).float();
        let mut below = images.clone();
        let mut layers = Vec::new();
        for block in &model.network.blocks {
            let parts = windows(block.rectified(below), block.pool);
            let switches = won(parts.clone());
            let pooled = (parts * switches.clone()).sum_dim(4).squeeze_dim::<4>(4);
            let [batch, down, across, units] = pooled.dims();
            let flat = pooled.clone().reshape([batch * down * across, units]);
            let above = flat.clone().greater_elem(0.0).float().sum_dim(0).clamp_min(1.0);
            let threshold = (flat.sum_dim(0) / above * ON).reshape([1, 1, 1, units]);
            let on = pooled.clone().greater(threshold.clone().expand(pooled.dims())).float();
            let spread = unpool(on.clone(), switches, block.pool);
            let window = block.window;
            let (off, quiet) = causes(&spread, &children, window);
            layers.push(Layer { threshold, off, quiet, window, pool: block.pool });
            (children, below) = (on, pooled);
        }
        let [batch, down, across, units] = children.dims();
        let rows = labels.iter().map(|&label| usize::from(label)).collect::<Vec<_>>();
        // [classes, batch], 1 where an image is of a class.
        let of_class = Tensor::<2>::eye(classes, &device).select(0, indices(&rows, &device)).transpose();
        let counts = of_class.clone().sum_dim(1) + 2.0 * LEAST;
        let on = (linear(of_class, children.reshape([batch, down * across * units]), None) + LEAST) / counts;
        let on = on.clamp(LEAST, 1.0 - LEAST);
        Ok(Self { model, layers, top: [on.clone().log(), (on.neg() + 1.0).log()] })
    }
}

/// γ log(1 − w) of every parent in a window, and log(1 − leak), of parents and children that are on.
fn causes(parents: &Tensor<4>, children: &Tensor<4>, window: Window) -> (Tensor<4>, Tensor<1>) {
    /// Images whose windows are laid out at a time.
    const CHUNK: usize = 50;
    let ([batch, height, width, units], [.., reads]) = (parents.dims(), children.dims());
    let (places, side, device) = ((batch * height * width) as f64, window.size, parents.device());
    let features = side * side * units;
    let (mut both, mut alone) =
        (Tensor::<2>::zeros([features, reads], &device), Tensor::<2>::zeros([1, features], &device));
    for first in (0..batch).step_by(CHUNK) {
        let images = first..batch.min(first + CHUNK);
        let patches = patches(parents.clone().slice([images.clone()]), window);
        let on = children.clone().slice([images.clone()]).reshape([images.len() * height * width, reads]);
        both = both + linear(patches.clone().transpose(), on, None);
        alone = alone + patches.sum_dim(0);
    }
    let alone = alone.transpose();
    let total = children.clone().reshape([batch * height * width, reads]).sum_dim(0);
    let with = both.clone() / alone.clone().clamp_min(1.0);
    let without = ((total.clone() - both) / (alone.neg() + places).clamp_min(1.0)).clamp(0.0, 1.0 - LEAST);
    let strength = ((with - without.clone()) / (without.neg() + 1.0)).clamp(0.0, 1.0 - LEAST);
    let off = (strength.neg() + 1.0).log().reshape([side, side, units, reads]);
    let quiet = Tensor::<1>::ones([reads], &device) * (1.0 - LEAST).ln();
    let share = total.sum().into_scalar::<f32>() / (places * reads as f64) as f32;
    let sum = conv2d(parents.clone(), off.clone(), quiet.zeros_like(), window);
    // By halving: as the exponent grows children are on more often.
    let (mut low, mut high) = (0.0_f64, 1.0);
    for _ in 0..20 {
        let exponent = 0.5 * (low + high);
        let on = ((sum.clone() * exponent + (1.0 - LEAST).ln()).exp().neg() + 1.0).mean().into_scalar::<f32>();
        if on < share { low = exponent } else { high = exponent }
    }
    (off * high, quiet)
}

impl NoisyOr<'_> {
    /// The log-odds that a unit is on, of the way up: those of what is uncertain are nearer to 0.
    fn odds(&self, evidence: &Evidence) -> Result<(Vec<Tensor<4>>, Vec<Tensor<5>>), Error> {
        let up = upward_from(self.model, evidence)?;
        let mut odds = Vec::new();
        let mut slots = Vec::new();
        for (layer, level) in self.layers.iter().zip(up.levels) {
            let scale = layer.threshold.clone().clamp_min(1e-3);
            let of = |belief: &Belief| {
                let doubt = (belief.variance.clone() / scale.clone().square()
                    * (SHARPNESS * SHARPNESS * std::f64::consts::FRAC_PI_8)
                    + 1.0)
                    .sqrt();
                (belief.mean.clone() - layer.threshold.clone()) / scale.clone() * SHARPNESS / doubt
            };
            odds.push(of(&level.after));
            slots.push(windows(of(&level.before), layer.pool));
        }
        Ok((odds, slots))
    }
}

impl ActivationModel for NoisyOr<'_> {
    /// Every label is decoded from its top units down; a score is the sum of the log-factors that were chosen.
    fn inpaint(&self, evidence: &Evidence, query: &Query) -> Result<Inpainting, Error> {
        let (odds, slots) = self.odds(evidence)?;
        let [batch, height, width, channels] = evidence.images.dims();
        let classes = self.model.network.classes();
        let device = evidence.images.device();
        let rows = |x: Tensor<4>| {
            let each = x.shape().num_elements() / batch;
            x.reshape([batch, each]).sum_dim(1)
        };
        let (mut scores, mut pictures) = (Vec::new(), Vec::new());
        for class in 0..classes {
            let last = odds.last().expect("there are blocks");
            let of_class = |x: &Tensor<2>| {
                x.clone().select(0, indices(&[class], &device)).reshape([
                    1,
                    last.dims()[1],
                    last.dims()[2],
                    last.dims()[3],
                ])
            };
            let [on, off] = self.top.each_ref().map(of_class);
            let gain = last.clone() + on - off.clone();
            let mut state = gain.clone().greater_elem(0.0).float();
            // Σ log P(h) + h e = Σ log P(off) + Σ_on (e + log P(on) − log P(off))
            let mut score = rows(gain * state.clone()) + rows(off.expand(last.dims()));
            let mut picture = None;
            for index in (0..self.layers.len()).rev() {
                let layer = &self.layers[index];
                let rho = self.model.switches[index].clone().select(0, indices(&[class], &device)).log();
                let best = slots[index].clone() + rho;
                let chosen = greatest(best.clone());
                let switched = (best * chosen.clone()).sum_dim(4).squeeze_dim::<4>(4);
                score = score + rows(switched * state.clone());
                let spread = unpool(state.clone(), chosen, layer.pool);
                let quiet = conv2d(spread, layer.off.clone(), layer.quiet.clone(), layer.window);
                let quiet = quiet.clamp_max(-LEAST);
                let on = quiet.clone().exp().neg() + 1.0;
                let heard = if index == 0 {
                    // A seen pixel is on or off, and no more need be said of it.
                    let ink = evidence.images.clone().greater_elem(INK).float();
                    (ink * 2.0 - 1.0) * evidence.visible.clone() * -LEAST.ln()
                } else {
                    odds[index - 1].clone()
                };
                let gain = on.clone().log() - quiet.clone() + heard;
                state = gain.clone().greater_elem(0.0).float();
                score = score + rows(gain * state.clone()) + rows(quiet);
                if index == 0 {
                    picture = Some(on);
                }
            }
            scores.push(score);
            pictures.push(filled(evidence, picture.expect("there are blocks")));
        }
        let scores = Tensor::cat(scores, 1);
        let labels = labels(&scores, query)?;
        let rows = labels
            .iter()
            .enumerate()
            .map(|(image, &label)| pictures[label].clone().slice([image..image + 1, 0..height, 0..width, 0..channels]));
        Ok(Inpainting { images: Tensor::cat(rows.collect(), 0), labels, scores: activation::log_softmax(scores, 1) })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use firebrick_types::Seed;

    use super::*;
    use crate::classifiers::CnnConfig;
    use crate::generative::{DecoderMode, GenerativeConfig, PriorConfig};
    use crate::images::Images;

    /// Four pixels of which one is lit, the first two of class 0, the last two of class 1, and empty pictures of both.
    fn lit() -> Images {
        let mut images = Images::new([2, 2, 1]);
        for index in 0..40_usize {
            let mut picture = [0; 4];
            if index % 5 < 4 {
                picture[index % 5] = 255;
            }
            images.push(&picture, u8::from(index % 5 > 1 && (index % 5 < 4 || index % 2 == 0)));
        }
        images
    }

    #[test]
    fn e4_one_window_is_decoded_as_by_trying_everything() {
        let images = lit();
        // A unit that fires where there is light: the first seed whose weight is positive.
        let model = (1..20).find_map(|seed| {
            let plan = CnnConfig::image(2, 2, 1).conv(1, 1, 1, 0).relu().max_pool(2, 2, 0).linear(2);
            let cnn = plan.init(Seed::new(seed), &Device::flex()).unwrap();
            if cnn.weights(0).unwrap().0.into_scalar::<f32>() < 0.2 {
                return None;
            }
            let prior = PriorConfig { factors: 1, components: 1, em_iterations: 1 };
            let config = GenerativeConfig { decoder: DecoderMode::Tied, prior, shift: 0, images: 40 };
            GenerativeModel::fit(cnn, &images, &config, Seed::new(1)).ok()
        });
        let model = model.unwrap();
        let pixels =
            (0..40).flat_map(|index| images.image(index)).map(|&byte| f32::from(byte) / 255.0).collect::<Vec<_>>();
        let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [40, 2, 2, 1]), &Device::flex());
        let binary = NoisyOr::fit(&model, &pixels, images.labels()).unwrap();
        let evidence = Evidence {
            images: pixels.slice([0..5, 0..2, 0..2, 0..1]),
            visible: Tensor::ones([5, 2, 2, 1], &Device::flex()),
        };
        let found = binary.inpaint(&evidence, &Query::Free).unwrap();
        let (odds, slots) = binary.odds(&evidence).unwrap();
        let numbers = |x: TensorData| x.iter::<f64>().collect::<Vec<_>>();
        let (odds, slots) = (numbers(odds[0].clone().into_data()), numbers(slots[0].clone().into_data()));
        let [on, off] = binary.top.each_ref().map(|x| numbers(x.clone().into_data()));
        let rho = numbers(model.switches[0].clone().log().into_data());
        let cause = numbers(binary.layers[0].off.clone().into_data())[0];
        let leak = numbers(binary.layers[0].quiet.clone().into_data())[0];
        let seen = numbers(evidence.images.clone().into_data());
        for image in 0..5 {
            let best = [0, 1].map(|label| {
                let mut best = f64::NEG_INFINITY;
                for (unit, slot, picture) in
                    (0..2).flat_map(|u| (0..4).flat_map(move |s| (0..16_u32).map(move |p| (u, s, p))))
                {
                    let mut score = if unit == 1 { on[label] + odds[image] } else { off[label] };
                    if unit == 1 {
                        score += slots[image * 4 + slot] + rho[label * 4 + slot];
                    }
                    for pixel in 0..4 {
                        let quiet = (leak + if unit == 1 && pixel == slot { cause } else { 0.0 }).min(-LEAST);
                        let lit = picture >> pixel & 1 == 1;
                        let heard = if seen[image * 4 + pixel] > INK { -LEAST.ln() } else { LEAST.ln() };
                        score += if lit { (1.0 - quiet.exp()).ln() + heard } else { quiet };
                    }
                    best = best.max(score);
                }
                best
            });
            let scores =
                found.scores.clone().slice([image..image + 1, 0..2]).into_data().iter::<f64>().collect::<Vec<_>>();
            let difference = best[0] - best[1];
            assert!(
                (scores[0] - scores[1] - difference).abs() < 1e-3,
                "picture {image}: {scores:?}, by trying {best:?}"
            );
        }
    }
}
