//! Pools taken apart: which pixel won each window, what flows back there, and windows as an axis of their own.

use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, module};
use firebrick_kernels::Window;

/// The winner of each window and channel: its place `row · width + column` in the image, `[batch, height, width, channels]` of the pool.
/// Of equal pixels the first in reading order wins.
///
/// # Panics
/// If the window fits nowhere.
pub fn switches(images: Tensor<4>, window: Window) -> Tensor<4, Int> {
    let Window { size, stride, padding } = window;
    let options = MaxPoolOptions::new([size; 2]).with_stride([stride; 2]).with_padding([padding; 2]);
    let (_, switches) = module::max_pool2d_with_indices(images.permute([0, 3, 1, 2]), options);
    switches.permute([0, 2, 3, 1])
}

/// What the windows hold, added up at their winners in images of `size`.
///
/// # Shapes
/// - `values`, `switches`: `[batch, height, width, channels]` of the pool
/// - returns `[batch, size[0], size[1], channels]`
///
/// # Panics
/// If the shapes disagree or a winner is not in the image.
pub fn route(values: Tensor<4>, switches: Tensor<4, Int>, size: [usize; 2]) -> Tensor<4> {
    let [batch, height, width, channels] = values.dims();
    let [pixels, windows] = [size[0] * size[1], height * width];
    let flat = |dims| values.clone().reshape(dims);
    let image = Tensor::<3>::zeros([batch, pixels, channels], &values.device());
    let switches = switches.reshape([batch, windows, channels]);
    let image = image.scatter(1, switches, flat([batch, windows, channels]), IndexingUpdateOp::Add);
    image.reshape([batch, size[0], size[1], channels])
}

/// Windows of `pool` pixels on each side, which lie side by side: the pixels of each in reading order, on a last axis.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`
/// - returns `[batch, height / pool, width / pool, channels, pool²]`
///
/// # Panics
/// If the windows leave pixels out.
pub fn windows(x: Tensor<4>, pool: usize) -> Tensor<5> {
    let [batch, height, width, channels] = x.dims();
    let [down, across] = [height / pool, width / pool];
    assert_eq!([down * pool, across * pool], [height, width], "windows of {pool} leave pixels of the image out");
    let parts = x.reshape([batch, down, pool, across, pool, channels]);
    parts.permute([0, 1, 3, 5, 2, 4]).reshape([batch, down, across, channels, pool * pool])
}

/// The image of these [`windows`].
///
/// # Panics
/// If the last axis is not `pool²` long.
pub fn unwindow(x: Tensor<5>, pool: usize) -> Tensor<4> {
    let [batch, down, across, channels, slots] = x.dims();
    assert_eq!(slots, pool * pool, "pixels of a window of {pool}");
    let parts = x.reshape([batch, down, across, channels, pool, pool]).permute([0, 1, 4, 2, 5, 3]);
    parts.reshape([batch, down * pool, across * pool, channels])
}

/// Each pooled number divided among its window by weights that add up to 1: the inverse of pooling where one of them is 1.
///
/// # Shapes
/// - `pooled`: `[batch, height, width, channels]`
/// - `weights`: `[batch, height, width, channels, pool²]`
/// - returns `[batch, pool · height, pool · width, channels]`
pub fn unpool(pooled: Tensor<4>, weights: Tensor<5>, pool: usize) -> Tensor<4> {
    unwindow(pooled.unsqueeze_dim(4) * weights, pool)
}

/// 1 at the first greatest pixel of each window, 0 in windows that hold nothing: where every pixel is 0 none has won.
pub(crate) fn won(windows: Tensor<5>) -> Tensor<5> {
    let dims = windows.dims();
    let slots = dims[4];
    let flat = windows.reshape([dims[..4].iter().product::<usize>(), slots]);
    let active = flat.clone().max_dim(1).greater_elem(0.0).float();
    let winners = flat.argmax(1).reshape([-1]);
    let ones = Tensor::<2>::eye(slots, &active.device()).select(0, winners);
    (ones * active).reshape(dims)
}

