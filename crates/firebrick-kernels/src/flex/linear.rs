//! Linear maps.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::DType;
use half::bf16;

use super::product::{
    Matrix, Start, few_rows, prepacked, prepacked_pairs, product, product_of_pairs, product_of_prepacked,
    product_of_prepacked_pairs,
};
use super::vjp::Vjp;
use super::{dims, elements, tensor, vector};
use crate::Precision;

/// The matrix of a tensor of two dimensions, wherever its elements lie.
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

/// The tensor with rows or columns of neighbours.
pub(super) fn laid(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    if layout.has_positive_strides() && layout.strides().contains(&1) { tensor } else { tensor.to_contiguous() }
}

/// `x W + b`, or without `b`; the weights may be half as wide in memory.
pub(super) fn linear_forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    precision: Precision,
) -> FlexTensor {
    let start = bias.map_or(Start::Zero, |bias| Start::Row(elements(bias)));
    let y = match (precision, weight.dtype()) {
        (Precision::Bf16, DType::BF16) => product_of_pairs(start, matrix(x), half_matrix(weight)),
        (Precision::Bf16, _) => product_of_pairs(start, matrix(x), matrix(weight)),
        (Precision::F32, DType::BF16) => product(start, matrix(x), half_matrix(weight)),
        (Precision::F32, _) => product(start, matrix(x), matrix(weight)),
    };
    tensor(y, vec![dims(x)[0], dims(weight)[1]])
}

/// The weights in panels, `[panels, d_input, width]`; where they are rounded, words of two in the order of the tiles.
pub(super) fn prepack(weight: &FlexTensor, precision: Precision) -> FlexTensor {
    let (panels, dims) = match precision {
        Precision::F32 => prepacked(matrix(weight)),
        Precision::Bf16 if weight.dtype() == DType::BF16 => prepacked_pairs(half_matrix(weight)),
        Precision::Bf16 => prepacked_pairs(matrix(weight)),
    };
    tensor(panels, dims.to_vec())
}

/// `x W + b` of the panels that were made of W; of W itself, where there are many rows or it is another by now.
pub(super) fn linear_prepacked(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    of: &FlexTensor,
    panels: &FlexTensor,
    precision: Precision,
) -> FlexTensor {
    let place = |tensor: &FlexTensor| {
        let bytes = match tensor.dtype() {
            DType::BF16 => tensor.storage::<bf16>().as_ptr().cast::<u8>(),
            _ => tensor.storage::<f32>().as_ptr().cast(),
        };
        (bytes, tensor.dtype(), tensor.layout().clone())
    };
    // What the panels were made of is still held, so that nothing else can lie in its place, nor be written there.
    if dims(x)[0] > few_rows() || place(weight) != place(of) {
        return linear_forward(x, weight, Some(bias), precision);
    }
    let product = match precision {
        Precision::F32 => product_of_prepacked,
        Precision::Bf16 => product_of_prepacked_pairs,
    };
    let y = product(elements(bias), matrix(x), elements(panels));
    tensor(y, vec![dims(x)[0], dims(weight)[1]])
}

/// d x = g Wᵀ, d W = xᵀ g, d b = Σ g over the rows.
#[derive(Clone, Debug)]
pub(super) struct LinearKept {
    pub(super) x: FlexTensor,
    pub(super) weight: FlexTensor,
    pub(super) precision: Precision,
}

/// The gradients of `x` and `weight`, those that are wanted.
fn linear_backward(kept: &LinearKept, g: &FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
    let LinearKept { x, weight, precision } = kept;
    let [d_input, d_output] = [0, 1].map(|axis| dims(weight)[axis]);
    let product_of = |a, b| match precision {
        Precision::F32 => product(Start::Zero, a, b),
        Precision::Bf16 => product_of_pairs(Start::Zero, a, b),
    };
    let dx = || {
        let dx = match (precision, weight.dtype()) {
            (Precision::F32, DType::BF16) => product(Start::Zero, matrix(g), half_matrix(weight).transposed()),
            (Precision::Bf16, DType::BF16) => {
                product_of_pairs(Start::Zero, matrix(g), half_matrix(weight).transposed())
            }
            _ => product_of(matrix(g), matrix(weight).transposed()),
        };
        tensor(dx, dims(x))
    };
    let dweight = || {
        assert_eq!(weight.dtype(), DType::F32, "weights that are half as wide in memory are not trained");
        if weight.layout().strides()[1] == 1 {
            return tensor(product_of(matrix(x).transposed(), matrix(g)), dims(weight));
        }
        // A table that is read the other way round gets its gradient the other way round.
        tensor(product_of(matrix(g).transposed(), matrix(x)), vec![d_output, d_input]).transpose(0, 1)
    };
    [wanted[0].then(dx), wanted[1].then(dweight)]
}

impl Vjp<2> for LinearKept {
    fn vjp(self, g: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        linear_backward(&self, &g, wanted)
    }
}

impl Vjp<3> for LinearKept {
    fn vjp(self, g: FlexTensor, [of_x, of_weight, of_bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let [dx, dweight] = linear_backward(&self, &g, [of_x, of_weight]);
        [dx, dweight, of_bias.then(|| column_sums(&g, dims(&self.weight)[1]))]
    }
}

/// The sums of so many columns.
pub(super) fn column_sums(rows: &FlexTensor, columns: usize) -> FlexTensor {
    let mut sums = vec![0.0; columns];
    vector::column_sums(elements(rows), &mut sums);
    tensor(sums, vec![columns])
}
