//! Simple ways to fill in what is not seen, beside which a model has to show what it is worth.

use burn::tensor::Tensor;
use firebrick_kernels::{conv2d_adjoint, linear};
use firebrick_tensor::indices;
use firebrick_types::Seed;

use crate::Error;
use crate::generative::{Component, Evidence, Exemplars, GenerativeModel, PriorConfig, filled, fit_prior};
use crate::pooling::{unpool, windows, won};

/// Filled with 0.
pub fn zero(evidence: &Evidence) -> Tensor<4> {
    evidence.images.clone() * evidence.visible.clone()
}

/// Filled with the mean of the images that are known, pixel by pixel.
///
/// # Panics
/// If they are of another size.
pub fn mean(evidence: &Evidence, known: &Tensor<4>) -> Tensor<4> {
    filled(evidence, known.clone().mean_dim(0).expand(evidence.images.dims()))
}

/// Filled with the mean of the remembered images that are nearest where pixels are seen.
///
/// ```text
/// distance(x, k) = Σ_seen (x − k)²
/// ```
///
/// # Panics
/// If the images are of another size, or no neighbour is wanted.
pub fn nearest(evidence: &Evidence, known: &Exemplars, neighbours: usize) -> Tensor<4> {
    filled(evidence, known.nearest(evidence, neighbours))
}

/// Factor analysers of pixels alone, one of each class.
#[derive(Clone, Debug)]
pub struct PixelFactors(Vec<Component>);

impl PixelFactors {
    /// Fitted to images, each class by itself.
    ///
    /// # Shapes
    /// - `images`: `[images, height, width, channels]`
    ///
    /// # Errors
    /// If there is no class, or one has no image.
    ///
    /// # Panics
    /// If there is not one label of each image.
    pub fn fit(images: &Tensor<4>, labels: &[u8], config: &PriorConfig, seed: Seed) -> Result<Self, Error> {
        let [count, height, width, channels] = images.dims();
        assert_eq!(count, labels.len(), "one label of each image");
        let rows = images.clone().reshape([count, height * width * channels]);
        let classes = labels.iter().max().map_or(0, |most| usize::from(*most) + 1).max(1);
        let of = |class: usize| {
            let chosen = (0..count).filter(|&image| usize::from(labels[image]) == class).collect::<Vec<_>>();
            let data = rows.clone().select(0, indices(&chosen, &images.device()));
            fit_prior(class, data, config, seed.at(&[class as u64]))
        };
        Ok(Self((0..classes).map(of).collect::<Result<Vec<_>, _>>()?.concat()))
    }

    /// Filled with what the likeliest of them expects of what is not seen, given what is.
    ///
    /// # Panics
    /// If images are of another size.
    pub fn fill(&self, evidence: &Evidence) -> Tensor<4> {
        let dims = evidence.images.dims();
        let [batch, height, width, channels] = dims;
        let pixels = height * width * channels;
        let device = evidence.images.device();
        let seen = evidence.images.clone().reshape([batch, pixels]);
        let hidden = evidence.visible.clone().expand(dims).reshape([batch, pixels]).lower_elem(0.5);
        let spread = seen.zeros_like().mask_fill(hidden, f32::INFINITY);
        let posteriors = self.0.iter().map(|component| component.posterior(&seen, &spread)).collect::<Vec<_>>();
        let rows = (0..batch).map(|image| {
            let likelier =
                |a: &usize, b: &usize| posteriors[*a].evidence[image].total_cmp(&posteriors[*b].evidence[image]);
            let best = (0..self.0.len()).max_by(likelier).expect("there is a class");
            let z = posteriors[best].factors.clone().select(0, indices(&[image], &device));
            linear(z, self.0[best].loadings.clone().transpose(), Some(self.0[best].mean.clone()))
        });
        let filling = Tensor::cat(rows.collect(), 0).reshape(dims).clamp(0.0, 1.0);
        filled(evidence, filling)
    }
}

