//! Pools undone: each pooled number divided among the pixels of its window.

use burn::backend::flex::FlexTensor;
use multiversion::multiversion;

use super::vector::exp;
use super::{contiguous, dims, elements, whole};

/// [`crate::soft_unpool`]; means and variances that nothing else holds are changed where they lie.
pub(super) fn soft_unpool(
    pooled: FlexTensor,
    mean: FlexTensor,
    variance: FlexTensor,
    log_prior: FlexTensor,
    kinds: &[usize],
) -> (FlexTensor, FlexTensor) {
    let [pooled, log_prior] = [pooled, log_prior].map(contiguous);
    let [mut unpooled, mut switches] = [mean, variance].map(whole);
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
    let (mut most, mut sum) = (vec![0.0_f32; across * channels], vec![0.0_f32; across * channels]);
    let rows = pool * width * channels;
    let windows = pooled.chunks_exact(across * channels).zip(log_prior.chunks_exact(rows));
    for ((pooled, log_prior), (shares, switches)) in
        windows.zip(shares.chunks_exact_mut(rows).zip(switches.chunks_exact_mut(rows)))
    {
        most.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        // Of a pixel, its place among the row's numbers and that of its window.
        let pixels = || (0..pool * width).map(|pixel| (pixel * channels, pixel % width / pool * channels));
        for (pixel, window) in pixels() {
            let (log_prior, shares) = (&log_prior[pixel..][..channels], &shares[pixel..][..channels]);
            let (switches, most) = (&mut switches[pixel..][..channels], &mut most[window..][..channels]);
            let pooled = &pooled[window..][..channels];
            for index in 0..channels {
                let misfit = shares[index] - pooled[index];
                let logit = log_prior[index] - misfit * misfit / (2.0 * switches[index]);
                switches[index] = logit;
                most[index] = if logit > most[index] { logit } else { most[index] };
            }
        }
        for (pixel, window) in pixels() {
            let (switches, most) = (&mut switches[pixel..][..channels], &most[window..][..channels]);
            let sum = &mut sum[window..][..channels];
            for index in 0..channels {
                switches[index] = exp(switches[index] - most[index]);
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
