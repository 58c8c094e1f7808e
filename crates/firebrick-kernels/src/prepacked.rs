//! Weights laid out once for the many products of few rows that sampling consists of.

use burn::tensor::{DType, Tensor};

use crate::Precision;

/// A matrix of weights, and the same numbers in the order in which a product of few rows reads them.
///
/// It takes as much memory again as the weights do.
#[derive(Clone, Debug)]
pub struct Prepacked {
    /// `[d_input, d_output]`
    weight: Tensor<2>,
    /// `[panels, d_input, width]`: the columns, as many side by side as a tile is wide; where they are rounded, words of two
    /// in the order of the tiles.
    panels: Tensor<3>,
    precision: Precision,
    /// `[d_output]`, the bias of a map that has none.
    zero: Tensor<1>,
}

impl Prepacked {
    /// The weights laid out; none where that would not help: on another device than the processor, and of weights that are half
    /// as wide in memory. Rounded to BF16 they take half as much memory again.
    pub fn of(weight: Tensor<2>, precision: Precision) -> Option<Self> {
        #[cfg(feature = "flex")]
        if crate::is_flex(&weight.device()) && (weight.dtype() == DType::F32 || precision == Precision::Bf16) {
            let weight = weight.without_autodiff();
            let [_, d_output] = weight.dims();
            let zero = Tensor::zeros([d_output], &weight.device());
            return Some(Self { panels: crate::flex::panels(weight.clone(), precision), weight, zero, precision });
        }
        None
    }

    /// [`linear_in`](crate::linear_in) this precision, faster where there are few rows, through which nothing flows back, and these are the weights
    /// that were laid out, not others that have taken their place since. The same bits in any case.
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn linear(&self, x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        assert_eq!(weight.dims(), self.weight.dims(), "weights of another shape were laid out");
        #[cfg(feature = "flex")]
        if ![&x, &weight].iter().any(|tensor| tensor.is_autodiff()) {
            let bias = bias.unwrap_or_else(|| self.zero.clone());
            return crate::flex::linear_of_panels(
                x,
                weight,
                bias,
                self.weight.clone(),
                self.panels.clone(),
                self.precision,
            );
        }
        crate::linear_in(self.precision, x, weight, bias)
    }
}