/// Filled by a loop of predictive coding over the layers of a classifier.
///
/// ```text
/// d^{l−1} = φ(V^l * unpool(aˡ, sˡ) + cˡ)                       what a layer predicts of the one below
/// aˡ ← β ff(a^{l−1}) + λ dˡ + (1 − β − λ) aˡ − α ∂‖a^{l−1} − d^{l−1}‖² / ∂aˡ
/// hidden pixels ← d⁰
/// ```
///
/// After Choksi et al. 2021, *Predify: Augmenting deep neural networks with brain-inspired predictive coding dynamics*, eq. 1; the
/// predictions are those of the model's decoders, which learnt them from seen images.
///
/// # Panics
/// If images are of another size.
pub fn predictive_coding(model: &GenerativeModel, evidence: &Evidence, steps: usize) -> Tensor<4> {
    const FORWARD: f64 = 0.8;
    const BACKWARD: f64 = 0.1;
    const CORRECTION: f64 = 0.01;
    let (blocks, decoders) = (&model.network.blocks, &model.decoders);
    let dims = evidence.images.dims();
    let mut image = filled(evidence, model.pixels.mean.clone().expand(dims));
    let mut states: Vec<Tensor<4>> = Vec::new();
    let mut predictions: Vec<Tensor<4>> = Vec::new();
    for _ in 0..steps {
        let mut switches = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.iter().enumerate() {
            let below = if index == 0 { image.clone() } else { states[index - 1].clone() };
            let parts = windows(block.rectified(below.clone()), block.pool);
            let won = won(parts.clone());
            let forward = (parts * won.clone()).sum_dim(4).squeeze_dim::<4>(4);
            if let Some(state) = states.get(index).cloned() {
                let (decoder, predicted) = (&decoders[index], predictions[index].clone());
                let missed = (below - predicted.clone())
                    * if decoder.rectified { predicted.greater_elem(0.0).float() } else { predicted.ones_like() };
                let [_, height, width, _] = missed.dims();
                let slope = conv2d_adjoint(missed, decoder.weight.clone(), decoder.window, [height, width]);
                let slope = (windows(slope, block.pool) * won.clone()).sum_dim(4).squeeze_dim::<4>(4);
                let above = predictions.get(index + 1).cloned().unwrap_or_else(|| state.clone());
                states[index] = forward * FORWARD
                    + above * BACKWARD
                    + state * (1.0 - FORWARD - BACKWARD)
                    + slope * (2.0 * CORRECTION);
            } else {
                states.push(forward);
            }
            switches.push(won);
        }
        let predict = |index: usize| {
            decoders[index].render(unpool(states[index].clone(), switches[index].clone(), blocks[index].pool))
        };
        predictions = (0..blocks.len()).map(predict).collect();
        image = filled(evidence, predictions[0].clone().clamp(0.0, 1.0));
    }
    image
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use firebrick_testkit::assert_close;

    use super::*;

    fn images(pixels: &[[f32; 4]]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(pixels.concat(), [pixels.len(), 2, 2, 1]), &Device::flex())
    }

    #[test]
    fn what_is_hidden_comes_from_the_nearest_images() {
        let known = images(&[[1.0, 0.0, 0.0, 0.25], [1.0, 0.1, 0.0, 0.75], [0.0, 1.0, 1.0, 0.5], [0.0, 0.0, 1.0, 0.0]]);
        // The last pixel is not seen, and what stands there does not count.
        let evidence = Evidence { images: images(&[[1.0, 0.0, 0.0, 9.0]]), visible: images(&[[1.0, 1.0, 1.0, 0.0]]) };
        let remembered = Exemplars::new(&known, &[0; 4]);
        assert_close(zero(&evidence), images(&[[1.0, 0.0, 0.0, 0.0]]), 0.0);
        assert_close(mean(&evidence, &known), images(&[[1.0, 0.0, 0.0, 0.375]]), 1e-6);
        assert_close(nearest(&evidence, &remembered, 1), images(&[[1.0, 0.0, 0.0, 0.25]]), 0.0);
        assert_close(nearest(&evidence, &remembered, 2), images(&[[1.0, 0.0, 0.0, 0.5]]), 1e-6);
        assert_close(nearest(&evidence, &remembered, 4), images(&[[1.0, 0.0, 0.0, 0.375]]), 1e-6);
    }
}
