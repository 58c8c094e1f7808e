//! Images with zeros around their pixels, and the windows over them.

use half::bf16;

use super::super::window::Images;
use crate::gemm::Patches;

/// Images with zeros around their pixels, and between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Rows and columns of the image.
    pub(super) pixels: [usize; 2],
    pub(super) channels: usize,
    /// Zeros above and to the left.
    pub(super) before: usize,
    /// From a pixel to the next.
    pub(super) apart: usize,
    /// Rows and columns of all.
    pub(super) size: [usize; 2],
}

impl Frame {
    /// The images with the zeros that their window meets beyond the edges.
    pub(super) fn of(images: &Images) -> Self {
        let (pixels, before) = ([images.height, images.width], images.window.padding);
        let size = pixels.map(|length| length + 2 * before);
        Self { pixels, channels: images.channels, before, apart: 1, size }
    }

    /// An empty one, and a number of zeros after it.
    pub(super) fn empty(&self, after: usize) -> Vec<f32> {
        vec![0.0; self.size[0] * self.size[1] * self.channels + after]
    }

    /// Writes an image where its pixels belong.
    pub(super) fn fill(&self, image: &[f32], framed: &mut [f32]) {
        let Self { pixels: [_, columns], channels, before, apart, size: [_, width], .. } = *self;
        for (row, from) in image.chunks_exact(columns * channels).enumerate() {
            let to = &mut framed[((before + row * apart) * width + before) * channels..];
            if apart == 1 {
                to[..from.len()].copy_from_slice(from);
            } else {
                let places = to.chunks_mut(apart * channels);
                places.zip(from.chunks_exact(channels)).for_each(|(to, from)| to[..channels].copy_from_slice(from));
            }
        }
    }

    /// Where windows begin.
    pub(super) fn starts(&self, Windows { first, places, apart: [down, across] }: Windows) -> Vec<usize> {
        let start =
            |row: usize, column: usize| ((first + row * down) * self.size[1] + first + column * across) * self.channels;
        (0..places[0]).flat_map(|row| (0..places[1]).map(move |column| start(row, column))).collect()
    }

    /// Windows of so many rows and columns on rounded images in such a frame.
    pub(super) fn patches<'a>(&self, data: &'a [bf16], starts: &'a [usize], size: usize) -> Patches<'a> {
        Patches { data, starts, rows: size, row_length: size * self.channels, row_stride: self.size[1] * self.channels }
    }

    /// How far the numbers of a window are from where it begins.
    pub(super) fn steps(&self, window: usize) -> Vec<usize> {
        let row_length = window * self.channels;
        (0..window).flat_map(|row| (0..row_length).map(move |step| row * self.size[1] * self.channels + step)).collect()
    }
}

/// Windows in a frame: where the first one begins, down and across, how many there are, and how far apart.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    pub(super) first: usize,
    pub(super) places: [usize; 2],
    pub(super) apart: [usize; 2],
}
