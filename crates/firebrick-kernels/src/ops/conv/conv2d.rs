//! Convolutions of images whose pixels hold their channels side by side.

use burn::tensor::Tensor;

use super::super::window::Window;
#[cfg(feature = "flex")]
use crate::flex::is_flex;
use crate::precision::Precision;

/// The cross-correlation of images with a window of weights; beyond the edges images are 0.
///
/// ```text
/// y[r, s, o] = b[o] + Σ_{i, j, c} x[r · stride + i − padding, s · stride + j − padding, c] · W[i, j, c, o]
/// ```
///
/// With the feature `flex` each sum runs over `i, j, c` in this order, so that an image gives the same bits in any batch.
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
        return fused::conv2d(x, weight, bias, window, precision);
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

pub(crate) mod plain {
    use burn::tensor::ops::ConvOptions;
    use burn::tensor::{DType, Tensor, module};

    use super::Window;

    /// [`crate::conv2d`].
    pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, window: Window) -> Tensor<4> {
        let Window { stride, padding, .. } = window;
        let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
        let y = module::conv2d(x.permute([0, 3, 1, 2]), weight.permute([3, 2, 0, 1]), Some(bias), options);
        y.permute([0, 2, 3, 1])
    }

    /// [`crate::conv2d_in`] BF16.
    pub fn conv2d_bf16(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, window: Window) -> Tensor<4> {
        let half = |tensor: Tensor<4>| tensor.cast(DType::BF16).cast(DType::F32);
        conv2d(half(x), half(weight), bias, window)
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
    use half::bf16;
    use rayon::prelude::*;

    use super::super::super::window::{Images, Window};
    use super::super::correlation::{amx_for, correlation, kernel_for};
    use super::super::frame::{Frame, Windows};
    use crate::flex::{Vjp, contiguous, dims, elements, tensor, tracked};
    use crate::gemm::{
        Amx, Init, MIN_PARALLEL_FLOPS, Matrix, accumulate_product_of_transposed_im2col, pack_column_pairs,
        pack_pairs_of_rows,
    };
    use crate::precision::Precision;
    use crate::vector::column_sums;

    /// Convolutions, with their backward pass.
    #[backend_extension(Flex, Autodiff)]
    trait FusedConv: Backend {
        fn fused_conv2d(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            window: Window,
            precision: Precision,
        ) -> FloatTensor<Self>;
    }

    pub(super) fn conv2d(
        x: Tensor<4>,
        weight: Tensor<4>,
        bias: Tensor<1>,
        window: Window,
        precision: Precision,
    ) -> Tensor<4> {
        let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
        Tensor::from_dispatch(<Dispatch as FusedConv>::fused_conv2d(x, weight, bias, window, precision))
    }

    /// Each window's product with the weights, image by image.
    fn conv2d_forward(
        x: &FlexTensor,
        weight: &FlexTensor,
        bias: &FlexTensor,
        images: Images,
        precision: Precision,
    ) -> FlexTensor {
        let out_channels = dims(weight)[3];
        let frame = Frame::of(&images);
        let windows = Windows { first: 0, places: images.places, apart: [images.window.stride; 2] };
        let weights = (elements(weight), images.window.size, out_channels);
        let y = correlation(precision, (elements(x), frame), windows, weights, Init::Bias(elements(bias)));
        tensor(y, vec![dims(x)[0], images.places[0], images.places[1], out_channels])
    }

    /// With the windows' numbers u: d W = uᵀ g, d b = Σ g over the windows; d x is a convolution of g.
    #[derive(Clone, Debug)]
    struct Conv2dState {
        x: FlexTensor,
        weight: FlexTensor,
        images: Images,
        precision: Precision,
    }

    impl Vjp<3> for Conv2dState {
        fn vjp(self, g: FlexTensor, [of_x, of_weight, of_bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
            let out_channels = dims(&self.weight)[3];
            [
                of_x.then(|| tensor(self.of_images(&g), dims(&self.x))),
                of_weight.then(|| tensor(self.of_weights(&g), dims(&self.weight))),
                of_bias.then(|| tensor(column_sums(elements(&g), out_channels), vec![out_channels])),
            ]
        }
    }

    impl Conv2dState {
        /// Every pixel is where windows over g, as far apart as the places of the window, meet the flipped weights. A stride of n
        /// multiplies n² as many numbers as needed, as all between the places are 0.
        fn of_images(&self, g: &FlexTensor) -> Vec<f32> {
            let Images { height, width, channels, window: Window { size, stride, padding }, places } = self.images;
            let out_channels = dims(&self.weight)[3];
            // Where the window may lie beyond the edge altogether its first places are not computed.
            let (before, first) = ((size - 1).saturating_sub(padding), (padding + 1).saturating_sub(size));
            let length =
                |pixels: usize, places: usize| (first + pixels + size - 1).max(before + (places - 1) * stride + 1);
            let size_of = [length(height, places[0]), length(width, places[1])];
            let frame = Frame { pixels: places, channels: out_channels, before, apart: stride, size: size_of };
            let windows = Windows { first, places: [height, width], apart: [1, 1] };
            let weight = elements(&self.weight);
            let mut flipped = vec![0.0; weight.len()];
            for (place, to) in flipped.chunks_exact_mut(out_channels * channels).enumerate() {
                let from = &weight[(size * size - 1 - place) * channels * out_channels..][..channels * out_channels];
                for (channel, from) in from.chunks_exact(out_channels).enumerate() {
                    from.iter().enumerate().for_each(|(out, &from)| to[out * channels + channel] = from);
                }
            }
            correlation(self.precision, (elements(g), frame), windows, (&flipped, size, channels), Init::Zero)
        }

        /// Sums over the windows of every image, in order, row by row of the window.
        fn of_weights(&self, g: &FlexTensor) -> Vec<f32> {
            let Images { window: Window { size, stride, .. }, places, channels, .. } = self.images;
            let out_channels = dims(&self.weight)[3];
            if let Some(amx) = amx_for(self.precision) {
                return self.of_weights_on(amx, g);
            }
            let kernel = kernel_for(self.precision);
            let frame = Frame::of(&self.images);
            let row_length = size * channels;
            // A pair is of two windows side by side, of the last one in an odd row alone.
            let (across, apart) = match self.precision {
                Precision::F32 => (places[1], 1),
                Precision::Bf16 => (places[1].div_ceil(2), 2),
            };
            let starts =
                frame.starts(Windows { first: 0, places: [places[0], across], apart: [stride, apart * stride] });
            let beside = stride * channels;
            let mut framed = frame.empty(beside);
            let (mut pairs, mut g_pairs) = (frame.empty(0), vec![0.0; starts.len() * out_channels]);
            let mut dweight = vec![0.0; size * row_length * out_channels];
            let of_g = places[0] * places[1] * out_channels;
            for (image, g) in elements(&self.x).chunks_exact(self.images.numbers()).zip(elements(g).chunks_exact(of_g))
            {
                frame.fill(image, &mut framed);
                let (read, g) = match self.precision {
                    Precision::F32 => (&framed[..], g),
                    Precision::Bf16 => {
                        pack_column_pairs(kernel, &framed[..pairs.len()], &framed[beside..][..pairs.len()], &mut pairs);
                        let rows = g
                            .chunks_exact(places[1] * out_channels)
                            .zip(g_pairs.chunks_exact_mut(across * out_channels));
                        rows.for_each(|(row, to)| pack_pairs_of_rows(kernel, row, out_channels, to));
                        (&pairs[..], &g_pairs[..])
                    }
                };
                let g = Matrix::row_major(g, starts.len(), out_channels, out_channels);
                let of_row = |(row, out): (usize, &mut [f32])| {
                    let from = &read[row * frame.size[1] * channels..];
                    accumulate_product_of_transposed_im2col(kernel, out, from, &starts, g);
                };
                let flops = dweight.len() * starts.len();
                if rayon::current_num_threads() > 1 && flops >= 2 * MIN_PARALLEL_FLOPS {
                    dweight.par_chunks_exact_mut(row_length * out_channels).enumerate().for_each(of_row);
                } else {
                    dweight.chunks_exact_mut(row_length * out_channels).enumerate().for_each(of_row);
                }
            }
            dweight
        }

        /// The same on a matrix unit, which sums window by window, in blocks.
        fn of_weights_on(&self, amx: Amx, g: &FlexTensor) -> Vec<f32> {
            let Images { window: Window { size, stride, .. }, places, channels, .. } = self.images;
            let (out_channels, row_length) = (dims(&self.weight)[3], size * channels);
            let frame = Frame::of(&self.images);
            let starts = frame.starts(Windows { first: 0, places, apart: [stride, stride] });
            let mut framed = frame.empty(0);
            let mut rounded = vec![bf16::ZERO; framed.len()];
            let mut transposed = vec![0.0; size * out_channels * row_length];
            let several = rayon::current_num_threads() > 1 && transposed.len() * starts.len() >= 2 * MIN_PARALLEL_FLOPS;
            let images = elements(&self.x).chunks_exact(self.images.numbers());
            for (image, g) in images.zip(elements(g).chunks_exact(starts.len() * out_channels)) {
                frame.fill(image, &mut framed);
                amx.round(&framed, &mut rounded);
                let g = Matrix::row_major(g, starts.len(), out_channels, out_channels);
                let patches = frame.patches(&rounded, &starts, size);
                if several {
                    let rows = transposed.par_chunks_exact_mut(out_channels * row_length).enumerate();
                    rows.for_each(|(row, out)| {
                        amx.accumulate_transposed_product_of_patches(out, g, patches, row..row + 1)
                    });
                } else {
                    amx.accumulate_transposed_product_of_patches(&mut transposed, g, patches, 0..size);
                }
            }
            let rows = transposed.chunks_exact(out_channels * row_length);
            rows.flat_map(|row| (0..row_length).flat_map(|k| row.iter().skip(k).step_by(row_length).copied())).collect()
        }
    }

    impl FusedConv for Flex {
        fn fused_conv2d(
            x: FlexTensor,
            weight: FlexTensor,
            bias: FlexTensor,
            window: Window,
            precision: Precision,
        ) -> FlexTensor {
            let [x, weight, bias] = [x, weight, bias].map(contiguous);
            conv2d_forward(&x, &weight, &bias, Images::of(&x, window), precision)
        }
    }

    impl<C: CheckpointStrategy> FusedConv for Autodiff<Flex, C> {
        fn fused_conv2d(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            window: Window,
            precision: Precision,
        ) -> FloatTensor<Self> {
            let nodes = [x.node(), weight.node(), bias.node()];
            let [x, weight, bias] = [x, weight, bias].map(|tensor| contiguous(tensor.into_primitive()));
            let images = Images::of(&x, window);
            let y = conv2d_forward(&x, &weight, &bias, images, precision);
            tracked::<C, _, _>(nodes, y, Conv2dState { x, weight, images, precision })
        }
    }
}
