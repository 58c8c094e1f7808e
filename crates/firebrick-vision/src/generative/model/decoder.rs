//! What a block reads, rendered from what it gives.

use burn::tensor::{Tensor, TensorData};
use firebrick_kernels::{Precision, Window, conv2d_in, linear};

use super::network::Block;
use crate::cholesky::Cholesky;

/// A convolution from a block's unpooled activations to what the block reads.
///
/// ```text
/// a | u ~ N(φ(V * u + c), diag τ)        φ rectifies where a block reads activations, not where it reads pixels
/// ```
#[derive(Clone, Debug)]
pub struct Decoder {
    /// V, `[size, size, channels of what it gives, channels of what it reads]`.
    pub weight: Tensor<4>,
    /// c, `[channels of what it reads]`.
    pub bias: Tensor<1>,
    /// τ, `[channels of what it reads]`.
    pub noise: Tensor<1>,
    /// How V moves; it keeps the size.
    pub window: Window,
    /// Whether φ rectifies.
    pub rectified: bool,
}

impl Decoder {
    /// φ(V * u + c) of unpooled activations.
    pub fn render(&self, unpooled: Tensor<4>) -> Tensor<4> {
        self.render_in(Precision::F32, unpooled)
    }

    /// The same, of activations that are uncertain by more than BF16 rounds off.
    pub(crate) fn render_roughly(&self, unpooled: Tensor<4>) -> Tensor<4> {
        // Pixels have too few channels for BF16 to be faster.
        let precision = if self.rectified { Precision::fastest(&unpooled.device()) } else { Precision::F32 };
        self.render_in(precision, unpooled)
    }

    fn render_in(&self, precision: Precision, unpooled: Tensor<4>) -> Tensor<4> {
        let rendered = conv2d_in(precision, unpooled, self.weight.clone(), self.bias.clone(), self.window);
        if self.rectified { firebrick_kernels::relu(rendered) } else { rendered }
    }
}

/// How V is had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DecoderMode {
    /// The convolution's own weights, those of its adjoint, each channel scaled by least squares.
    Tied,
    /// The weights that render best, by least squares with so much added to the diagonal per patch.
    Ridge {
        /// Added to the mean square of each feature.
        alpha: f64,
    },
    /// The same, then anew from what sweeps with them give under rectangles that hide a part, the true label clamped: they learn to render
    /// whole pictures from activations of which a part is guessed.
    Robust {
        /// As of ridge.
        alpha: f64,
        /// How often anew.
        rounds: usize,
    },
}

/// The sums that weights of least squares are made of.
#[derive(Clone)]
pub(crate) struct NormalEquations {
    /// Σ pᵀ p over patches with a 1 at their end.
    gram: Tensor<2>,
    /// Σ pᵀ a
    cross: Tensor<2>,
    /// Σ a²
    squares: Tensor<1>,
    patches: f64,
}

impl NormalEquations {
    /// Of no patch yet.
    pub(crate) fn new(block: &Block) -> Self {
        let Window { size, .. } = block.window;
        let [.., channels, out] = block.weight.dims();
        let (features, device) = (size * size * out + 1, block.weight.device());
        let zeros = |columns| Tensor::zeros([features, columns], &device);
        let squares = Tensor::zeros([channels], &device);
        Self { gram: zeros(features), cross: zeros(channels), squares, patches: 0.0 }
    }

    /// With the patches of unpooled activations and what they are to render.
    pub(crate) fn add(&mut self, unpooled: Tensor<4>, target: Tensor<4>, window: Window) {
        let [batch, height, width, channels] = target.dims();
        let patches = patches(unpooled, window);
        let count = batch * height * width;
        let patches = Tensor::cat(vec![patches, Tensor::ones([count, 1], &target.device())], 1);
        let transposed = patches.clone().transpose();
        self.gram = self.gram.clone() + linear(transposed.clone(), patches, None);
        let target = target.reshape([count, channels]);
        self.squares = self.squares.clone() + target.clone().square().sum_dim(0).reshape([channels]);
        self.cross = self.cross.clone() + linear(transposed, target, None);
        self.patches += count as f64;
    }

