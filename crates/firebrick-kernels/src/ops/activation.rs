//! Activations: GELU, SwiGLU, ReLU, and the moments of rectified normal numbers.

use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use crate::flex::is_flex;

/// The Gaussian error linear unit of each element.
///
/// ```text
/// gelu(x) = x Φ(x) = ½ x (1 + erf(x / √2))
/// ```
///
/// Hendrycks and Gimpel 2016, [arXiv:1606.08415](https://arxiv.org/abs/1606.08415).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return fused::gelu(x);
    }
    plain::gelu(x)
}

/// The Gaussian error linear unit as GPT-2 approximates it.
///
/// ```text
/// gelu(x) ≈ ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
/// ```
///
/// Hendrycks and Gimpel 2016, [arXiv:1606.08415](https://arxiv.org/abs/1606.08415), section 2.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return fused::gelu_tanh(x);
    }
    plain::gelu_tanh(x)
}

/// The gated unit of each pair of elements: gates in the first half of a row, what they let through in the second.
///
/// ```text
/// swiglu(a, b) = a σ(a) b
/// ```
///
/// Shazeer 2020, [arXiv:2002.05202](https://arxiv.org/abs/2002.05202), eq. 6.
///
/// # Shapes
/// - `x`: `[tokens, 2 d_ff]`
/// - returns `[tokens, d_ff]`
///
/// # Panics
/// If the width is odd.
pub fn swiglu(x: Tensor<2>) -> Tensor<2> {
    let [_, width] = x.dims();
    assert!(width.is_multiple_of(2), "a width of {width} has no halves");
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return fused::swiglu(x);
    }
    plain::swiglu(x)
}

/// The greater of each element and 0.
pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return fused::relu(x);
    }
    plain::relu(x)
}

/// The mean and the variance of [rectified](relu) normal numbers, of their own.
///
/// ```text
/// α = μ / σ
/// m = μ Φ(α) + σ φ(α)
/// v = (μ² + σ²) Φ(α) + μ σ φ(α) − m²
/// ```
///
/// Without variance the number itself, rectified. With the feature `flex` and where no gradient is asked for Φ is within 10⁻⁷.
///
/// # Panics
/// If the shapes disagree.
pub fn rectified_moments<const D: usize>(mean: Tensor<D>, variance: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    assert_eq!(mean.dims(), variance.dims(), "one variance of each mean");
    #[cfg(feature = "flex")]
    if is_flex(&mean.device()) && !mean.is_autodiff() && !variance.is_autodiff() {
        return fused::rectified_moments(mean, variance);
    }
    plain::rectified_moments(mean, variance)
}

pub(crate) mod plain {
    use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

    use burn::tensor::{Tensor, activation};

