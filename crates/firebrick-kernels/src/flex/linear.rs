//! Linear maps.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::DType;
use half::bf16;

use super::product::{Matrix, Start, few_rows, prepacked, product, product_of_prepacked};
use super::vjp::Vjp;
use super::{dims, elements, tensor, vector};

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
pub(super) fn linear_forward(x: &FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
    let start = bias.map_or(Start::Zero, |bias| Start::Row(elements(bias)));
    let y = match weight.dtype() {
        DType::BF16 => product(start, matrix(x), half_matrix(weight)),
        _ => product(start, matrix(x), matrix(weight)),
    };
    tensor(y, vec![dims(x)[0], dims(weight)[1]])
}

/// The weights in panels, `[panels, d_input, width]`.
pub(super) fn prepack(weight: &FlexTensor) -> FlexTensor {
    let (panels, dims) = prepacked(matrix(weight));
    tensor(panels, dims.to_vec())
}

/// `x W + b` of the panels that were made of W; of W itself, where there are many rows or it is another by now.
pub(super) fn linear_prepacked(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    of: &FlexTensor,
    panels: &FlexTensor,
) -> FlexTensor {
    let place = |tensor: &FlexTensor| (tensor.storage::<f32>().as_ptr_range(), tensor.layout().clone());
    // What the panels were made of is still held, so that nothing else can lie in its place, nor be written there.
    if dims(x)[0] > few_rows() || weight.dtype() != DType::F32 || place(weight) != place(of) {
        return linear_forward(x, weight, Some(bias));
    }
    let y = product_of_prepacked(elements(bias), matrix(x), elements(panels));
    tensor(y, vec![dims(x)[0], dims(weight)[1]])
}

/// d x = g Wᵀ, d W = xᵀ g, d b = Σ g over the rows.
#[derive(Clone, Debug)]
pub(super) struct LinearKept {
    pub(super) x: FlexTensor,
    pub(super) weight: FlexTensor,
}

/// The gradients of `x` and `weight`, those that are wanted.
fn linear_backward(x: &FlexTensor, weight: &FlexTensor, g: &FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
    let [d_input, d_output] = [0, 1].map(|axis| dims(weight)[axis]);
    let dx = || {
        let dx = match weight.dtype() {
            DType::BF16 => product(Start::Zero, matrix(g), half_matrix(weight).transposed()),
            _ => product(Start::Zero, matrix(g), matrix(weight).transposed()),
        };
        tensor(dx, dims(x))
    };
    let dweight = || {
        assert_eq!(weight.dtype(), DType::F32, "weights that are half as wide in memory are not trained");
        if weight.layout().strides()[1] == 1 {
            return tensor(product(Start::Zero, matrix(x).transposed(), matrix(g)), dims(weight));
        }
        // A table that is read the other way round gets its gradient the other way round.
        tensor(product(Start::Zero, matrix(g).transposed(), matrix(x)), vec![d_output, d_input]).transpose(0, 1)
    };
    [wanted[0].then(dx), wanted[1].then(dweight)]
}

impl Vjp<2> for LinearKept {
    fn vjp(self, g: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        linear_backward(&self.x, &self.weight, &g, wanted)
    }
}

impl Vjp<3> for LinearKept {
    fn vjp(self, g: FlexTensor, [of_x, of_weight, of_bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let [dx, dweight] = linear_backward(&self.x, &self.weight, &g, [of_x, of_weight]);
        [dx, dweight, of_bias.then(|| column_sums(&g, dims(&self.weight)[1]))]
    }
}

/// The sums of so many columns.
pub(super) fn column_sums(rows: &FlexTensor, columns: usize) -> FlexTensor {
    let mut sums = vec![0.0; columns];
    vector::column_sums(elements(rows), &mut sums);
    tensor(sums, vec![columns])
}
