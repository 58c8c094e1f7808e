//! The pass up: means and variances through a classifier.

use burn::tensor::{Tensor, activation};
use firebrick_kernels::{Precision, Window, conv2d, conv2d_in, max_pool2d, rectified_moments};

use crate::Error;
use crate::generative::evidence::Evidence;
use crate::generative::model::{Belief, GenerativeModel, Level, Network, Upward};

/// The mean and the variance of every activation, of those of the pixels.
///
/// ```text
/// conv:  m ← W * m + b        v ← W² * v
/// ReLU:  the moments of a rectified normal number
/// pool:  m ← the greatest mean of the window        v ← its greatest variance
/// ```
///
/// Variances are taken as independent, which overlapping windows are not. Where they are 0 the means are the activations of the plain
/// pass to the bit. Variances are multiplied in BF16 where the processor is faster in it: that they are taken as independent is the greater
/// error.
pub fn upward(network: &Network, image: Belief) -> Upward {
    let precision = Precision::fastest(&image.variance.device());
    upward_in(network, precision, image)
}

fn upward_in(network: &Network, precision: Precision, image: Belief) -> Upward {
    let mut x = image;
    let mut levels = Vec::with_capacity(network.blocks.len());
    for block in &network.blocks {
        let mean = conv2d(x.mean, block.weight.clone(), block.bias.clone(), block.window);
        let squared = block.weight.clone().square();
        // One channel makes no pairs.
        let precision = if block.weight.dims()[2] == 1 { Precision::F32 } else { precision };
        let variance = conv2d_in(precision, x.variance, squared, block.bias.zeros_like(), block.window);
        let (mean, variance) = rectified_moments(mean, variance);
        let before = Belief { mean, variance };
        let after = if block.pool == 1 {
            before.clone()
        } else {
            let pool = Window { size: block.pool, stride: block.pool, padding: 0 };
            let greatest = |x: &Tensor<4>| max_pool2d(x.clone(), pool);
            Belief { mean: greatest(&before.mean), variance: greatest(&before.variance) }
        };
        x = after.clone();
        levels.push(Level { before, after });
    }
    Upward { logits: activation::log_softmax(network.head(x.mean), 1), levels }
}

/// The evidence as the way up reads it: what is not seen has the mean and the variance that pixels have.
///
/// # Errors
/// If images or mask are of another size.
pub(super) fn believed(model: &GenerativeModel, evidence: &Evidence) -> Result<Belief, Error> {
    evidence.checked(model.network.image())?;
    let hidden = evidence.visible.clone().neg() + 1.0;
    let mean = evidence.images.clone() * evidence.visible.clone() + model.pixels.mean.clone() * hidden.clone();
    Ok(Belief { mean, variance: model.pixels.variance.clone() * hidden })
}

/// The way up from what is seen.
pub(crate) fn upward_from(model: &GenerativeModel, evidence: &Evidence) -> Result<Upward, Error> {
    Ok(upward(&model.network, believed(model, evidence)?))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use firebrick_types::Seed;

    use super::*;
    use crate::classifiers::CnnConfig;

    /// A number is rounded by at most 2⁻⁸ of itself, and a variance is a sum of products of two.
    #[test]
    fn variances_in_bf16_are_those_in_f32_but_for_what_is_rounded_off() {
        let plan = CnnConfig::image(8, 8, 1).conv(6, 3, 1, 1).relu().max_pool(2, 2, 0);
        let plan = plan.conv(5, 3, 1, 1).relu().max_pool(2, 2, 0).linear(3);
        let network = Network::of(plan.init(Seed::new(5), &Device::flex()).unwrap()).unwrap();
        let numbers = |salt: usize| {
            let numbers = (0..128).map(|index| ((index * 37 + salt) % 101) as f32 / 101.0).collect::<Vec<_>>();
            Tensor::<4>::from_data(TensorData::new(numbers, [2, 8, 8, 1]), &Device::flex())
        };
        // Half of the first image's pixels are known.
        let belief = || Belief { mean: numbers(11), variance: (numbers(5) - 0.5).clamp_min(0.0) };
        let [exact, rounded] =
            [Precision::F32, Precision::Bf16].map(|precision| upward_in(&network, precision, belief()));
        let of = |x: &Tensor<4>| x.to_data().try_to_vec::<f32>().unwrap();
        assert_eq!(of(&exact.levels[0].after.variance), of(&rounded.levels[0].after.variance));
        let (exact, rounded) = (&exact.levels[1].before, &rounded.levels[1].before);
        let most = of(&exact.variance).into_iter().fold(0.0, f32::max);
        let mut differ = false;
        for (exact, rounded) in [(&exact.variance, &rounded.variance), (&exact.mean, &rounded.mean)] {
            for (exact, rounded) in of(exact).into_iter().zip(of(rounded)) {
                assert!((exact - rounded).abs() < 1e-2 * most.max(exact.abs()), "{rounded} for {exact}");
                differ |= exact != rounded;
            }
        }
        assert!(differ, "nothing is rounded");
    }
}
