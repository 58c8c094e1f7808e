//! The cross-correlation of images with weights: a convolution, and its gradient by the image.

use std::mem::MaybeUninit;

use half::bf16;
use rayon::prelude::*;

use super::frame::{Frame, Windows};
use super::planes::{FEW_CHANNELS, Planes, write_correlation};
use crate::gemm::{
    Amx, Im2col, Init, Kernel, MIN_PARALLEL_FLOPS, Matrix, pack_pairs_of_rows, pack_row_pairs, prepack_for,
    write_product_of_im2col,
};
use crate::precision::Precision;

/// The matrix unit, where factors are rounded and there is one.
pub(super) fn amx_for(precision: Precision) -> Option<Amx> {
    if precision == Precision::Bf16 { Amx::get() } else { None }
}

/// The fastest kernel, of f32 or, where factors are rounded, of pairs of BF16.
pub(super) fn kernel_for(precision: Precision) -> &'static Kernel {
    match precision {
        Precision::F32 => Kernel::best(),
        Precision::Bf16 => Kernel::best_of_pairs(),
    }
}

/// The cross-correlation of a batch with weights `[size, size, channels, out_channels]`: what every window gives.
pub(super) fn correlation(
    precision: Precision,
    (batch, frame): (&[f32], Frame),
    windows: Windows,
    (weight, size, out_channels): (&[f32], usize, usize),
    init: Init<'_>,
) -> Vec<f32> {
    let (image, channels) = (frame.pixels[0] * frame.pixels[1] * frame.channels, frame.channels);
    let few = out_channels <= FEW_CHANNELS && precision == Precision::F32 && windows.apart == [1, 1];
    let amx = amx_for(precision);
    let kernel = kernel_for(precision);
    // Of pairs each pixel has half as many, and each place of the window.
    let pairs = channels.div_ceil(2);
    let read = match precision {
        Precision::Bf16 if amx.is_none() => Frame { channels: pairs, ..frame },
        _ => frame,
    };
    let (starts, steps) = (read.starts(windows), read.steps(size));
    let pack = |weights| prepack_for(kernel, Matrix::row_major(weights, steps.len(), out_channels, out_channels)).0;
    let panels = match (amx, precision) {
        (Some(amx), _) => amx.pack_weights(weight, size, size * channels, out_channels),
        (None, Precision::F32) if few => Vec::new(),
        (None, Precision::F32) => pack(weight),
        (None, Precision::Bf16) => {
            let mut paired = vec![0.0; size * size * pairs * out_channels];
            let places =
                weight.chunks_exact(channels * out_channels).zip(paired.chunks_exact_mut(pairs * out_channels));
            places.for_each(|(from, to)| pack_pairs_of_rows(kernel, from, out_channels, to));
            pack(&paired)
        }
    };
    let each = starts.len() * out_channels;
    let images = batch.len() / image;
    let length = images * each;
    let mut y = Vec::with_capacity(length);
    let room = &mut y.spare_capacity_mut()[..length];
    let parallel = length * steps.len() >= 2 * MIN_PARALLEL_FLOPS;
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    // Fewer images than threads are divided among them.
    let pieces = threads / images.clamp(1, threads);
    let one = |(framed, rounded): &mut (Vec<f32>, Vec<bf16>), (image, y): (&[f32], &mut [MaybeUninit<f32>])| {
        if few {
            let planes = Planes::of(image, frame);
            let rows = windows.places[0].div_ceil(pieces.max(1));
            let of_rows = |(piece, y): (usize, &mut [MaybeUninit<f32>])| {
                let places = (windows.first, windows.places);
                write_correlation(&planes, places, (weight, size), init, (piece * rows, y));
            };
            if pieces > 1 {
                y.par_chunks_mut(rows * windows.places[1] * out_channels).enumerate().for_each(of_rows);
            } else {
                of_rows((0, y));
            }
            return;
        }
        match (amx, precision) {
            (None, Precision::Bf16) => read.fill(&pack_row_pairs(kernel, image, channels), framed),
            _ => read.fill(image, framed),
        }
        if let Some(amx) = amx {
            rounded.resize(framed.len(), bf16::ZERO);
            amx.round(framed, rounded);
        }
        let product = |(starts, y): (&[usize], &mut [MaybeUninit<f32>])| match amx {
            Some(amx) => {
                let patches = read.patches(rounded, starts, size);
                amx.write_product_of_patches(y, init, patches, &panels, out_channels);
            }
            None => {
                let windows = Im2col { data: framed, starts, steps: &steps };
                write_product_of_im2col(kernel, y, init, windows, &panels, out_channels);
            }
        };
        if pieces > 1 {
            let of_piece = starts.len().div_ceil(pieces);
            starts.par_chunks(of_piece).zip(y.par_chunks_mut(of_piece * out_channels)).for_each(product);
        } else {
            product((&starts, y));
        }
    };
    if threads > 1 {
        let images = batch.par_chunks_exact(image).zip(room.par_chunks_exact_mut(each));
        images.for_each_init(|| (read.empty(0), Vec::new()), one);
    } else {
        let mut frames = (read.empty(0), Vec::new());
        batch.chunks_exact(image).zip(room.chunks_exact_mut(each)).for_each(|images| one(&mut frames, images));
    }
    // SAFETY: the vector has this capacity, and the products of all images wrote every element.
    unsafe { y.set_len(length) }
    y
}
