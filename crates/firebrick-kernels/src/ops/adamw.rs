//! A step of AdamW over flat parameters, and the norm that gradients are clipped by.

use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use crate::flex::is_flex;

/// The numbers of one step of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// β₁, the decay of the mean.
    pub beta_1: f64,
    /// β₂, the decay of the mean square.
    pub beta_2: f64,
    /// What is left of the weights before the step: 1 − η λ.
    pub kept: f64,
    /// The factor of the mean: η / (1 − β₁ᵗ).
    pub mean_factor: f64,
    /// The factor of the root of the mean square: 1 / √(1 − β₂ᵗ).
    pub root_factor: f64,
    /// ε, added to the denominator.
    pub epsilon: f64,
}

/// Weights, mean and mean square after one step of AdamW; nothing flows back.
///
/// ```text
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// w ← kept w − mean_factor m / (root_factor √v + ε)
/// ```
///
/// Loshchilov and Hutter 2019, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101), algorithm 2.
///
/// # Shapes
/// - all: `[parameters]`
///
/// # Panics
/// If the shapes disagree.
pub fn adamw(
    weights: Tensor<1>,
    gradient: Tensor<1>,
    mean: Tensor<1>,
    square: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let [parameters] = weights.dims();
    for (name, tensor) in [("gradient", &gradient), ("mean", &mean), ("mean square", &square)] {
        assert_eq!(tensor.dims(), [parameters], "shape of the {name}");
    }
    #[cfg(feature = "flex")]
    if is_flex(&weights.device()) {
        return fused::adamw(weights, gradient, mean, square, step);
    }
    plain::adamw(weights, gradient, mean, square, step)
}

/// The sum of the squares of all elements, `[1]`; nothing flows back.
pub fn square_sum(x: Tensor<1>) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return fused::square_sum(x);
    }
    plain::square_sum(x)
}

pub(crate) mod plain {
    use burn::tensor::Tensor;

    use super::AdamWStep;

    /// [`crate::adamw`].
    pub fn adamw(
        weights: Tensor<1>,
        gradient: Tensor<1>,
        mean: Tensor<1>,
        square: Tensor<1>,
        step: AdamWStep,
    ) -> [Tensor<1>; 3] {
        let mean = mean * step.beta_1 + gradient.clone() * (1.0 - step.beta_1);
        let square = square * step.beta_2 + gradient.square() * (1.0 - step.beta_2);
        let denominator = square.clone().sqrt() * step.root_factor + step.epsilon;
        let change = mean.clone() / denominator * step.mean_factor;
        [weights * step.kept - change, mean, square]
    }

    /// [`crate::square_sum`].
    pub fn square_sum(x: Tensor<1>) -> Tensor<1> {
        x.square().sum()
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::autodiff::Autodiff;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::Tensor;
    use multiversion::multiversion;

    use super::AdamWStep;
    use crate::flex::{compact, constant, contiguous, elements, tensor};
    use crate::vector::dot;

    /// What an optimiser does to flat parameters, in one pass over memory; nothing flows back.
    #[backend_extension(Flex, Autodiff)]
    trait FusedAdamW: Backend {
        fn fused_adamw(
            weights: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
            mean: FloatTensor<Self>,
            square: FloatTensor<Self>,
            step: AdamWStep,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
        fn fused_square_sum(x: FloatTensor<Self>) -> FloatTensor<Self>;
    }

    pub(super) fn adamw(
        weights: Tensor<1>,
        gradient: Tensor<1>,
        mean: Tensor<1>,
        square: Tensor<1>,
        step: AdamWStep,
    ) -> [Tensor<1>; 3] {
        let (weights, gradient) = (weights.into_dispatch(), gradient.into_dispatch());
        let (mean, square) = (mean.into_dispatch(), square.into_dispatch());
        let (weights, mean, square) = <Dispatch as FusedAdamW>::fused_adamw(weights, gradient, mean, square, step);
        [weights, mean, square].map(Tensor::from_dispatch)
    }

    pub(super) fn square_sum(x: Tensor<1>) -> Tensor<1> {
        Tensor::from_dispatch(<Dispatch as FusedAdamW>::fused_square_sum(x.into_dispatch()))
    }

    /// Weights, mean and mean square; moments that nothing else holds are changed in place.
    fn adamw_step(
        weights: FlexTensor,
        gradient: FlexTensor,
        mean: FlexTensor,
        square: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let gradient = contiguous(gradient);
        let [mut weights, mut mean, mut square] = [weights, mean, square].map(compact);
        update(
            weights.storage_mut::<f32>(),
            elements(&gradient),
            mean.storage_mut::<f32>(),
            square.storage_mut::<f32>(),
            step,
        );
        (weights, mean, square)
    }

    /// In blocks of f32, which are added up in f64.
    fn square_sum_of(x: FlexTensor) -> FlexTensor {
        const BLOCK: usize = 4096;
        let x = contiguous(x);
        let sum = elements(&x).chunks(BLOCK).map(|block| f64::from(squares(block))).sum::<f64>();
        tensor(vec![sum as f32], vec![1])
    }

    impl FusedAdamW for Flex {
        fn fused_adamw(
            weights: FlexTensor,
            gradient: FlexTensor,
            mean: FlexTensor,
            square: FlexTensor,
            step: AdamWStep,
        ) -> (FlexTensor, FlexTensor, FlexTensor) {
            adamw_step(weights, gradient, mean, square, step)
        }

        fn fused_square_sum(x: FlexTensor) -> FlexTensor {
            square_sum_of(x)
        }
    }

    impl<C: CheckpointStrategy> FusedAdamW for Autodiff<Flex, C> {
        fn fused_adamw(
            weights: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
            mean: FloatTensor<Self>,
            square: FloatTensor<Self>,
            step: AdamWStep,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            let [weights, gradient, mean, square] =
                [weights, gradient, mean, square].map(|tensor| tensor.into_primitive());
            let (weights, mean, square) = adamw_step(weights, gradient, mean, square, step);
            (constant::<C>(weights), constant::<C>(mean), constant::<C>(square))
        }

        fn fused_square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
            constant::<C>(square_sum_of(x.into_primitive()))
        }
    }

    /// Σ x²
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn squares(x: &[f32]) -> f32 {
        dot(x, x)
    }

    /// [`crate::adamw`], in place.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn update(weights: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], step: AdamWStep) {
        let [beta_1, beta_2] = [step.beta_1, step.beta_2].map(|beta| beta as f32);
        let [rest_1, rest_2] = [1.0 - step.beta_1, 1.0 - step.beta_2].map(|rest| rest as f32);
        let [kept, mean_factor] = [step.kept, step.mean_factor].map(|factor| factor as f32);
        let [root_factor, epsilon] = [step.root_factor, step.epsilon].map(|number| number as f32);
        let moments = mean.iter_mut().zip(square);
        for ((w, &g), (m, v)) in weights.iter_mut().zip(gradient).zip(moments) {
            *m = *m * beta_1 + g * rest_1;
            *v = *v * beta_2 + g * g * rest_2;
            *w = *w * kept - *m / (v.sqrt() * root_factor + epsilon) * mean_factor;
        }
    }
}
