//! Correlations with few output channels: places side by side fill a vector, as channels would not.

use std::mem::MaybeUninit;

use multiversion::multiversion;

use super::frame::Frame;
use crate::gemm::Init;

/// So few channels are faster one by one; a tile has room for sixteen, and takes as long for one.
pub(super) const FEW_CHANNELS: usize = 6;

/// Places that are treated together, and in a vector.
const PLACES: usize = 32;
const LANES: usize = 16;

/// A channel of a framed image, row after row, then the next channel; what is read beyond the last one is 0.
#[derive(Debug)]
pub(super) struct Planes {
    data: Vec<f32>,
    /// From a plane to the next.
    plane: usize,
    channels: usize,
    /// Rows and columns of a plane.
    size: [usize; 2],
}

impl Planes {
    /// Of an image whose pixels' channels lie side by side, with its frame.
    pub(super) fn of(image: &[f32], frame: Frame) -> Self {
        let Frame { pixels: [_, columns], channels, before, apart, size } = frame;
        // Planes a power of two apart would push each other out of the nearest cache.
        let plane = size[0] * size[1] + LANES;
        let mut data = vec![0.0; plane * channels + PLACES];
        for (row, from) in image.chunks_exact(columns * channels).enumerate() {
            let begin = (before + row * apart) * size[1] + before;
            for channel in 0..channels {
                let to = data[channel * plane + begin..].iter_mut().step_by(apart);
                from[channel..].iter().step_by(channels).zip(to).for_each(|(&from, to)| *to = from);
            }
        }
        Self { data, plane, channels, size }
    }
}

/// What every window of side `side` gives, window after window, that begins `first` down and across or up to `places` further; in `y` those
/// of whole rows of places from row `from` on.
///
/// Each sum runs over rows, columns and channels of the window in this order, as of a product.
///
/// # Panics
/// If the shapes disagree or a window lies beyond the image.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn write_correlation(
    planes: &Planes,
    (first, places): (usize, [usize; 2]),
    (weight, side): (&[f32], usize),
    init: Init<'_>,
    (from, y): (usize, &mut [MaybeUninit<f32>]),
) {
    let Planes { data, plane, channels, size: [height, width] } = planes;
    let out_channels = weight.len() / (side * side * channels);
    let rows = y.len() / (places[1] * out_channels).max(1);
    assert!(y.len() == rows * places[1] * out_channels && from + rows <= places[0], "shape of a correlation");
    assert!(
        first + places[0] + side <= height + 1 && first + places[1] + side <= width + 1,
        "a window beyond the image"
    );
    for row in 0..rows {
        for column in (0..places[1]).step_by(PLACES) {
            let count = PLACES.min(places[1] - column);
            for out in 0..out_channels {
                let begin = if let Init::Bias(row) = init { row[out] } else { 0.0 };
                let mut sums = [[begin; LANES]; PLACES / LANES];
                for place in 0..side * side {
                    let (down, across) = (first + from + row + place / side, first + column + place % side);
                    for channel in 0..*channels {
                        let weight = weight[(place * channels + channel) * out_channels + out];
                        let from = &data[channel * plane + down * width + across..][..PLACES];
                        let from = from.as_chunks::<LANES>().0;
                        for (vector, sums) in sums.iter_mut().enumerate() {
                            // A loop that the compiler unrolls, so that sums stay in registers.
                            for lane in 0..LANES {
                                sums[lane] = from[vector][lane].mul_add(weight, sums[lane]);
                            }
                        }
                    }
                }
                let to = y[(row * places[1] + column) * out_channels + out..].iter_mut().step_by(out_channels);
                to.zip(sums.into_iter().flatten()).take(count).for_each(|(to, sum)| _ = to.write(sum));
            }
        }
    }
}
