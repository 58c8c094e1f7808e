//! What is believed of activations before the model was asked: a mean and a variance of each.

use burn::tensor::Tensor;

/// A mean and a variance of each number, as if they were independent.
#[derive(Clone, Debug)]
pub struct Belief {
    /// `[batch, height, width, channels]`
    pub mean: Tensor<4>,
    /// Of the same shape; 0 where a number is known.
    pub variance: Tensor<4>,
}

/// What is believed of a block's activations.
#[derive(Clone, Debug)]
pub struct Level {
    /// After the rectifier.
    pub before: Belief,
    /// After the pool, the same where there is none.
    pub after: Belief,
}

/// The way up through a network.
#[derive(Clone, Debug)]
pub struct Upward {
    /// Of each block.
    pub levels: Vec<Level>,
    /// The log-probabilities of the classes, of the means alone, `[batch, classes]`.
    pub logits: Tensor<2>,
}

/// The mean and the variance of rectified normal numbers.
///
/// ```text
/// α = μ / σ
/// m = μ Φ(α) + σ φ(α)
/// v = (μ² + σ²) Φ(α) + μ σ φ(α) − m²
/// ```
///
/// Without variance the number itself, rectified.
pub fn rectified(x: Belief) -> Belief {
    let Belief { mean, variance } = x;
    let known = variance.clone().lower_equal_elem(0.0);
    let deviation = variance.clone().mask_fill(known.clone(), 1.0).sqrt();
    let alpha = mean.clone() / deviation.clone();
    let below = ((alpha.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
    let density =
        (alpha.square() * -0.5).exp() * (0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
    let m = mean.clone() * below.clone() + deviation.clone() * density.clone();
    let second = (mean.clone().square() + variance) * below + mean.clone() * deviation * density;
    // What rounding leaves below 0.
    let v = (second - m.clone().square()).clamp_min(0.0);
    Belief { mean: m.mask_where(known.clone(), firebrick_kernels::relu(mean)), variance: v.mask_fill(known, 0.0) }
}
