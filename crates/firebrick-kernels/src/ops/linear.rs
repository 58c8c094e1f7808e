//! Linear maps of rows.

use burn::tensor::{DType, Tensor};

#[cfg(feature = "flex")]
use crate::flex::is_flex;
use crate::precision::Precision;

/// A linear map of each row.
///
/// ```text
/// y = x W + b
/// ```
///
/// The weights may be BF16 in memory, where they are not trained; what is computed is f32, as if they had been widened first.
///
/// # Shapes
/// - `x`: `[tokens, d_input]`
/// - `weight`: `[d_input, d_output]`
/// - `bias`: `[d_output]`
/// - returns `[tokens, d_output]`
///
/// # Panics
/// If the shapes disagree.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let ([_, d_input], [rows, d_output]) = (x.dims(), weight.dims());
    assert_eq!(d_input, rows, "shapes of x and weight");
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [d_output], "shape of the bias");
    }
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return fused::linear(x, weight, bias, Precision::F32);
    }
    plain::linear(x, weight, bias)
}

/// [`linear`] with its factors rounded, and those of its gradients likewise.
///
/// ```text
/// y = bf16(x) bf16(W) + b        dx = bf16(g) bf16(W)ᵀ        dW = bf16(x)ᵀ bf16(g)
/// ```
///
/// The result is the same to the bit in every batch, as of [`linear`]. Processors with a matrix unit (Intel's AMX) sum in another order than
/// the others, which agree to the bit.
///
/// Micikevicius et al. 2018, [arXiv:1710.03740](https://arxiv.org/abs/1710.03740), section 3: weights are kept in f32.
///
/// # Panics
/// If the shapes disagree.
pub fn linear_in(precision: Precision, x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    if precision == Precision::F32 {
        return linear(x, weight, bias);
    }
    assert_eq!(x.dims()[1], weight.dims()[0], "shapes of x and weight");
    #[cfg(feature = "flex")]
    if is_flex(&x.device()) {
        return fused::linear(x, weight, bias, precision);
    }
    plain::linear_bf16(x, weight, bias)
}

/// A matrix of weights, and the same numbers packed for products of few rows.
///
/// It takes as much memory again as the weights do.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    /// `[d_input, d_output]`
    weight: Tensor<2>,
    /// `[panels, d_input, NR]`; where they are rounded, pairs in the order of the tiles.
    panels: Tensor<3>,
    precision: Precision,
    /// `[d_output]`, the bias of a map that has none.
    zero: Tensor<1>,
}

impl PackedWeight {
    /// The weights packed; none where that would not help: on another device than the processor, and of weights that are half
    /// as wide in memory. Rounded to BF16 they take half as much memory again.
    pub fn of(weight: Tensor<2>, precision: Precision) -> Option<Self> {
        #[cfg(feature = "flex")]
        if is_flex(&weight.device()) && (weight.dtype() == DType::F32 || precision == Precision::Bf16) {
            let weight = weight.without_autodiff();
            let [_, d_output] = weight.dims();
            let zero = Tensor::zeros([d_output], &weight.device());
            return Some(Self { panels: fused::panels(weight.clone(), precision), weight, zero, precision });
        }
        None
    }

    /// [`linear_in`] this precision, faster where there are few rows, through which nothing flows back, and these are the weights
    /// that were packed, not others that have taken their place since. The same bits in any case.
    ///
    /// # Panics
    /// If the shapes disagree.
    pub fn linear(&self, x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        assert_eq!(weight.dims(), self.weight.dims(), "weights of another shape were packed");
        #[cfg(feature = "flex")]
        if ![&x, &weight].iter().any(|tensor| tensor.is_autodiff()) {
            let bias = bias.unwrap_or_else(|| self.zero.clone());
            return fused::linear_of_panels(x, weight, bias, self.weight.clone(), self.panels.clone(), self.precision);
        }
        linear_in(self.precision, x, weight, bias)
    }
}

pub(crate) mod plain {
    use burn::tensor::{DType, Tensor};

