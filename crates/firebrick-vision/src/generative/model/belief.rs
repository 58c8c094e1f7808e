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

impl Belief {
    /// What two independent sources say together, each counted by its precision.
    ///
    /// ```text
    /// m = (m₁ v₂ + m₂ v₁) / (v₁ + v₂)
    /// ```
    pub(crate) fn fused<const D: usize>([mean, variance]: [Tensor<D>; 2], [other, its]: [Tensor<D>; 2]) -> Tensor<D> {
        (mean * its.clone() + other * variance.clone()) / (variance + its)
    }
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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn row(numbers: [f32; 4]) -> Tensor<1> {
        Tensor::from_floats(numbers, &Device::flex())
    }

    #[test]
    fn p3_what_is_fused_lies_between() {
        let (down, up) = (row([1.0, -2.0, 0.5, 3.0]), row([2.0, 4.0, 0.5, -1.0]));
        let fused = Belief::fused([down.clone(), row([0.1, 2.0, 1.0, 7.0])], [up.clone(), row([0.4, 0.2, 3.0, 0.01])]);
        let numbers = |x: Tensor<1>| x.into_data().iter::<f32>().collect::<Vec<_>>();
        for ((fused, down), up) in numbers(fused).into_iter().zip(numbers(down)).zip(numbers(up)) {
            assert!((down.min(up)..=down.max(up)).contains(&fused), "{fused} of {down} and {up}");
        }
    }

    #[test]
    fn p4_what_is_certain_is_kept_and_what_is_unknown_counts_for_nothing() {
        let (down, up, noise) = (row([1.0, -2.0, 0.5, 3.0]), row([2.0, 4.0, -0.5, -1.0]), row([0.5; 4]));
        let at = |variance: f32| Belief::fused([down.clone(), noise.clone()], [up.clone(), row([variance; 4])]);
        firebrick_testkit::assert_close(at(0.0), up.clone(), 0.0);
        firebrick_testkit::assert_close(at(1e12), down.clone(), 1e-6);
    }
}
