//! Pools of images whose pixels hold their channels side by side.

use burn::tensor::Tensor;

use super::window::Window;
#[cfg(feature = "flex")]
use crate::flex::is_flex;

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
        return fused::max_pool2d(x, window);
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

pub(crate) mod plain {
    use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
    use burn::tensor::{Tensor, module};

    use super::Window;

    /// [`crate::max_pool2d`].
    pub fn max_pool2d(x: Tensor<4>, window: Window) -> Tensor<4> {
        let Window { size, stride, padding } = window;
        let options = MaxPoolOptions::new([size; 2]).with_stride([stride; 2]).with_padding([padding; 2]);
        module::max_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
    }

    /// [`crate::avg_pool2d`].
    pub fn avg_pool2d(x: Tensor<4>, window: Window) -> Tensor<4> {
        let Window { size, stride, padding } = window;
        let options = AvgPoolOptions::new([size; 2]).with_stride([stride; 2]).with_padding([padding; 2]);
        module::avg_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
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

    use super::super::window::{Images, Window};
    use crate::flex::{Vjp, contiguous, dims, elements, tensor, tracked};

    /// Pools, with their backward pass.
    #[backend_extension(Flex, Autodiff)]
    trait FusedPool: Backend {
        fn fused_max_pool2d(x: FloatTensor<Self>, window: Window) -> FloatTensor<Self>;
    }

    pub(super) fn max_pool2d(x: Tensor<4>, window: Window) -> Tensor<4> {
        Tensor::from_dispatch(<Dispatch as FusedPool>::fused_max_pool2d(x.into_dispatch(), window))
    }

    /// Each window's greatest number of each channel and, if `SWITCHES`, where on its image that number stands.
    fn max_pool2d_forward<const SWITCHES: bool>(x: &FlexTensor, images: Images) -> (FlexTensor, Vec<u32>) {
        let batch = dims(x)[0];
        let channels = images.channels;
        let length = images.windows() * channels;
        let kept = if SWITCHES { length } else { 0 };
        let (mut y, mut switches) = (Vec::with_capacity(batch * length), Vec::with_capacity(batch * kept));
        for image in elements(x).chunks_exact(images.numbers()) {
            let begin = y.len();
            y.resize(begin + length, f32::NEG_INFINITY);
            let begin_kept = switches.len();
            switches.resize(begin_kept + kept, 0);
            max_of::<SWITCHES>(image, images, &mut y[begin..], &mut switches[begin_kept..]);
        }
        (tensor(y, vec![batch, images.places[0], images.places[1], channels]), switches)
    }

    /// The same of one image.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn max_of<const SWITCHES: bool>(image: &[f32], images: Images, y: &mut [f32], switches: &mut [u32]) {
        let channels = images.channels;
        images.for_each_row(|window, on| {
            let at = window * channels..(window + 1) * channels;
            let (max, places) = (&mut y[at.clone()], if SWITCHES { &mut switches[at] } else { &mut switches[..] });
            for pixel in on.step_by(channels) {
                let x = &image[pixel..][..channels];
                for index in 0..channels {
                    let wins = x[index] > max[index];
                    max[index] = if wins { x[index] } else { max[index] };
                    if SWITCHES {
                        places[index] = if wins { (pixel + index) as u32 } else { places[index] };
                    }
                }
            }
        });
    }

    /// What flows back goes to the pixel that was the greatest.
    #[derive(Clone, Debug)]
    struct MaxPool2dState {
        batch: usize,
        images: Images,
        switches: Vec<u32>,
    }

    impl Vjp<1> for MaxPool2dState {
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

    impl FusedPool for Flex {
        fn fused_max_pool2d(x: FlexTensor, window: Window) -> FlexTensor {
            let images = Images::of(&x, window);
            max_pool2d_forward::<false>(&contiguous(x), images).0
        }
    }

    impl<C: CheckpointStrategy> FusedPool for Autodiff<Flex, C> {
        fn fused_max_pool2d(x: FloatTensor<Self>, window: Window) -> FloatTensor<Self> {
            let node = x.node();
            let x = contiguous(x.into_primitive());
            let images = Images::of(&x, window);
            let (y, switches) = max_pool2d_forward::<true>(&x, images);
            tracked::<C, _, _>([node], y, MaxPool2dState { batch: dims(&x)[0], images, switches })
        }
    }
}
