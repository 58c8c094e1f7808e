//! Norms of rows.

use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use crate::flex::is_flex;

/// Rows scaled to root mean square 1, then by a weight.
///
/// ```text
/// y = x / √(mean(x²) + ε) · weight
/// ```
///
/// Zhang and Sennrich 2019, [arXiv:1910.07467](https://arxiv.org/abs/1910.07467), eq. 4.
///
/// # Shapes
/// - `x`: `[tokens, d_model]`
/// - `weight`: `[d_model]`
/// - returns `[tokens, d_model]`
///
/// # Panics
/// If the shapes disagree.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let [_, d_model] = x.dims();
    assert_eq!(weight.dims(), [d_model], "shape of the weight");
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return fused::rms_norm(x, weight, epsilon);
    }
    plain::rms_norm(x, weight, epsilon)
}

/// Rows scaled to mean 0 and variance 1, then by a weight and a bias.
///
/// ```text
/// y = (x − x̄) / √(σ² + ε) · weight + bias
/// ```
///
/// Ba, Kiros and Hinton 2016, [arXiv:1607.06450](https://arxiv.org/abs/1607.06450).
///
/// # Shapes
/// - `x`: `[tokens, d_model]`
/// - `weight`, `bias`: `[d_model]`
/// - returns `[tokens, d_model]`
///
/// # Panics
/// If the shapes disagree.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let [_, d_model] = x.dims();
    assert_eq!((weight.dims(), bias.dims()), ([d_model], [d_model]), "shapes of weight and bias");
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return fused::layer_norm(x, weight, bias, epsilon);
    }
    plain::layer_norm(x, weight, bias, epsilon)
}

pub(crate) mod plain {
    use burn::tensor::Tensor;

