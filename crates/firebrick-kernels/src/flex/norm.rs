//! Norms of rows.

use burn::backend::flex::FlexTensor;

use super::vjp::Vjp;
use super::{dims, elements, tensor, vector};

/// The normalised rows, and each one's inverse root mean square.
pub(super) fn rms_norm_forward(x: &FlexTensor, weight: &FlexTensor, epsilon: f32) -> (FlexTensor, Vec<f32>) {
    let (values, weight) = (elements(x), elements(weight));
    let mut y = vec![0.0; values.len()];
    let rows = values.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len()));
    let inverses = rows.map(|(x, y)| vector::rms_norm(x, weight, epsilon, y)).collect();
    (tensor(y, dims(x)), inverses)
}

#[derive(Clone, Debug)]
pub(super) struct RmsNormKept {
    pub(super) x: FlexTensor,
    pub(super) weight: FlexTensor,
    pub(super) inverses: Vec<f32>,
}

impl Vjp<2> for RmsNormKept {
    fn vjp(self, g: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let Self { x, weight, inverses } = self;
        let d_model = elements(&weight).len();
        let (mut dx, mut dweight) = (vec![0.0; elements(&x).len()], vec![0.0; d_model]);
        let rows = elements(&x).chunks_exact(d_model).zip(elements(&g).chunks_exact(d_model));
        for (((x, g), dx), inverse) in rows.zip(dx.chunks_exact_mut(d_model)).zip(inverses) {
            vector::rms_norm_backward(x, elements(&weight), g, inverse, dx, &mut dweight);
        }
        [Some(tensor(dx, dims(&x))), Some(tensor(dweight, vec![d_model]))]
    }
}

/// The normalised rows, and mean and inverse deviation of each.
pub(super) fn layer_norm_forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    epsilon: f32,
) -> (FlexTensor, Vec<[f32; 2]>) {
    let (weight, bias) = (elements(weight), elements(bias));
    let values = elements(x);
    let mut y = vec![0.0; values.len()];
    let rows = values.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len()));
    let moments = rows.map(|(x, y)| vector::layer_norm(x, weight, bias, epsilon, y)).collect();
    (tensor(y, dims(x)), moments)
}

#[derive(Clone, Debug)]
pub(super) struct LayerNormKept {
    pub(super) x: FlexTensor,
    pub(super) weight: FlexTensor,
    pub(super) moments: Vec<[f32; 2]>,
}

impl Vjp<3> for LayerNormKept {
    fn vjp(self, g: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Self { x, weight, moments } = self;
        let d_model = elements(&weight).len();
        let mut dx = vec![0.0; elements(&x).len()];
        let (mut dweight, mut dbias) = (vec![0.0; d_model], vec![0.0; d_model]);
        let rows = elements(&x).chunks_exact(d_model).zip(elements(&g).chunks_exact(d_model));
        for (((x, g), dx), moments) in rows.zip(dx.chunks_exact_mut(d_model)).zip(moments) {
            vector::layer_norm_backward(x, elements(&weight), g, moments, dx, &mut dweight, &mut dbias);
        }
        let of_vector = |values| Some(tensor(values, vec![d_model]));
        [Some(tensor(dx, dims(&x))), of_vector(dweight), of_vector(dbias)]
    }
}
