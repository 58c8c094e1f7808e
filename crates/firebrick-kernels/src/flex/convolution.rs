//! Convolution and pooling over images whose pixels hold their channels side by side.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use half::bf16;
use multiversion::multiversion;
use rayon::prelude::*;

use super::linear::column_sums;
use super::planes::{FEW_CHANNELS, Planes, place_correlated};
use super::product::{
    Gathered, Kernel, Matrix, Patches, Start, Unit, WORTH, add_product_of_turned, joined, laid_out,
    place_product_of_gathered, zipped, zipped_rows,
};
use super::vjp::Vjp;
use super::{dims, elements, tensor};
use crate::{Precision, Window};

/// Images of one size, and the window that moves over them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Images {
    height: usize,
    width: usize,
    channels: usize,
    window: Window,
    /// Rows and columns of places of the window.
    places: [usize; 2],
}

impl Images {
    /// Of a tensor `[batch, height, width, channels]`.
    pub(super) fn of(x: &FlexTensor, window: Window) -> Self {
        let [height, width, channels] = [1, 2, 3].map(|axis| dims(x)[axis]);
        Self { height, width, channels, window, places: [height, width].map(|length| window.places(length)) }
    }

    /// Numbers of an image.
    fn numbers(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Places of the window on an image.
    fn windows(&self) -> usize {
        self.places[0] * self.places[1]
    }

    /// The images with the zeros that the window meets beyond their edges.
    fn frame(&self) -> Frame {
        let (pixels, before) = ([self.height, self.width], self.window.padding);
        let size = pixels.map(|length| length + 2 * before);
        Frame { pixels, channels: self.channels, before, apart: 1, size }
    }

    /// Calls `f` for every row of pixels of every window that lies at least partly on the image: the window's number, and where its
    /// numbers on the image begin and end.
    #[inline(always)]
    fn for_each_row(&self, mut f: impl FnMut(usize, std::ops::Range<usize>)) {
        let Self { height, width, channels, window: Window { size, stride, padding }, places: [down, across], .. } =
            *self;
        for window in 0..down * across {
            let (top, left) = (window / across * stride, window % across * stride);
            let columns = left.max(padding)..(left + size).min(width + padding);
            for row in 0..size {
                if (padding..height + padding).contains(&(top + row)) && !columns.is_empty() {
                    let begin = ((top + row - padding) * width + columns.start - padding) * channels;
                    f(window, begin..begin + columns.len() * channels);
                }
            }
        }
    }
}

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
    /// An empty one, and a number of zeros after it.
    fn empty(&self, after: usize) -> Vec<f32> {
        vec![0.0; self.size[0] * self.size[1] * self.channels + after]
    }

    /// Writes an image where its pixels belong.
    fn fill(&self, image: &[f32], framed: &mut [f32]) {
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
    fn starts(&self, Windows { first, places, apart: [down, across] }: Windows) -> Vec<usize> {
        let start =
            |row: usize, column: usize| ((first + row * down) * self.size[1] + first + column * across) * self.channels;
        (0..places[0]).flat_map(|row| (0..places[1]).map(move |column| start(row, column))).collect()
    }

    /// Windows of so many rows and columns on rounded images in such a frame.
    fn patches<'a>(&self, data: &'a [bf16], starts: &'a [usize], size: usize) -> Patches<'a> {
        Patches { data, starts, rows: size, run: size * self.channels, apart: self.size[1] * self.channels }
    }

    /// How far the numbers of a window are from where it begins.
    fn steps(&self, window: usize) -> Vec<usize> {
        let run = window * self.channels;
        (0..window).flat_map(|row| (0..run).map(move |step| row * self.size[1] * self.channels + step)).collect()
    }
}

/// The matrix unit, where factors are rounded and there is one.
fn unit_for(precision: Precision) -> Option<Unit> {
    if precision == Precision::Bf16 { Unit::get() } else { None }
}

/// The fastest kernel, of numbers or, where factors are rounded, of words.
fn kernel_of(precision: Precision) -> &'static Kernel {
    match precision {
        Precision::F32 => Kernel::best(),
        Precision::Bf16 => Kernel::best_of_pairs(),
    }
}

/// Windows in a frame: where the first one begins, down and across, how many there are, and how far apart.
#[derive(Clone, Copy)]
struct Windows {
    first: usize,
    places: [usize; 2],
    apart: [usize; 2],
}