    /// The mean square of what weights leave, but for what rectifying it would change.
    ///
    /// ```text
    /// (Σ a² − 2 vᵀ Σ pᵀ a + vᵀ (Σ pᵀ p) v) / N
    /// ```
    pub(crate) fn residual_variance(&self, weight: &Tensor<4>, bias: &Tensor<1>) -> Tensor<1> {
        let ([features, _], [channels]) = (self.gram.dims(), bias.dims());
        let weight = weight.clone().reshape([features - 1, channels]);
        let all = Tensor::cat(vec![weight, bias.clone().reshape([1, channels])], 0);
        let explained = linear(self.gram.clone(), all.clone(), None) - self.cross.clone() * 2.0;
        let residual_variance = self.squares.clone() + (all * explained).sum_dim(0).reshape([channels]);
        residual_variance / self.patches.max(1.0)
    }

    /// V and c.
    ///
    /// ```text
    /// V = (Σ pᵀ p + α N I)⁻¹ Σ pᵀ a
    /// ```
    pub(crate) fn solve(self, block: &Block, mode: DecoderMode) -> (Tensor<4>, Tensor<1>) {
        let Window { size, .. } = block.window;
        let ([features, _], [.., channels, out]) = (self.gram.dims(), block.weight.dims());
        let device = self.gram.device();
        let host = |x: Tensor<2>| x.into_data().iter::<f64>().collect::<Vec<_>>();
        let (mut gram, cross) = (host(self.gram), host(self.cross));
        let mut solution = vec![0.0_f32; features * channels];
        match mode {
            DecoderMode::Ridge { alpha } | DecoderMode::Robust { alpha, .. } => {
                // Of the bias too, hardly: so that features that never occur have an inverse.
                (0..features).for_each(|feature| gram[feature * (features + 1)] += alpha.max(1e-9) * self.patches);
                let factor = Cholesky::of(gram, features).expect("a sum of squares is positive definite");
                let mut column = vec![0.0; features];
                for channel in 0..channels {
                    column.iter_mut().enumerate().for_each(|(row, x)| *x = cross[row * channels + channel]);
                    factor.solve(&mut column);
                    column.iter().enumerate().for_each(|(row, &x)| solution[row * channels + channel] = x as f32);
                }
            }
            DecoderMode::Tied => {
                let transposed = block.weight.clone().flip([0, 1]).swap_dims(2, 3);
                let transposed = host(transposed.reshape([features - 1, channels]));
                for channel in 0..channels {
                    // a ≈ s (w · p) + c: two unknowns of a channel.
                    let weight = |row: usize| transposed[row * channels + channel];
                    let dot =
                        |of: &dyn Fn(usize) -> f64| (0..features - 1).map(|row| weight(row) * of(row)).sum::<f64>();
                    let squares = dot(&|row| dot(&|column| gram[row * features + column]));
                    let (mean, count) = (dot(&|row| gram[row * features + features - 1]), self.patches);
                    let (with, alone) =
                        (dot(&|row| cross[row * channels + channel]), cross[(features - 1) * channels + channel]);
                    let determinant = (squares * count - mean * mean).max(1e-9);
                    let scale = (with * count - mean * alone) / determinant;
                    (0..features - 1).for_each(|row| solution[row * channels + channel] = (scale * weight(row)) as f32);
                    solution[(features - 1) * channels + channel] = ((alone - scale * mean) / count) as f32;
                }
            }
        }
        let bias = solution.split_off((features - 1) * channels);
        let weight = Tensor::<1>::from_data(TensorData::new(solution, [(features - 1) * channels]), &device);
        (weight.reshape([size, size, out, channels]), Tensor::from_data(TensorData::new(bias, [channels]), &device))
    }
}