    /// [`crate::rms_norm`].
    pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
        let size = (x.clone().square().mean_dim(1) + epsilon).sqrt();
        x / size * weight.unsqueeze()
    }

    /// [`crate::layer_norm`].
    pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
        let centred = x.clone() - x.mean_dim(1);
        let deviation = (centred.clone().square().mean_dim(1) + epsilon).sqrt();
        centred / deviation * weight.unsqueeze() + bias.unsqueeze()
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

    use crate::flex::{Vjp, contiguous, dims, elements, tensor, tracked};
    use crate::vector::{dot, sum};

    /// Norms of rows, with their backward passes.
    #[backend_extension(Flex, Autodiff)]
    trait FusedNorm: Backend {
        fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;
        fn fused_layer_norm(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            epsilon: f32,
        ) -> FloatTensor<Self>;
    }

    pub(super) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        Tensor::from_dispatch(<Dispatch as FusedNorm>::fused_rms_norm(x, weight, epsilon as f32))
    }

    pub(super) fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
        let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
        Tensor::from_dispatch(<Dispatch as FusedNorm>::fused_layer_norm(x, weight, bias, epsilon as f32))
    }

    /// The normalised rows, and each one's inverse root mean square.
    fn rms_norm_forward(x: &FlexTensor, weight: &FlexTensor, epsilon: f32) -> (FlexTensor, Vec<f32>) {
        let (values, weight) = (elements(x), elements(weight));
        let mut y = vec![0.0; values.len()];
        let rows = values.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len()));
        let inverses = rows.map(|(x, y)| rms_norm_row(x, weight, epsilon, y)).collect();
        (tensor(y, dims(x)), inverses)
    }

    #[derive(Clone, Debug)]
    struct RmsNormState {
        x: FlexTensor,
        weight: FlexTensor,
        inverses: Vec<f32>,
    }

    impl Vjp<2> for RmsNormState {
        fn vjp(self, g: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
            let Self { x, weight, inverses } = self;
            let d_model = elements(&weight).len();
            let (mut dx, mut dweight) = (vec![0.0; elements(&x).len()], vec![0.0; d_model]);
            let rows = elements(&x).chunks_exact(d_model).zip(elements(&g).chunks_exact(d_model));
            for (((x, g), dx), inverse) in rows.zip(dx.chunks_exact_mut(d_model)).zip(inverses) {
                rms_norm_row_backward(x, elements(&weight), g, inverse, dx, &mut dweight);
            }
            [Some(tensor(dx, dims(&x))), Some(tensor(dweight, vec![d_model]))]
        }
    }

    /// The normalised rows, and mean and inverse deviation of each.
    fn layer_norm_forward(
        x: &FlexTensor,
        weight: &FlexTensor,
        bias: &FlexTensor,
        epsilon: f32,
    ) -> (FlexTensor, Vec<[f32; 2]>) {
        let (weight, bias) = (elements(weight), elements(bias));
        let values = elements(x);
        let mut y = vec![0.0; values.len()];
        let rows = values.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len()));
        let moments = rows.map(|(x, y)| layer_norm_row(x, weight, bias, epsilon, y)).collect();
        (tensor(y, dims(x)), moments)
    }

    #[derive(Clone, Debug)]
    struct LayerNormState {
        x: FlexTensor,
        weight: FlexTensor,
        moments: Vec<[f32; 2]>,
    }

    impl Vjp<3> for LayerNormState {
        fn vjp(self, g: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
            let Self { x, weight, moments } = self;
            let d_model = elements(&weight).len();
            let mut dx = vec![0.0; elements(&x).len()];
            let (mut dweight, mut dbias) = (vec![0.0; d_model], vec![0.0; d_model]);
            let rows = elements(&x).chunks_exact(d_model).zip(elements(&g).chunks_exact(d_model));
            for (((x, g), dx), moments) in rows.zip(dx.chunks_exact_mut(d_model)).zip(moments) {
                layer_norm_row_backward(x, elements(&weight), g, moments, dx, &mut dweight, &mut dbias);
            }
            let of_vector = |values| Some(tensor(values, vec![d_model]));
            [Some(tensor(dx, dims(&x))), of_vector(dweight), of_vector(dbias)]
        }
    }

    impl FusedNorm for Flex {
        fn fused_rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f32) -> FlexTensor {
            rms_norm_forward(&contiguous(x), &contiguous(weight), epsilon).0
        }

        fn fused_layer_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, epsilon: f32) -> FlexTensor {
            layer_norm_forward(&contiguous(x), &contiguous(weight), &contiguous(bias), epsilon).0
        }
    }

    impl<C: CheckpointStrategy> FusedNorm for Autodiff<Flex, C> {
        fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
            let nodes = [x.node(), weight.node()];
            let [x, weight] = [x, weight].map(|tensor| contiguous(tensor.into_primitive()));
            let (y, inverses) = rms_norm_forward(&x, &weight, epsilon);
            tracked::<C, _, _>(nodes, y, RmsNormState { x, weight, inverses })
        }

        fn fused_layer_norm(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            epsilon: f32,
        ) -> FloatTensor<Self> {
            let nodes = [x.node(), weight.node(), bias.node()];
            let [x, weight, bias] = [x, weight, bias].map(|tensor| contiguous(tensor.into_primitive()));
            let (y, moments) = layer_norm_forward(&x, &weight, &bias, epsilon);
            tracked::<C, _, _>(nodes, y, LayerNormState { x, weight, moments })
        }
    }

    /// One row; returns the inverse of its root mean square.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn rms_norm_row(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) -> f32 {
        let inverse = 1.0 / (sum(x, |v| v * v) / x.len() as f32 + epsilon).sqrt();
        for ((y, &x), &weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * inverse * weight;
        }
        inverse
    }

    /// With x̂ the normalised row and h = g · weight: dx = (h − x̂ mean(h x̂)) / rms; d weight += g x̂.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn rms_norm_row_backward(x: &[f32], weight: &[f32], g: &[f32], inverse: f32, dx: &mut [f32], dweight: &mut [f32]) {
        for index in 0..x.len() {
            dweight[index] = g[index].mul_add(x[index] * inverse, dweight[index]);
            dx[index] = g[index] * weight[index];
        }
        let along = dot(dx, x) * inverse * inverse / x.len() as f32;
        for (dx, &x) in dx.iter_mut().zip(x) {
            *dx = inverse * (*dx - x * along);
        }
    }

    /// One row; returns its mean and the inverse of its deviation.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn layer_norm_row(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) -> [f32; 2] {
        let width = x.len() as f32;
        let mean = sum(x, |v| v) / width;
        let variance = sum(x, |v| (v - mean) * (v - mean)) / width;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        for (((y, &x), &weight), &bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
            *y = ((x - mean) * inverse).mul_add(weight, bias);
        }
        [mean, inverse]
    }

    /// With x̂ the normalised row and h = g · weight: dx = (h − h̄ − x̂ mean(h x̂)) / deviation; d weight += g x̂, d bias += g.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn layer_norm_row_backward(
        x: &[f32],
        weight: &[f32],
        g: &[f32],
        [mean, inverse]: [f32; 2],
        dx: &mut [f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        let width = x.len() as f32;
        for index in 0..x.len() {
            let normal = (x[index] - mean) * inverse;
            dweight[index] = g[index].mul_add(normal, dweight[index]);
            dbias[index] += g[index];
            dx[index] = g[index] * weight[index];
        }
        let sum = sum(dx, |v| v);
        let along = (dot(dx, x) - mean * sum) * inverse / width;
        let level = sum / width;
        for (dx, &x) in dx.iter_mut().zip(x) {
            *dx = inverse * (*dx - level - (x - mean) * inverse * along);
        }
    }
}
