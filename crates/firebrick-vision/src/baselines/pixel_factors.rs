//! Factor analysis of pixels alone.

use burn::tensor::Tensor;
use firebrick_kernels::linear;
use firebrick_tensor::indices;
use firebrick_types::Seed;

use crate::Error;
use crate::generative::{Component, Evidence, PriorConfig, filled, fit_prior};

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
            let likelier = |a: &usize, b: &usize| {
                posteriors[*a].log_likelihoods[image].total_cmp(&posteriors[*b].log_likelihoods[image])
            };
            let best = (0..self.0.len()).max_by(likelier).expect("there is a class");
            let z = posteriors[best].factors.clone().select(0, indices(&[image], &device));
            linear(z, self.0[best].loadings.clone().transpose(), Some(self.0[best].mean.clone()))
        });
        let filling = Tensor::cat(rows.collect(), 0).reshape(dims).clamp(0.0, 1.0);
        filled(evidence, filling)
    }
}
