//! Convolution and pooling over images whose pixels hold their channels side by side.

use burn::backend::flex::FlexTensor;

use super::linear::column_sums;
use super::product::{Matrix, Start, add_product, place_product, product};
use super::vjp::Vjp;
use super::{dims, elements, tensor, vector};
use crate::Window;

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

    /// Numbers that a window covers.
    fn covered(&self) -> usize {
        self.window.size * self.window.size * self.channels
    }

    /// Calls `f` for every row of pixels of every window that lies at least partly on the image: the window's number, where
    /// its numbers begin within the window's, and where those on the image begin and end.
    fn for_each_row(&self, mut f: impl FnMut(usize, usize, std::ops::Range<usize>)) {
        let Self { height, width, channels, window: Window { size, stride, padding }, places: [down, across], .. } =
            *self;
        for window in 0..down * across {
            let (top, left) = (window / across * stride, window % across * stride);
            let columns = left.max(padding)..(left + size).min(width + padding);
            for row in 0..size {
                if (padding..height + padding).contains(&(top + row)) && !columns.is_empty() {
                    let begin = ((top + row - padding) * width + columns.start - padding) * channels;
                    let skipped = (row * size + columns.start - left) * channels;
                    f(window, skipped, begin..begin + columns.len() * channels);
                }
            }
        }
    }

    /// Every window's numbers as a row, 0 beyond the image.
    fn unfold(&self, image: &[f32], rows: &mut [f32]) {
        let covered = self.covered();
        if self.window.padding > 0 {
            rows.fill(0.0);
        }
        self.for_each_row(|window, skipped, on| {
            let to = &mut rows[window * covered + skipped..][..on.len()];
            // A call to copy a few numbers takes longer than the numbers.
            if to.len() < 16 {
                to.iter_mut().zip(&image[on]).for_each(|(to, from)| *to = *from);
            } else {
                to.copy_from_slice(&image[on]);
            }
        });
    }

    /// Adds every window's numbers to the pixels that it covers.
    fn fold(&self, rows: &[f32], image: &mut [f32]) {
        let covered = self.covered();
        self.for_each_row(|window, skipped, on| {
            vector::add(&rows[window * covered + skipped..][..on.len()], &mut image[on]);
        });
    }
}

/// Each window's product with the weights, image by image.
pub(super) fn conv2d_forward(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor, images: Images) -> FlexTensor {
    let batch = dims(x)[0];
    let out_channels = dims(weight)[3];
    let (windows, covered) = (images.windows(), images.covered());
    let weight = Matrix::rows(elements(weight), covered, out_channels, out_channels);
    let mut rows = vec![0.0; windows * covered];
    let mut y = Vec::with_capacity(batch * windows * out_channels);
    for image in elements(x).chunks_exact(images.numbers()) {
        images.unfold(image, &mut rows);
        y.extend(product(Start::Row(elements(bias)), Matrix::rows(&rows, windows, covered, covered), weight));
    }
    tensor(y, vec![batch, images.places[0], images.places[1], out_channels])
}

/// With the windows' numbers u: d u = g Wᵀ, d W = uᵀ g, d b = Σ g over the windows.
#[derive(Clone, Debug)]
pub(super) struct Conv2dKept {
    pub(super) x: FlexTensor,
    pub(super) weight: FlexTensor,
    pub(super) images: Images,
}

impl Vjp<3> for Conv2dKept {
    fn vjp(self, g: FlexTensor, [of_x, of_weight, of_bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Self { x, weight, images } = self;
        let out_channels = dims(&weight)[3];
        let (windows, covered) = (images.windows(), images.covered());
        let weights = Matrix::rows(elements(&weight), covered, out_channels, out_channels);
        let mut rows = vec![0.0; windows * covered];
        let mut dx = vec![0.0; if of_x { elements(&x).len() } else { 0 }];
        let mut dweight = vec![0.0; if of_weight { covered * out_channels } else { 0 }];
        for (index, g) in elements(&g).chunks_exact(windows * out_channels).enumerate() {
            let image = index * images.numbers()..(index + 1) * images.numbers();
            let g = Matrix::rows(g, windows, out_channels, out_channels);
            if of_weight {
                images.unfold(&elements(&x)[image.clone()], &mut rows);
                let rows = Matrix::rows(&rows, windows, covered, covered);
                add_product(&mut dweight, out_channels, rows.transposed(), g);
            }
            if of_x {
                place_product(&mut rows, covered, g, weights.transposed());
                images.fold(&rows, &mut dx[image]);
            }
        }
        [
            of_x.then(|| tensor(dx, dims(&x))),
            of_weight.then(|| tensor(dweight, dims(&weight))),
            of_bias.then(|| column_sums(&g, out_channels)),
        ]
    }
}

/// Each window's greatest number of each channel, and where on its image that number stands.
pub(super) fn max_pool2d_forward(x: &FlexTensor, images: Images) -> (FlexTensor, Vec<u32>) {
    let batch = dims(x)[0];
    let channels = images.channels;
    let length = batch * images.windows() * channels;
    let (mut y, mut switches) = (vec![f32::NEG_INFINITY; length], vec![0; length]);
    for (index, image) in elements(x).chunks_exact(images.numbers()).enumerate() {
        images.for_each_row(|window, _, on| {
            let at = (index * images.windows() + window) * channels..;
            let (y, switches) = (&mut y[at.clone()][..channels], &mut switches[at][..channels]);
            for pixel in on.step_by(channels) {
                vector::greater(&image[pixel..][..channels], pixel as u32, y, switches);
            }
        });
    }
    (tensor(y, vec![batch, images.places[0], images.places[1], channels]), switches)
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
        let mut dx = vec![0.0; batch * images.numbers()];
        let length = images.windows() * images.channels;
        let images_of = dx.chunks_exact_mut(images.numbers());
        for ((dx, g), switches) in images_of.zip(elements(&g).chunks_exact(length)).zip(switches.chunks_exact(length)) {
            for (&switch, &g) in switches.iter().zip(g) {
                dx[switch as usize] += g;
            }
        }
        [Some(tensor(dx, vec![batch, images.height, images.width, images.channels]))]
    }
}
