//! What an optimiser does to flat parameters, in one pass over memory.

use burn::backend::flex::FlexTensor;

use super::{contiguous, elements, tensor, vector, whole};
use crate::AdamWStep;

/// Weights, mean and mean square; moments that nothing else holds are changed where they lie.
pub(super) fn adamw(
    weights: FlexTensor,
    gradient: FlexTensor,
    mean: FlexTensor,
    square: FlexTensor,
    step: AdamWStep,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let gradient = contiguous(gradient);
    let [mut weights, mut mean, mut square] = [weights, mean, square].map(whole);
    vector::adamw(
        weights.storage_mut::<f32>(),
        elements(&gradient),
        mean.storage_mut::<f32>(),
        square.storage_mut::<f32>(),
        step,
    );
    (weights, mean, square)
}

/// In blocks of f32, which are added up in f64.
pub(super) fn square_sum(x: FlexTensor) -> FlexTensor {
    const BLOCK: usize = 4096;
    let x = contiguous(x);
    let sum = elements(&x).chunks(BLOCK).map(|block| f64::from(vector::square_sum(block))).sum::<f64>();
    tensor(vec![sum as f32], vec![1])
}