    /// [`crate::gelu`].
    pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        activation::gelu(x)
    }

    /// [`crate::gelu_tanh`].
    pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
        x * (inner.tanh() + 1.0) * 0.5
    }

    /// [`crate::swiglu`].
    pub fn swiglu(x: Tensor<2>) -> Tensor<2> {
        let [tokens, width] = x.dims();
        let d_ff = width / 2;
        let gate = x.clone().slice([0..tokens, 0..d_ff]);
        activation::silu(gate) * x.slice([0..tokens, d_ff..width])
    }

    /// [`crate::relu`].
    pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        activation::relu(x)
    }

    /// [`crate::rectified_moments`].
    pub fn rectified_moments<const D: usize>(mean: Tensor<D>, variance: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
        const DENSITY_AT_0: f64 = 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
        let known = variance.clone().lower_equal_elem(0.0);
        let deviation = variance.clone().mask_fill(known.clone(), 1.0).sqrt();
        let alpha = mean.clone() / deviation.clone();
        let below = ((alpha.clone() * FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
        let density = deviation * (alpha.square() * -0.5).exp() * DENSITY_AT_0;
        let first = mean.clone() * below.clone() + density.clone();
        let second = (mean.clone().square() + variance) * below + mean.clone() * density;
        // What rounding leaves below 0.
        let left = (second - first.clone().square()).clamp_min(0.0).mask_fill(known.clone(), 0.0);
        (first.clamp_min(0.0).mask_where(known, activation::relu(mean)), left)
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

    use crate::flex::{Vjp, compact, contiguous, dims, elements, tensor, tracked};
    use crate::vector::{erf, exp};

    /// Activations, with their backward passes.
    #[backend_extension(Flex, Autodiff)]
    trait FusedActivation: Backend {
        fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
        fn fused_gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self>;
        fn fused_swiglu(x: FloatTensor<Self>) -> FloatTensor<Self>;
        fn fused_relu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    }

    /// The moments of rectified normal numbers, through which nothing flows back.
    #[backend_extension(Flex)]
    trait FusedMoments: Backend {
        fn rectified_moments(
            mean: FloatTensor<Self>,
            variance: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
    }

    pub(super) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        Tensor::from_dispatch(<Dispatch as FusedActivation>::fused_gelu(x.into_dispatch()))
    }

    pub(super) fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        Tensor::from_dispatch(<Dispatch as FusedActivation>::fused_gelu_tanh(x.into_dispatch()))
    }

    pub(super) fn swiglu(x: Tensor<2>) -> Tensor<2> {
        Tensor::from_dispatch(<Dispatch as FusedActivation>::fused_swiglu(x.into_dispatch()))
    }

    pub(super) fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        Tensor::from_dispatch(<Dispatch as FusedActivation>::fused_relu(x.into_dispatch()))
    }

    pub(super) fn rectified_moments<const D: usize>(mean: Tensor<D>, variance: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
        let (mean, variance) =
            <Dispatch as FusedMoments>::rectified_moments(mean.into_dispatch(), variance.into_dispatch());
        (Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
    }

    /// A function of each element, and its backward pass, which turns the gradient of the result into that of the elements.
    #[derive(Clone, Copy, Debug)]
    struct Elementwise {
        forward: fn(&[f32], &mut [f32]),
        backward: fn(&[f32], &mut [f32]),
    }

    const GELU: Elementwise = Elementwise { forward: gelu_of, backward: gelu_backward };

    const GELU_TANH: Elementwise = Elementwise { forward: gelu_tanh_of, backward: gelu_tanh_backward };

    impl Elementwise {
        fn of(self, x: &FlexTensor) -> FlexTensor {
            let x_values = elements(x);
            let mut y = vec![0.0; x_values.len()];
            (self.forward)(x_values, &mut y);
            tensor(y, dims(x))
        }
    }

    fn swiglu_forward(x: &FlexTensor) -> FlexTensor {
        let [tokens, width] = [0, 1].map(|axis| dims(x)[axis]);
        let d_ff = width / 2;
        let mut y = vec![0.0; tokens * d_ff];
        for (x, y) in elements(x).chunks_exact(width).zip(y.chunks_exact_mut(d_ff)) {
            swiglu_of(&x[..d_ff], &x[d_ff..], y);
        }
        tensor(y, vec![tokens, d_ff])
    }

    impl FusedActivation for Flex {
        fn fused_gelu(x: FlexTensor) -> FlexTensor {
            GELU.of(&contiguous(x))
        }

        fn fused_gelu_tanh(x: FlexTensor) -> FlexTensor {
            GELU_TANH.of(&contiguous(x))
        }

        fn fused_swiglu(x: FlexTensor) -> FlexTensor {
            swiglu_forward(&contiguous(x))
        }

        fn fused_relu(x: FlexTensor) -> FlexTensor {
            let mut x = compact(x);
            relu_of(x.storage_mut::<f32>());
            x
        }
    }

    impl FusedMoments for Flex {
        fn rectified_moments(mean: FlexTensor, variance: FlexTensor) -> (FlexTensor, FlexTensor) {
            let (mut mean, mut variance) = (compact(mean), compact(variance));
            rectified_moments_of(mean.storage_mut::<f32>(), variance.storage_mut::<f32>());
            (mean, variance)
        }
    }

    /// The backward pass of a function of each element, and what it reads.
    #[derive(Clone, Debug)]
    struct ElementwiseState(fn(&[f32], &mut [f32]), FlexTensor);

    impl Vjp<1> for ElementwiseState {
        fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            let Self(backward, read) = self;
            let mut g = compact(g);
            backward(elements(&read), g.storage_mut::<f32>());
            [Some(g.reshape(read.layout().shape().clone()))]
        }
    }

    #[derive(Clone, Debug)]
    struct SwigluState(FlexTensor);

    impl Vjp<1> for SwigluState {
        fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            let Self(x) = self;
            let width = dims(&x)[1];
            let d_ff = width / 2;
            let mut dx = vec![0.0; elements(&x).len()];
            let rows = elements(&x).chunks_exact(width).zip(elements(&g).chunks_exact(d_ff));
            for ((x, g), dx) in rows.zip(dx.chunks_exact_mut(width)) {
                let (dgate, dup) = dx.split_at_mut(d_ff);
                swiglu_backward(&x[..d_ff], &x[d_ff..], g, dgate, dup);
            }
            [Some(tensor(dx, dims(&x)))]
        }
    }

    /// The function of each element, tracked if its argument is.
    fn elementwise<C: CheckpointStrategy>(
        function: Elementwise,
        x: FloatTensor<Autodiff<Flex, C>>,
    ) -> FloatTensor<Autodiff<Flex, C>> {
        let node = x.node();
        let x = contiguous(x.into_primitive());
        tracked::<C, _, _>([node], function.of(&x), ElementwiseState(function.backward, x))
    }

    impl<C: CheckpointStrategy> FusedActivation for Autodiff<Flex, C> {
        fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
            elementwise::<C>(GELU, x)
        }

        fn fused_gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
            elementwise::<C>(GELU_TANH, x)
        }

        fn fused_swiglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
            let node = x.node();
            let x = contiguous(x.into_primitive());
            let y = swiglu_forward(&x);
            tracked::<C, _, _>([node], y, SwigluState(x))
        }

        fn fused_relu(x: FloatTensor<Self>) -> FloatTensor<Self> {
            let node = x.node();
            // The result tells as well as what was rectified where a gradient flows.
            let y = Flex::fused_relu(x.into_primitive());
            tracked::<C, _, _>([node], y.clone(), ElementwiseState(relu_backward, y))
        }
    }

    /// 1 / √2π
    const DENSITY_AT_0: f32 = 0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;

    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn gelu_of(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2).0);
        }
    }

    /// dx = g (Φ(x) + x φ(x))
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn gelu_backward(x: &[f32], g: &mut [f32]) {
        for (g, &x) in g.iter_mut().zip(x) {
            let (erf, gauss) = erf(x * std::f32::consts::FRAC_1_SQRT_2);
            *g *= 0.5 * (1.0 + erf) + x * gauss * DENSITY_AT_0;
        }
    }

    /// tanh of the polynomial that GPT-2 takes for erf, and that polynomial's slope.
    #[inline(always)]
    fn gelu_tanh_parts(x: f32) -> (f32, f32) {
        const ROOT: f32 = 0.797_884_6; // √(2/π)
        const CUBIC: f32 = 0.044_715;
        let inner = ROOT * x * (CUBIC * x).mul_add(x, 1.0);
        // tanh u = 1 − 2 / (e^{2u} + 1)
        let tanh = 1.0 - 2.0 / (exp(2.0 * inner) + 1.0);
        (tanh, ROOT * (3.0 * CUBIC * x).mul_add(x, 1.0))
    }

    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn gelu_tanh_of(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = 0.5 * x * (1.0 + gelu_tanh_parts(x).0);
        }
    }

    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn gelu_tanh_backward(x: &[f32], g: &mut [f32]) {
        for (g, &x) in g.iter_mut().zip(x) {
            let (tanh, slope) = gelu_tanh_parts(x);
            *g *= 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope;
        }
    }

    /// y = silu(gate) · up
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn swiglu_of(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate / (1.0 + exp(-gate)) * up;
        }
    }

    /// With σ = sigmoid(gate): d gate = g up σ (1 + gate (1 − σ)), d up = g gate σ.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn swiglu_backward(gate: &[f32], up: &[f32], g: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        for ((((dgate, dup), &gate), &up), &g) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(g) {
            let sigmoid = 1.0 / (1.0 + exp(-gate));
            *dgate = g * up * sigmoid * gate.mul_add(1.0 - sigmoid, 1.0);
            *dup = g * gate * sigmoid;
        }
    }

    /// The moments of rectified normal numbers, in place of those of the numbers.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn rectified_moments_of(means: &mut [f32], variances: &mut [f32]) {
        for (mean, variance) in means.iter_mut().zip(variances) {
            let (x, known) = (*mean, *variance <= 0.0);
            let deviation = if known { 1.0 } else { *variance }.sqrt();
            let (erf, gauss) = erf(x / deviation * std::f32::consts::FRAC_1_SQRT_2);
            let (below, density) = (0.5 * (1.0 + erf), deviation * gauss * DENSITY_AT_0);
            let first = x * below + density;
            let second = (x * x + *variance) * below + x * density;
            let above = if x > 0.0 { x } else { 0.0 };
            // What rounding leaves below 0.
            *variance = if known { 0.0 } else { (second - first * first).max(0.0) };
            *mean = if known { above } else { first.max(0.0) };
        }
    }

    /// x ← max(x, 0)
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn relu_of(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = if *x > 0.0 { *x } else { 0.0 });
    }

    /// dx = g where the rectified number is above 0, else 0
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn relu_backward(y: &[f32], g: &mut [f32]) {
        g.iter_mut().zip(y).for_each(|(g, &y)| *g = if y > 0.0 { *g } else { 0.0 });
    }
}
