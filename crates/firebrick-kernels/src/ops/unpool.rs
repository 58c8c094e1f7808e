//! Pools undone.

use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use crate::flex::is_flex;

/// A pool undone: each pooled number divided among the pixels of its window by how likely each of them won.
///
/// ```text
/// s = softmax over the window of (log ρ − (m − p)² / 2v)        u = s p
/// ```
///
/// Windows are squares side by side, of as many pixels on each side as there are rows of pixels to a row of windows.
///
/// # Shapes
/// - `pooled`: p, `[batch, height / side, width / side, channels]`
/// - `mean`, `variance`: m and v of what was pooled, `[batch, height, width, channels]`; variances above 0
/// - `log_prior`: log ρ of each pixel of images of several kinds, `[kinds, height, width, channels]`
/// - `kinds`: of each image, `[batch]`
/// - returns u and s, each `[batch, height, width, channels]`
///
/// # Panics
/// If the shapes disagree, windows leave pixels out, or there is no such kind.
pub fn soft_unpool(
    pooled: Tensor<4>,
    mean: Tensor<4>,
    variance: Tensor<4>,
    log_prior: Tensor<4>,
    kinds: &[usize],
) -> (Tensor<4>, Tensor<4>) {
    let ([batch, down, across, channels], [of_prior, height, width, _]) = (pooled.dims(), log_prior.dims());
    assert!(down > 0 && height.is_multiple_of(down), "{down} windows below each other in {height} pixels");
    let side = height / down;
    assert_eq!(width, side * across, "windows of {side} pixels leave some out");
    let expected = [batch, height, width, channels];
    assert_eq!((mean.dims(), variance.dims()), (expected, expected), "shapes of means and variances");
    assert_eq!(log_prior.dims()[3], channels, "channels of the prior");
    assert_eq!(kinds.len(), batch, "one kind of each image");
    assert!(kinds.iter().all(|&kind| kind < of_prior), "a kind that the prior does not have");
    #[cfg(feature = "flex")]
    if is_flex(&mean.device()) && ![&pooled, &mean, &variance, &log_prior].into_iter().any(Tensor::is_autodiff) {
        return fused::soft_unpool(pooled, mean, variance, log_prior, kinds);
    }
    plain::soft_unpool(pooled, mean, variance, log_prior, kinds)
}

pub(crate) mod plain {
    use burn::tensor::{Int, Tensor, TensorData};