/// The cross-correlation of a batch with weights `[size, size, channels, out_channels]`: what every window gives.
fn correlated(
    precision: Precision,
    (batch, frame): (&[f32], Frame),
    windows: Windows,
    (weight, size, out_channels): (&[f32], usize, usize),
    start: Start<'_>,
) -> Vec<f32> {
    let (image, channels) = (frame.pixels[0] * frame.pixels[1] * frame.channels, frame.channels);
    let few = out_channels <= FEW_CHANNELS && precision == Precision::F32 && windows.apart == [1, 1];
    let unit = unit_for(precision);
    let kernel = kernel_of(precision);
    // Of words each pixel has half as many, and each place of the window.
    let words = channels.div_ceil(2);
    let read = match precision {
        Precision::Bf16 if unit.is_none() => Frame { channels: words, ..frame },
        _ => frame,
    };
    let (starts, steps) = (read.starts(windows), read.steps(size));
    let laid = |weights| laid_out(kernel, Matrix::rows(weights, steps.len(), out_channels, out_channels)).0;
    let panels = match (unit, precision) {
        (Some(unit), _) => unit.lay_weights(weight, size, size * channels, out_channels),
        (None, Precision::F32) if few => Vec::new(),
        (None, Precision::F32) => laid(weight),
        (None, Precision::Bf16) => {
            let mut zipped = vec![0.0; size * size * words * out_channels];
            let places =
                weight.chunks_exact(channels * out_channels).zip(zipped.chunks_exact_mut(words * out_channels));
            places.for_each(|(from, to)| zipped_rows(kernel, from, out_channels, to));
            laid(&zipped)
        }
    };
    let each = starts.len() * out_channels;
    let images = batch.len() / image;
    let length = images * each;
    let mut y = Vec::with_capacity(length);
    let room = &mut y.spare_capacity_mut()[..length];
    let worth = length * steps.len() >= 2 * WORTH;
    let threads = if worth { rayon::current_num_threads() } else { 1 };
    // Fewer images than threads are divided among them.
    let pieces = threads / images.clamp(1, threads);
    let one = |(framed, rounded): &mut (Vec<f32>, Vec<bf16>), (image, y): (&[f32], &mut [MaybeUninit<f32>])| {
        if few {
            let planes = Planes::of(image, frame);
            let rows = windows.places[0].div_ceil(pieces.max(1));
            let of_rows = |(piece, y): (usize, &mut [MaybeUninit<f32>])| {
                let places = (windows.first, windows.places);
                place_correlated(&planes, places, (weight, size), start, (piece * rows, y));
            };
            if pieces > 1 {
                y.par_chunks_mut(rows * windows.places[1] * out_channels).enumerate().for_each(of_rows);
            } else {
                of_rows((0, y));
            }
            return;
        }
        match (unit, precision) {
            (None, Precision::Bf16) => read.fill(&joined(kernel, image, channels), framed),
            _ => read.fill(image, framed),
        }
        if let Some(unit) = unit {
            rounded.resize(framed.len(), bf16::ZERO);
            unit.round(framed, rounded);
        }
        let product = |(starts, y): (&[usize], &mut [MaybeUninit<f32>])| match unit {
            Some(unit) => {
                let patches = read.patches(rounded, starts, size);
                unit.place_product_of_patches(y, start, patches, &panels, out_channels);
            }
            None => {
                let windows = Gathered { data: framed, starts, steps: &steps };
                place_product_of_gathered(kernel, y, start, windows, &panels, out_channels);
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

/// Each window's product with the weights, image by image.
pub(super) fn conv2d_forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    images: Images,
    precision: Precision,
) -> FlexTensor {
    let out_channels = dims(weight)[3];
    let frame = images.frame();
    let windows = Windows { first: 0, places: images.places, apart: [images.window.stride; 2] };
    let weights = (elements(weight), images.window.size, out_channels);
    let y = correlated(precision, (elements(x), frame), windows, weights, Start::Row(elements(bias)));
    tensor(y, vec![dims(x)[0], images.places[0], images.places[1], out_channels])
}

/// With the windows' numbers u: d W = uᵀ g, d b = Σ g over the windows; d x is a convolution of g.
#[derive(Clone, Debug)]
pub(super) struct Conv2dKept {
    pub(super) x: FlexTensor,
    pub(super) weight: FlexTensor,
    pub(super) images: Images,
    pub(super) precision: Precision,
}

impl Vjp<3> for Conv2dKept {
    fn vjp(self, g: FlexTensor, [of_x, of_weight, of_bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let out_channels = dims(&self.weight)[3];
        [
            of_x.then(|| tensor(self.of_images(&g), dims(&self.x))),
            of_weight.then(|| tensor(self.of_weights(&g), dims(&self.weight))),
            of_bias.then(|| column_sums(&g, out_channels)),
        ]
    }
}

impl Conv2dKept {
    /// Every pixel is where windows over g, as far apart as the places of the window, meet the weights the other way round. A stride of n
    /// multiplies n² as many numbers as needed, as all between the places are 0.
    fn of_images(&self, g: &FlexTensor) -> Vec<f32> {
        let Images { height, width, channels, window: Window { size, stride, padding }, places } = self.images;
        let out_channels = dims(&self.weight)[3];
        // Where the window may lie beyond the edge altogether its first places are not asked.
        let (before, first) = ((size - 1).saturating_sub(padding), (padding + 1).saturating_sub(size));
        let length = |pixels: usize, places: usize| (first + pixels + size - 1).max(before + (places - 1) * stride + 1);
        let size_of = [length(height, places[0]), length(width, places[1])];
        let frame = Frame { pixels: places, channels: out_channels, before, apart: stride, size: size_of };
        let windows = Windows { first, places: [height, width], apart: [1, 1] };
        let weight = elements(&self.weight);
        let mut turned = vec![0.0; weight.len()];
        for (place, to) in turned.chunks_exact_mut(out_channels * channels).enumerate() {
            let from = &weight[(size * size - 1 - place) * channels * out_channels..][..channels * out_channels];
            for (channel, from) in from.chunks_exact(out_channels).enumerate() {
                from.iter().enumerate().for_each(|(out, &from)| to[out * channels + channel] = from);
            }
        }
        correlated(self.precision, (elements(g), frame), windows, (&turned, size, channels), Start::Zero)
    }

    /// Chains over the windows of every image, row by row of the window.
    fn of_weights(&self, g: &FlexTensor) -> Vec<f32> {
        let Images { window: Window { size, stride, .. }, places, channels, .. } = self.images;
        let out_channels = dims(&self.weight)[3];
        if let Some(unit) = unit_for(self.precision) {
            return self.of_weights_on(unit, g);
        }
        let kernel = kernel_of(self.precision);
        let frame = self.images.frame();
        let run = size * channels;
        // A word is of two windows side by side, of the last one in an odd row alone.
        let (across, apart) = match self.precision {
            Precision::F32 => (places[1], 1),
            Precision::Bf16 => (places[1].div_ceil(2), 2),
        };
        let starts = frame.starts(Windows { first: 0, places: [places[0], across], apart: [stride, apart * stride] });
        let beside = stride * channels;
        let mut framed = frame.empty(beside);
        let (mut words, mut g_words) = (frame.empty(0), vec![0.0; starts.len() * out_channels]);
        let mut dweight = vec![0.0; size * run * out_channels];
        let of_g = places[0] * places[1] * out_channels;
        for (image, g) in elements(&self.x).chunks_exact(self.images.numbers()).zip(elements(g).chunks_exact(of_g)) {
            frame.fill(image, &mut framed);
            let (read, g) = match self.precision {
                Precision::F32 => (&framed[..], g),
                Precision::Bf16 => {
                    zipped(kernel, &framed[..words.len()], &framed[beside..][..words.len()], &mut words);
                    let rows =
                        g.chunks_exact(places[1] * out_channels).zip(g_words.chunks_exact_mut(across * out_channels));
                    rows.for_each(|(row, to)| zipped_rows(kernel, row, out_channels, to));
                    (&words[..], &g_words[..])
                }
            };
            let g = Matrix::rows(g, starts.len(), out_channels, out_channels);
            let of_row = |(row, out): (usize, &mut [f32])| {
                let from = &read[row * frame.size[1] * channels..];
                add_product_of_turned(kernel, out, from, &starts, g);
            };
            let links = dweight.len() * starts.len();
            if rayon::current_num_threads() > 1 && links >= 2 * WORTH {
                dweight.par_chunks_exact_mut(run * out_channels).enumerate().for_each(of_row);
            } else {
                dweight.chunks_exact_mut(run * out_channels).enumerate().for_each(of_row);
            }
        }
        dweight
    }

    /// The same on a matrix unit, which sums window by window, in blocks.
    fn of_weights_on(&self, unit: Unit, g: &FlexTensor) -> Vec<f32> {
        let Images { window: Window { size, stride, .. }, places, channels, .. } = self.images;
        let (out_channels, run) = (dims(&self.weight)[3], size * channels);
        let frame = self.images.frame();
        let starts = frame.starts(Windows { first: 0, places, apart: [stride, stride] });
        let mut framed = frame.empty(0);
        let mut rounded = vec![bf16::ZERO; framed.len()];
        let mut turned = vec![0.0; size * out_channels * run];
        let several = rayon::current_num_threads() > 1 && turned.len() * starts.len() >= 2 * WORTH;
        let images = elements(&self.x).chunks_exact(self.images.numbers());
        for (image, g) in images.zip(elements(g).chunks_exact(starts.len() * out_channels)) {
            frame.fill(image, &mut framed);
            unit.round(&framed, &mut rounded);
            let g = Matrix::rows(g, starts.len(), out_channels, out_channels);
            let patches = frame.patches(&rounded, &starts, size);
            if several {
                let rows = turned.par_chunks_exact_mut(out_channels * run).enumerate();
                rows.for_each(|(row, out)| unit.add_turned_product_of_patches(out, g, patches, row..row + 1));
            } else {
                unit.add_turned_product_of_patches(&mut turned, g, patches, 0..size);
            }
        }
        let rows = turned.chunks_exact(out_channels * run);
        rows.flat_map(|row| (0..run).flat_map(|link| row.iter().skip(link).step_by(run).copied())).collect()
    }
}

/// Each window's greatest number of each channel and, if `TOLD`, where on its image that number stands.
pub(super) fn max_pool2d_forward<const TOLD: bool>(x: &FlexTensor, images: Images) -> (FlexTensor, Vec<u32>) {
    let batch = dims(x)[0];
    let channels = images.channels;
    let length = images.windows() * channels;
    let told = if TOLD { length } else { 0 };
    let (mut y, mut switches) = (Vec::with_capacity(batch * length), Vec::with_capacity(batch * told));
    for image in elements(x).chunks_exact(images.numbers()) {
        let begin = y.len();
        y.resize(begin + length, f32::NEG_INFINITY);
        let begin_told = switches.len();
        switches.resize(begin_told + told, 0);
        greatest::<TOLD>(image, images, &mut y[begin..], &mut switches[begin_told..]);
    }
    (tensor(y, vec![batch, images.places[0], images.places[1], channels]), switches)
}

/// The same of one image.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn greatest<const TOLD: bool>(image: &[f32], images: Images, y: &mut [f32], switches: &mut [u32]) {
    let channels = images.channels;
    images.for_each_row(|window, on| {
        let at = window * channels..(window + 1) * channels;
        let (most, places) = (&mut y[at.clone()], if TOLD { &mut switches[at] } else { &mut switches[..] });
        for pixel in on.step_by(channels) {
            let x = &image[pixel..][..channels];
            for index in 0..channels {
                let wins = x[index] > most[index];
                most[index] = if wins { x[index] } else { most[index] };
                if TOLD {
                    places[index] = if wins { (pixel + index) as u32 } else { places[index] };
                }
            }
        }
    });
}

/// What flows back goes to the pixel that was the greatest.
#[derive(Clone, Debug)]
pub(super) struct MaxPool2dKept {
    pub(super) batch: usize,
    pub(super) images: Images,
    pub(super) switches: Vec<u32>,
}

impl Vjp<1> for MaxPool2dKept {
    fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let Self { batch, images, switches } = self;
        let length = images.windows() * images.channels;
        let mut dx = Vec::with_capacity(batch * images.numbers());
        for (g, switches) in elements(&g).chunks_exact(length).zip(switches.chunks_exact(length)) {
            // Image by image, while what was cleared is in the nearest caches.
            let begin = dx.len();
            dx.resize(begin + images.numbers(), 0.0);
            let dx = &mut dx[begin..];
            switches.iter().zip(g).for_each(|(&switch, &g)| dx[switch as usize] += g);
        }
        [Some(tensor(dx, vec![batch, images.height, images.width, images.channels]))]
    }
}