/// 1 at the first greatest pixel of each window, whatever it holds.
pub(crate) fn greatest(windows: Tensor<5>) -> Tensor<5> {
    let least = windows.clone().min_dim(4);
    won(windows - least + 1.0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use firebrick_testkit::assert_close;

    use super::*;

    fn image() -> Tensor<4> {
        let numbers = (0..2 * 4 * 6 * 3).map(|index| ((index * 37 + 11) % 101) as f32 / 50.0 - 1.0);
        Tensor::from_data(TensorData::new(numbers.collect::<Vec<_>>(), [2, 4, 6, 3]), &Device::flex())
    }

    /// 1 at the first greatest number of each window.
    fn winners(x: Tensor<5>) -> Tensor<5> {
        let (slots, dims) = (x.dims()[4], x.dims());
        let flat = x.reshape([dims[..4].iter().product::<usize>(), slots]);
        let chosen = flat.argmax(1).reshape([-1]);
        Tensor::<2>::eye(slots, &Device::flex()).select(0, chosen).reshape(dims)
    }

    #[test]
    fn o3_pools_and_unpools_undo_each_other() {
        let r = image();
        let parts = windows(r.clone(), 2);
        assert_close(unwindow(parts.clone(), 2), r.clone(), 0.0);
        let won = winners(parts.clone());
        let a = parts.clone().max_dim(4).squeeze_dim::<4>(4);
        let up = unpool(a.clone(), won.clone(), 2);
        // pool(unpool(a, s)) = a where a ≥ 0, and unpool(pool(r), s) = r where it won.
        let positive = a.clone().clamp_min(0.0);
        let again = windows(unpool(positive.clone(), won.clone(), 2), 2).max_dim(4).squeeze_dim::<4>(4);
        assert_close(again, positive, 0.0);
        assert_close(up.clone(), unwindow(parts * won.clone(), 2), 0.0);
        // ⟨unpool(a, s), r⟩ = ⟨a, what won of r⟩
        let gathered = (windows(r.clone(), 2) * won).sum_dim(4).squeeze_dim::<4>(4);
        assert_close((up * r).sum(), (a * gathered).sum(), 1e-5);
    }

    #[test]
    fn o3_of_equal_pixels_the_first_wins() {
        let window = Window { size: 2, stride: 2, padding: 0 };
        let equal = Tensor::<4>::zeros([1, 4, 4, 1], &Device::flex());
        assert_eq!(switches(equal, window).into_data().iter::<i64>().collect::<Vec<_>>(), [0, 2, 8, 10]);
    }

    #[test]
    fn o4_what_is_divided_adds_up() {
        let (a, r) = (image().slice([0..2, 0..2, 0..3, 0..3]), image());
        let weights = burn::tensor::activation::softmax(windows(r.clone(), 2), 4);
        let up = unpool(a.clone(), weights, 2);
        assert_close(windows(up, 2).sum_dim(4).squeeze_dim::<4>(4), a.clone(), 1e-6);
        // With one weight of 1 it is routed there.
        let window = Window { size: 2, stride: 2, padding: 0 };
        let routed = route(a.clone(), switches(r.clone(), window), [4, 6]);
        assert_close(unpool(a, winners(windows(r, 2)), 2), routed, 0.0);
    }

    #[test]
    fn o5_overlapping_windows_add_up_at_a_pixel_that_wins_both() {
        let pixels = [0.0, 1.0, 5.0, 1.0, 0.0];
        let row = Tensor::<1>::from_floats(pixels, &Device::flex()).reshape([1, 1, 5, 1]).repeat_dim(1, 3);
        let window = Window { size: 3, stride: 2, padding: 0 };
        let routed = route(Tensor::ones([1, 1, 2, 1], &Device::flex()), switches(row, window), [3, 5]);
        let expected = Tensor::<1>::from_floats([0.0, 0.0, 2.0, 0.0, 0.0], &Device::flex()).reshape([1, 1, 5, 1]);
        assert_close(routed.slice([0..1, 0..1, 0..5, 0..1]), expected, 0.0);
    }

    #[test]
    #[should_panic(expected = "windows of 2 leave pixels of the image out")]
    fn o5_odd_sizes_are_refused() {
        windows(image().slice([0..1, 0..3, 0..6, 0..3]), 2);
    }
}