/// What a window covers at each of its places, `[batch · height · width, size · size · channels]`; it keeps the size, and beyond the edges
/// there is 0.
pub(crate) fn patches(x: Tensor<4>, window: Window) -> Tensor<2> {
    let Window { size, padding, .. } = window;
    let [batch, height, width, channels] = x.dims();
    let device = x.device();
    let rows = Tensor::zeros([batch, padding, width, channels], &device);
    let x = Tensor::cat(vec![rows.clone(), x, rows], 1);
    let columns = Tensor::zeros([batch, height + 2 * padding, padding, channels], &device);
    let x = Tensor::cat(vec![columns.clone(), x, columns], 2);
    let part = |place: usize| {
        let (row, column) = (place / size, place % size);
        x.clone().slice([0..batch, row..row + height, column..column + width, 0..channels])
    };
    let parts = (0..size * size).map(part).collect::<Vec<_>>();
    Tensor::cat(parts, 3).reshape([batch * height * width, size * size * channels])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use firebrick_testkit::assert_close;

    use firebrick_kernels::conv2d;

    use super::*;

    fn numbers<const D: usize>(dims: [usize; D], salt: usize) -> Tensor<D> {
        let count = dims.iter().product::<usize>();
        let number = |index: usize| ((index * 37 + salt * 101) % 97) as f32 / 48.0 - 1.0;
        Tensor::from_data(TensorData::new((0..count).map(number).collect::<Vec<_>>(), dims), &Device::flex())
    }

    fn block() -> Block {
        Block {
            weight: numbers([3, 3, 2, 4], 1),
            bias: Tensor::zeros([4], &Device::flex()),
            window: Window { size: 3, stride: 1, padding: 1 },
            pool: 1,
            shape: [5, 6, 4],
        }
    }

    #[test]
    fn least_squares_find_the_convolution_that_rendered() {
        let (weight, bias) = (numbers([3, 3, 4, 2], 3), numbers([2], 4));
        let mut squares = Tensor::<1>::zeros([2], &Device::flex());
        let mut sums = NormalEquations::new(&block());
        for salt in 5..9 {
            let unpooled = numbers([2, 5, 6, 4], salt);
            let target = conv2d(unpooled.clone(), weight.clone(), bias.clone(), block().window);
            squares = squares + target.clone().square().reshape([60, 2]).sum_dim(0).reshape([2]);
            sums.add(unpooled, target, block().window);
        }
        let again = (sums.clone(), squares);
        let (found, offset) = sums.solve(&block(), DecoderMode::Ridge { alpha: 0.0 });
        assert_close(found, weight.clone(), 1e-2);
        assert_close(offset, bias.clone(), 1e-2);
        // The very weights leave nothing, and none leave what there is.
        let (sums, rendered) = again;
        assert_close(sums.residual_variance(&weight, &bias), bias.zeros_like(), 1e-3);
        let none = sums.residual_variance(&weight.zeros_like(), &bias.zeros_like());
        assert_close(none, rendered / sums.patches, 1e-4);
    }

    #[test]
    fn tied_weights_are_the_adjoint_scaled() {
        let scales = Tensor::<1>::from_floats([0.5, -2.0], &Device::flex()).reshape([1, 1, 1, 2]);
        let offset = Tensor::<1>::from_floats([0.25, 1.0], &Device::flex());
        let mut sums = NormalEquations::new(&block());
        for salt in 5..9 {
            let unpooled = numbers([2, 5, 6, 4], salt);
            let adjoint = firebrick_kernels::conv2d_adjoint(unpooled.clone(), block().weight, block().window, [5, 6]);
            let target = adjoint * scales.clone() + offset.clone().reshape([1, 1, 1, 2]);
            sums.add(unpooled, target, block().window);
        }
        let (found, bias) = sums.solve(&block(), DecoderMode::Tied);
        let expected = block().weight.flip([0, 1]).swap_dims(2, 3) * scales;
        assert_close(found, expected, 1e-3);
        assert_close(bias, offset, 1e-3);
    }
}