    /// [`crate::soft_unpool`].
    pub fn soft_unpool(
        pooled: Tensor<4>,
        mean: Tensor<4>,
        variance: Tensor<4>,
        log_prior: Tensor<4>,
        kinds: &[usize],
    ) -> (Tensor<4>, Tensor<4>) {
        let ([batch, down, across, channels], dims) = (pooled.dims(), mean.dims());
        let pool = dims[1] / down;
        // Rows and columns of each window on axes of their own.
        let apart = |x: Tensor<4>| x.reshape([batch, down, pool, across, pool, channels]);
        let kinds = kinds.iter().map(|&kind| kind as i64).collect::<Vec<_>>();
        let kinds = Tensor::<1, Int>::from_data(TensorData::new(kinds, [batch]), &mean.device());
        let pooled = pooled.reshape([batch, down, 1, across, 1, channels]);
        let misfit = (apart(mean) - pooled.clone()).square() / (apart(variance) * 2.0);
        let logits = apart(log_prior.select(0, kinds)) - misfit;
        let max = logits.clone().max_dim(2).max_dim(4);
        let weights = (logits - max).exp();
        let switches = weights.clone() / weights.sum_dim(2).sum_dim(4);
        ((switches.clone() * pooled).reshape(dims), switches.reshape(dims))
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::Tensor;
    use multiversion::multiversion;

    use crate::flex::{compact, contiguous, dims, elements};
    use crate::vector::exp;

    /// Pools undone, through which nothing flows back.
    #[backend_extension(Flex)]
    trait FusedUnpool: Backend {
        fn soft_unpool(
            pooled: FloatTensor<Self>,
            mean: FloatTensor<Self>,
            variance: FloatTensor<Self>,
            log_prior: FloatTensor<Self>,
            kinds: Vec<usize>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
    }

    pub(super) fn soft_unpool(
        pooled: Tensor<4>,
        mean: Tensor<4>,
        variance: Tensor<4>,
        log_prior: Tensor<4>,
        kinds: &[usize],
    ) -> (Tensor<4>, Tensor<4>) {
        let (pooled, log_prior) = (pooled.into_dispatch(), log_prior.into_dispatch());
        let (mean, variance) = (mean.into_dispatch(), variance.into_dispatch());
        let (unpooled, switches) =
            <Dispatch as FusedUnpool>::soft_unpool(pooled, mean, variance, log_prior, kinds.to_vec());
        (Tensor::from_dispatch(unpooled), Tensor::from_dispatch(switches))
    }

    impl FusedUnpool for Flex {
        fn soft_unpool(
            pooled: FlexTensor,
            mean: FlexTensor,
            variance: FlexTensor,
            log_prior: FlexTensor,
            kinds: Vec<usize>,
        ) -> (FlexTensor, FlexTensor) {
            unpool(pooled, mean, variance, log_prior, &kinds)
        }
    }

    /// [`crate::soft_unpool`]; means and variances that nothing else holds are changed in place.
    fn unpool(
        pooled: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        log_prior: FlexTensor,
        kinds: &[usize],
    ) -> (FlexTensor, FlexTensor) {
        let [pooled, log_prior] = [pooled, log_prior].map(contiguous);
        let [mut unpooled, mut switches] = [mean, variance].map(compact);
        let [_, height, width, channels] = [0, 1, 2, 3].map(|axis| dims(&unpooled)[axis]);
        let image = Image { width, channels, pool: height / dims(&pooled)[1] };
        let (numbers, windows) = (height * width * channels, dims(&pooled)[1..].iter().product());
        let images = unpooled.storage_mut::<f32>().chunks_exact_mut(numbers);
        let images = images.zip(switches.storage_mut::<f32>().chunks_exact_mut(numbers));
        for (((unpooled, switches), pooled), &kind) in images.zip(elements(&pooled).chunks_exact(windows)).zip(kinds) {
            divide(image, pooled, &elements(&log_prior)[kind * numbers..][..numbers], unpooled, switches);
        }
        (unpooled, switches)
    }

    #[derive(Clone, Copy)]
    struct Image {
        width: usize,
        channels: usize,
        pool: usize,
    }

    /// Of one image: `shares` holds means and becomes what is unpooled, `switches` variances and becomes the switches.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn divide(image: Image, pooled: &[f32], log_prior: &[f32], shares: &mut [f32], switches: &mut [f32]) {
        let Image { width, channels, pool } = image;
        let across = width / pool;
        let (mut max, mut sum) = (vec![0.0_f32; across * channels], vec![0.0_f32; across * channels]);
        let rows = pool * width * channels;
        let windows = pooled.chunks_exact(across * channels).zip(log_prior.chunks_exact(rows));
        for ((pooled, log_prior), (shares, switches)) in
            windows.zip(shares.chunks_exact_mut(rows).zip(switches.chunks_exact_mut(rows)))
        {
            max.fill(f32::NEG_INFINITY);
            sum.fill(0.0);
            // Of a pixel, its place among the row's numbers and that of its window.
            let pixels = || (0..pool * width).map(|pixel| (pixel * channels, pixel % width / pool * channels));
            for (pixel, window) in pixels() {
                let (log_prior, shares) = (&log_prior[pixel..][..channels], &shares[pixel..][..channels]);
                let (switches, max) = (&mut switches[pixel..][..channels], &mut max[window..][..channels]);
                let pooled = &pooled[window..][..channels];
                for index in 0..channels {
                    let misfit = shares[index] - pooled[index];
                    let logit = log_prior[index] - misfit * misfit / (2.0 * switches[index]);
                    switches[index] = logit;
                    max[index] = if logit > max[index] { logit } else { max[index] };
                }
            }
            for (pixel, window) in pixels() {
                let (switches, max) = (&mut switches[pixel..][..channels], &max[window..][..channels]);
                let sum = &mut sum[window..][..channels];
                for index in 0..channels {
                    switches[index] = exp(switches[index] - max[index]);
                    sum[index] += switches[index];
                }
            }
            for (pixel, window) in pixels() {
                let (shares, switches) = (&mut shares[pixel..][..channels], &mut switches[pixel..][..channels]);
                let (pooled, sum) = (&pooled[window..][..channels], &sum[window..][..channels]);
                for index in 0..channels {
                    switches[index] /= sum[index];
                    shares[index] = switches[index] * pooled[index];
                }
            }
        }
    }
}
