//! Simple ways to fill in what is not seen, beside which a model has to show what it is worth.

use burn::tensor::Tensor;
use firebrick_kernels::linear;
use firebrick_tensor::indices;

use crate::sweep::Evidence;

/// The seen pixels, and those of a filling elsewhere.
///
/// # Panics
/// If the filling is of another size.
pub fn filled(evidence: &Evidence, filling: Tensor<4>) -> Tensor<4> {
    let hidden = evidence.visible.clone().neg() + 1.0;
    evidence.images.clone() * evidence.visible.clone() + filling * hidden
}

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

/// Filled with the mean of the images that are nearest where pixels are seen.
///
/// ```text
/// distance(x, k) = Σ_seen (x − k)²
/// ```
///
/// # Shapes
/// - `known`: `[images, height, width, channels]`
///
/// # Panics
/// If the images are of another size, or there are fewer than `neighbours`, or none is wanted.
pub fn nearest(evidence: &Evidence, known: &Tensor<4>, neighbours: usize) -> Tensor<4> {
    let [batch, height, width, channels] = evidence.images.dims();
    let [count, ..] = known.dims();
    assert!((1..=count).contains(&neighbours), "{neighbours} neighbours of {count} images");
    let dims = height * width * channels;
    let known = known.clone().reshape([count, dims]);
    let seen = zero(evidence).reshape([batch, dims]);
    let visible = evidence.visible.clone().expand([batch, height, width, channels]).reshape([batch, dims]);
    // Σ k² − 2 Σ x k over what is seen: Σ x² is the same for all.
    let squares = linear(visible, known.clone().square().transpose(), None);
    let distances = squares - linear(seen, known.clone().transpose(), None) * 2.0;
    let distances = distances.into_data().iter::<f32>().collect::<Vec<_>>();
    let chosen = distances.chunks_exact(count).flat_map(|row| least(row, neighbours)).collect::<Vec<_>>();
    let chosen = known.select(0, indices(&chosen, &evidence.images.device()));
    let mean = chosen.reshape([batch, neighbours, dims]).mean_dim(1);
    filled(evidence, mean.reshape([batch, height, width, channels]))
}

/// The places of the least numbers.
fn least(numbers: &[f32], count: usize) -> Vec<usize> {
    let mut places = (0..numbers.len()).collect::<Vec<_>>();
    let order = |a: &usize, b: &usize| numbers[*a].total_cmp(&numbers[*b]).then(a.cmp(b));
    if count < places.len() {
        places.select_nth_unstable_by(count, order);
        places.truncate(count);
    }
    places.sort_by(order);
    places
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
        assert_close(zero(&evidence), images(&[[1.0, 0.0, 0.0, 0.0]]), 0.0);
        assert_close(mean(&evidence, &known), images(&[[1.0, 0.0, 0.0, 0.375]]), 1e-6);
        assert_close(nearest(&evidence, &known, 1), images(&[[1.0, 0.0, 0.0, 0.25]]), 0.0);
        assert_close(nearest(&evidence, &known, 2), images(&[[1.0, 0.0, 0.0, 0.5]]), 1e-6);
        assert_close(nearest(&evidence, &known, 4), images(&[[1.0, 0.0, 0.0, 0.375]]), 1e-6);
    }

    #[test]
    fn of_equal_numbers_the_first_are_taken() {
        assert_eq!(least(&[2.0, 1.0, 1.0, 0.0, 1.0], 3), [3, 1, 2]);
        assert_eq!(least(&[1.0, 0.0], 2), [1, 0]);
    }
}
