//! Functions of images whose pixels hold their channels side by side.

use burn::tensor::Tensor;

use crate::{Precision, plain};
#[cfg(feature = "flex")]
use crate::{flex, is_flex};

/// A square window, and how it moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels on each side.
    pub size: usize,
    /// Pixels from one place to the next.
    pub stride: usize,
    /// Pixels that it may reach beyond each edge.
    pub padding: usize,
}

impl Window {
    /// How many places it has along a side of this many pixels.
    ///
    /// ```text
    /// ⌊(length + 2 padding − size) / stride⌋ + 1
    /// ```
    ///
    /// # Panics
    /// If it fits nowhere, or does not move.
    pub fn places(&self, length: usize) -> usize {
        self.check(length);
        (length + 2 * self.padding - self.size) / self.stride + 1
    }

    /// Holds the window within a side of this many pixels.
    fn check(&self, length: usize) {
        let Self { size, stride, padding } = *self;
        assert!(size > 0 && stride > 0, "a window of {size} pixels that moves by {stride}");
        assert!(length + 2 * padding >= size, "a window of {size} pixels on {length} and twice {padding}");
    }
}

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
        return flex::soft_unpool(pooled, mean, variance, log_prior, kinds);
    }
    plain::soft_unpool(pooled, mean, variance, log_prior, kinds)
}

/// The cross-correlation of images with a window of weights; beyond the edges images are 0.
///
/// ```text
/// y[r, s, o] = b[o] + Σ_{i, j, c} x[r · stride + i − padding, s · stride + j − padding, c] · W[i, j, c, o]
/// ```
///
/// With the feature `flex` each sum is one chain over `i, j, c`, so that an image gives the same bits in any batch.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`
/// - `weight`: `[window.size, window.size, channels, out_channels]`
/// - `bias`: `[out_channels]`
/// - returns `[batch, window.places(height), window.places(width), out_channels]`
///
/// # Panics
/// If the shapes disagree, or the window fits nowhere.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, window: Window) -> Tensor<4> {
    conv2d_in(Precision::F32, x, weight, bias, window)
}

/// [`conv2d`] with its factors rounded, and those of its gradients likewise, as [`linear_in`](crate::linear_in) does it.
///
/// # Panics
/// As [`conv2d`].
pub fn conv2d_in(precision: Precision, x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, window: Window) -> Tensor<4> {
    let ([_, height, width, channels], [.., out_channels]) = (x.dims(), weight.dims());
    assert_eq!(weight.dims(), [window.size, window.size, channels, out_channels], "shape of the weights");
    assert_eq!(bias.dims(), [out_channels], "shape of the bias");
    window.check(height.min(width));
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::conv2d(x, weight, bias, window, precision);
    }
    match precision {
        Precision::F32 => plain::conv2d(x, weight, bias, window),
        Precision::Bf16 => plain::conv2d_bf16(x, weight, bias, window),
    }
}

/// The adjoint of [`conv2d`] without its bias: what each pixel of an image of `size` gets from all places of the window over it.
///
/// ```text
/// ⟨conv2d(x, W, 0), y⟩ = ⟨x, conv2d_adjoint(y, W)⟩
/// ```
///
/// # Shapes
/// - `y`: `[batch, window.places(height), window.places(width), out_channels]`
/// - `weight`: `[window.size, window.size, channels, out_channels]`
/// - returns `[batch, height, width, channels]`
///
/// # Panics
/// If the shapes disagree, or the window may lie beyond the edge altogether: `padding ≥ size`.
pub fn conv2d_adjoint(y: Tensor<4>, weight: Tensor<4>, window: Window, size: [usize; 2]) -> Tensor<4> {
    let ([batch, down, across, out_channels], [.., channels, outputs]) = (y.dims(), weight.dims());
    let Window { size: side, stride, padding } = window;
    assert_eq!((weight.dims()[0], weight.dims()[1], outputs), (side, side, out_channels), "shape of the weights");
    assert_eq!([down, across], size.map(|length| window.places(length)), "places of the window");
    assert!(padding < side, "{window:?} may lie beyond the edge altogether");
    let device = y.device();
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
    // Places apart as they lie in the image, and beyond the last one what no window begins at.
    let mut y = y;
    for (axis, length) in size.into_iter().enumerate() {
        let mut dims = y.dims();
        let places = dims[1 + axis];
        if stride > 1 {
            let mut apart = vec![y];
            apart.extend((1..stride).map(|_| zeros(dims)));
            let spread = Tensor::stack::<5>(apart, 2 + axis);
            dims[1 + axis] = places * stride;
            y = spread.reshape(dims).slice_dim(1 + axis, 0..(places - 1) * stride + 1);
        }
        dims[1 + axis] = length + 2 * padding - side - (places - 1) * stride;
        y = Tensor::cat(vec![y, zeros(dims)], 1 + axis);
    }
    let weight = weight.flip([0, 1]).swap_dims(2, 3);
    let bias = zeros([1, 1, 1, channels]).reshape([channels]);
    let x = conv2d(y, weight, bias, Window { size: side, stride: 1, padding: side - 1 - padding });
    debug_assert_eq!(x.dims(), [batch, size[0], size[1], channels]);
    x
}

/// The greatest number of each channel under each place of a window; beyond the edges there is none.
///
/// Of equal numbers the first in reading order is the one that a gradient flows to.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`
/// - returns `[batch, window.places(height), window.places(width), channels]`
///
/// # Panics
/// If the window fits nowhere, or may lie beyond the edge altogether: `2 padding > size`.
pub fn max_pool2d(x: Tensor<4>, window: Window) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    window.check(height.min(width));
    assert!(2 * window.padding <= window.size, "{window:?} may lie beyond the edge altogether");
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return flex::max_pool2d(x, window);
    }
    plain::max_pool2d(x, window)
}

/// The mean of each channel under each place of a window; beyond the edges images are 0, which counts.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`
/// - returns `[batch, window.places(height), window.places(width), channels]`
///
/// # Panics
/// If the window fits nowhere, or may lie beyond the edge altogether: `2 padding > size`.
pub fn avg_pool2d(x: Tensor<4>, window: Window) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    window.check(height.min(width));
    assert!(2 * window.padding <= window.size, "{window:?} may lie beyond the edge altogether");
    plain::avg_pool2d(x, window)
}
