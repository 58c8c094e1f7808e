//! Norms of rows.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::flex::FlexTensor;

use super::{contiguous, dims, elements, tensor, vector};

/// The normalised rows, and each one's inverse root mean square.
pub(super) fn rms_norm_forward(x: &FlexTensor, weight: &FlexTensor, epsilon: f32) -> (FlexTensor, Vec<f32>) {
    let (values, weight) = (elements(x), elements(weight));
    let mut y = vec![0.0; values.len()];
    let rows = values.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len()));
    let inverses = rows.map(|(x, y)| vector::rms_norm(x, weight, epsilon, y)).collect();
    (tensor(y, dims(x)), inverses)
}

#[derive(Clone, Debug)]
pub(super) struct RmsNormState {
    pub(super) x: FlexTensor,
    pub(super) weight: FlexTensor,
    pub(super) inverses: Vec<f32>,
}

#[derive(Debug)]
pub(super) struct RmsNormBackward;

impl Backward<Flex, 2> for RmsNormBackward {
    type State = RmsNormState;

    fn backward(self, ops: Ops<RmsNormState, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = contiguous(gradients.consume::<Flex>(&ops.node));
        let RmsNormState { x, weight, inverses } = ops.state;
        let d_model = elements(&weight).len();
        let (mut dx, mut dweight) = (vec![0.0; elements(&x).len()], vec![0.0; d_model]);
        let rows = elements(&x).chunks_exact(d_model).zip(elements(&g).chunks_exact(d_model));
        for (((x, g), dx), inverse) in rows.zip(dx.chunks_exact_mut(d_model)).zip(inverses) {
            vector::rms_norm_backward(x, elements(&weight), g, inverse, dx, &mut dweight);
        }
        for (parent, (values, dims)) in ops.parents.into_iter().zip([(dx, dims(&x)), (dweight, vec![d_model])]) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, tensor(values, dims));
            }
        }
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
pub(super) struct LayerNormState {
    pub(super) x: FlexTensor,
    pub(super) weight: FlexTensor,
    pub(super) moments: Vec<[f32; 2]>,
}

#[derive(Debug)]
pub(super) struct LayerNormBackward;

impl Backward<Flex, 3> for LayerNormBackward {
    type State = LayerNormState;

    fn backward(self, ops: Ops<LayerNormState, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = contiguous(gradients.consume::<Flex>(&ops.node));
        let LayerNormState { x, weight, moments } = ops.state;
        let d_model = elements(&weight).len();
        let mut dx = vec![0.0; elements(&x).len()];
        let (mut dweight, mut dbias) = (vec![0.0; d_model], vec![0.0; d_model]);
        let rows = elements(&x).chunks_exact(d_model).zip(elements(&g).chunks_exact(d_model));
        for (((x, g), dx), moments) in rows.zip(dx.chunks_exact_mut(d_model)).zip(moments) {
            vector::layer_norm_backward(x, elements(&weight), g, moments, dx, &mut dweight, &mut dbias);
        }
        let results = [(dx, dims(&x)), (dweight, vec![d_model]), (dbias, vec![d_model])];
        for (parent, (values, dims)) in ops.parents.into_iter().zip(results) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, tensor(values, dims));
            }
        }
    }
}