    /// [`crate::linear`].
    pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        let dtype = x.dtype();
        let y = x.matmul(weight.cast(dtype));
        match bias {
            Some(bias) => y + bias.unsqueeze(),
            None => y,
        }
    }

    /// [`crate::linear_in`] BF16.
    pub fn linear_bf16(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        let rounded = |tensor: Tensor<2>| tensor.cast(DType::BF16).cast(DType::F32);
        linear(rounded(x), rounded(weight), bias)
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::autodiff::Autodiff;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::flex::{FlexTensor, Layout};
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::{DType, Tensor};
    use half::bf16;

    use crate::flex::{Vjp, contiguous, dims, elements, tensor, tracked};
    use crate::gemm::{
        Init, Matrix, prepack, prepack_bf16, product, product_bf16, product_of_prepacked, product_of_prepacked_bf16,
        small_m,
    };
    use crate::precision::Precision;
    use crate::vector::column_sums;

    /// Linear maps, with their backward pass.
    #[backend_extension(Flex, Autodiff)]
    trait FusedLinear: Backend {
        fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self>;
        fn fused_linear_with_bias(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            precision: Precision,
        ) -> FloatTensor<Self>;
    }

    /// Linear maps with packed weights, through which nothing flows back.
    #[backend_extension(Flex)]
    trait FusedPackedLinear: Backend {
        fn prepack(weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self>;
        fn linear_prepacked(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            of: FloatTensor<Self>,
            panels: FloatTensor<Self>,
            precision: Precision,
        ) -> FloatTensor<Self>;
    }

    pub(super) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, precision: Precision) -> Tensor<2> {
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        Tensor::from_dispatch(match bias {
            Some(bias) => <Dispatch as FusedLinear>::fused_linear_with_bias(x, weight, bias.into_dispatch(), precision),
            None => <Dispatch as FusedLinear>::fused_linear(x, weight, precision),
        })
    }

    pub(super) fn panels(weight: Tensor<2>, precision: Precision) -> Tensor<3> {
        Tensor::from_dispatch(<Dispatch as FusedPackedLinear>::prepack(weight.into_dispatch(), precision))
    }

    pub(super) fn linear_of_panels(
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Tensor<1>,
        of: Tensor<2>,
        panels: Tensor<3>,
        precision: Precision,
    ) -> Tensor<2> {
        let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
        let (of, panels) = (of.into_dispatch(), panels.into_dispatch());
        Tensor::from_dispatch(<Dispatch as FusedPackedLinear>::linear_prepacked(x, weight, bias, of, panels, precision))
    }

    /// The strided matrix of a tensor of two dimensions.
    fn matrix(tensor: &FlexTensor) -> Matrix<'_> {
        matrix_in(tensor.storage::<f32>(), tensor.layout())
    }

    /// The same of numbers half as wide in memory.
    fn half_matrix(tensor: &FlexTensor) -> Matrix<'_, bf16> {
        matrix_in(tensor.storage::<bf16>(), tensor.layout())
    }

    fn matrix_in<'a, T>(storage: &'a [T], layout: &Layout) -> Matrix<'a, T> {
        let [rows, columns] = [0, 1].map(|axis| layout.shape()[axis]);
        let [row_stride, column_stride] = [0, 1].map(|axis| layout.strides()[axis].unsigned_abs());
        Matrix { data: &storage[layout.start_offset()..], rows, columns, row_stride, column_stride }
    }

    /// The tensor, row-major or column-major.
    fn row_or_column_major(tensor: FlexTensor) -> FlexTensor {
        let layout = tensor.layout();
        if layout.has_positive_strides() && layout.strides().contains(&1) { tensor } else { tensor.to_contiguous() }
    }

    /// `x W + b`, or without `b`; the weights may be half as wide in memory.
    fn linear_forward(
        x: &FlexTensor,
        weight: &FlexTensor,
        bias: Option<&FlexTensor>,
        precision: Precision,
    ) -> FlexTensor {
        let init = bias.map_or(Init::Zero, |bias| Init::Bias(elements(bias)));
        let y = match (precision, weight.dtype()) {
            (Precision::Bf16, DType::BF16) => product_bf16(init, matrix(x), half_matrix(weight)),
            (Precision::Bf16, _) => product_bf16(init, matrix(x), matrix(weight)),
            (Precision::F32, DType::BF16) => product(init, matrix(x), half_matrix(weight)),
            (Precision::F32, _) => product(init, matrix(x), matrix(weight)),
        };
        tensor(y, vec![dims(x)[0], dims(weight)[1]])
    }

    /// The weights in panels, `[panels, d_input, NR]`; where they are rounded, pairs in the order of the tiles.
    fn pack_weight(weight: &FlexTensor, precision: Precision) -> FlexTensor {
        let (panels, dims) = match precision {
            Precision::F32 => prepack(matrix(weight)),
            Precision::Bf16 if weight.dtype() == DType::BF16 => prepack_bf16(half_matrix(weight)),
            Precision::Bf16 => prepack_bf16(matrix(weight)),
        };
        tensor(panels, dims.to_vec())
    }

    /// `x W + b` of the panels of W; of W itself, where there are many rows or it is another by now.
    fn linear_prepacked(
        x: &FlexTensor,
        weight: &FlexTensor,
        bias: &FlexTensor,
        of: &FlexTensor,
        panels: &FlexTensor,
        precision: Precision,
    ) -> FlexTensor {
        let identity = |tensor: &FlexTensor| {
            let bytes = match tensor.dtype() {
                DType::BF16 => tensor.storage::<bf16>().as_ptr().cast::<u8>(),
                _ => tensor.storage::<f32>().as_ptr().cast(),
            };
            (bytes, tensor.dtype(), tensor.layout().clone())
        };
        // What was packed is still held, so that nothing else can take its memory, nor be written there.
        if dims(x)[0] > small_m() || identity(weight) != identity(of) {
            return linear_forward(x, weight, Some(bias), precision);
        }
        let product = match precision {
            Precision::F32 => product_of_prepacked,
            Precision::Bf16 => product_of_prepacked_bf16,
        };
        let y = product(elements(bias), matrix(x), elements(panels));
        tensor(y, vec![dims(x)[0], dims(weight)[1]])
    }

    /// d x = g Wᵀ, d W = xᵀ g, d b = Σ g over the rows.
    #[derive(Clone, Debug)]
    struct LinearState {
        x: FlexTensor,
        weight: FlexTensor,
        precision: Precision,
    }

    /// The gradients of `x` and `weight`, those that are wanted.
    fn linear_backward(state: &LinearState, g: &FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let LinearState { x, weight, precision } = state;
        let [d_input, d_output] = [0, 1].map(|axis| dims(weight)[axis]);
        let product_of = |a, b| match precision {
            Precision::F32 => product(Init::Zero, a, b),
            Precision::Bf16 => product_bf16(Init::Zero, a, b),
        };
        let dx = || {
            let dx = match (precision, weight.dtype()) {
                (Precision::F32, DType::BF16) => product(Init::Zero, matrix(g), half_matrix(weight).transposed()),
                (Precision::Bf16, DType::BF16) => product_bf16(Init::Zero, matrix(g), half_matrix(weight).transposed()),
                _ => product_of(matrix(g), matrix(weight).transposed()),
            };
            tensor(dx, dims(x))
        };
        let dweight = || {
            assert_eq!(weight.dtype(), DType::F32, "weights that are half as wide in memory are not trained");
            if weight.layout().strides()[1] == 1 {
                return tensor(product_of(matrix(x).transposed(), matrix(g)), dims(weight));
            }
            // A transposed table gets its gradient transposed.
            tensor(product_of(matrix(g).transposed(), matrix(x)), vec![d_output, d_input]).transpose(0, 1)
        };
        [wanted[0].then(dx), wanted[1].then(dweight)]
    }

    impl Vjp<2> for LinearState {
        fn vjp(self, g: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
            linear_backward(&self, &g, wanted)
        }
    }

    impl Vjp<3> for LinearState {
        fn vjp(self, g: FlexTensor, [of_x, of_weight, of_bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
            let [dx, dweight] = linear_backward(&self, &g, [of_x, of_weight]);
            let d_output = dims(&self.weight)[1];
            [dx, dweight, of_bias.then(|| tensor(column_sums(elements(&g), d_output), vec![d_output]))]
        }
    }

    impl FusedLinear for Flex {
        fn fused_linear(x: FlexTensor, weight: FlexTensor, precision: Precision) -> FlexTensor {
            linear_forward(&row_or_column_major(x), &row_or_column_major(weight), None, precision)
        }

        fn fused_linear_with_bias(
            x: FlexTensor,
            weight: FlexTensor,
            bias: FlexTensor,
            precision: Precision,
        ) -> FlexTensor {
            linear_forward(&row_or_column_major(x), &row_or_column_major(weight), Some(&contiguous(bias)), precision)
        }
    }

    impl FusedPackedLinear for Flex {
        fn prepack(weight: FlexTensor, precision: Precision) -> FlexTensor {
            pack_weight(&row_or_column_major(weight), precision)
        }

        fn linear_prepacked(
            x: FlexTensor,
            weight: FlexTensor,
            bias: FlexTensor,
            of: FlexTensor,
            panels: FlexTensor,
            precision: Precision,
        ) -> FlexTensor {
            linear_prepacked(
                &row_or_column_major(x),
                &row_or_column_major(weight),
                &contiguous(bias),
                &row_or_column_major(of),
                &panels,
                precision,
            )
        }
    }

    impl<C: CheckpointStrategy> FusedLinear for Autodiff<Flex, C> {
        fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self> {
            let nodes = [x.node(), weight.node()];
            let [x, weight] = [x, weight].map(|tensor| row_or_column_major(tensor.into_primitive()));
            let y = linear_forward(&x, &weight, None, precision);
            tracked::<C, _, _>(nodes, y, LinearState { x, weight, precision })
        }

        fn fused_linear_with_bias(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            precision: Precision,
        ) -> FloatTensor<Self> {
            let nodes = [x.node(), weight.node(), bias.node()];
            let [x, weight] = [x, weight].map(|tensor| row_or_column_major(tensor.into_primitive()));
            let y = linear_forward(&x, &weight, Some(&contiguous(bias.into_primitive())), precision);
            tracked::<C, _, _>(nodes, y, LinearState { x, weight, precision })
        }
    }
}
