//! Simple ways to fill in what is not seen.

use burn::tensor::Tensor;

use crate::generative::{Evidence, Exemplars, filled};

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
