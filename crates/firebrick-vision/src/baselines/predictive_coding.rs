//! Predictive coding over the layers of a classifier.

use burn::tensor::Tensor;
use firebrick_kernels::conv2d_adjoint;

use crate::generative::{Evidence, GenerativeModel, filled};
use crate::pooling::{unpool, windows, won};

/// Filled by a loop of predictive coding over the layers of a classifier.
///
/// ```text
/// d^{l−1} = φ(V^l * unpool(aˡ, sˡ) + cˡ)                       what a layer predicts of the one below
/// aˡ ← β ff(a^{l−1}) + λ dˡ + (1 − β − λ) aˡ − α ∂‖a^{l−1} − d^{l−1}‖² / ∂aˡ
/// hidden pixels ← d⁰
/// ```
///
/// After Choksi et al. 2021, *Predify: Augmenting deep neural networks with brain-inspired predictive coding dynamics*, eq. 1; the
/// predictions are those of the model's decoders, which learnt them from seen images.
///
/// # Panics
/// If images are of another size.
pub fn predictive_coding(model: &GenerativeModel, evidence: &Evidence, steps: usize) -> Tensor<4> {
    const FORWARD: f64 = 0.8;
    const BACKWARD: f64 = 0.1;
    const CORRECTION: f64 = 0.01;
    let (blocks, decoders) = (&model.network.blocks, &model.decoders);
    let dims = evidence.images.dims();
    let mut image = filled(evidence, model.pixels.mean.clone().expand(dims));
    let mut states: Vec<Tensor<4>> = Vec::new();
    let mut predictions: Vec<Tensor<4>> = Vec::new();
    for _ in 0..steps {
        let mut switches = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.iter().enumerate() {
            let below = if index == 0 { image.clone() } else { states[index - 1].clone() };
            let parts = windows(block.rectified(below.clone()), block.pool);
            let won = won(parts.clone());
            let forward = (parts * won.clone()).sum_dim(4).squeeze_dim::<4>(4);
            if let Some(state) = states.get(index).cloned() {
                let (decoder, predicted) = (&decoders[index], predictions[index].clone());
                let missed = (below - predicted.clone())
                    * if decoder.rectified { predicted.greater_elem(0.0).float() } else { predicted.ones_like() };
                let [_, height, width, _] = missed.dims();
                let slope = conv2d_adjoint(missed, decoder.weight.clone(), decoder.window, [height, width]);
                let slope = (windows(slope, block.pool) * won.clone()).sum_dim(4).squeeze_dim::<4>(4);
                let above = predictions.get(index + 1).cloned().unwrap_or_else(|| state.clone());
                states[index] = forward * FORWARD
                    + above * BACKWARD
                    + state * (1.0 - FORWARD - BACKWARD)
                    + slope * (2.0 * CORRECTION);
            } else {
                states.push(forward);
            }
            switches.push(won);
        }
        let predict = |index: usize| {
            decoders[index].render(unpool(states[index].clone(), switches[index].clone(), blocks[index].pool))
        };
        predictions = (0..blocks.len()).map(predict).collect();
        image = filled(evidence, predictions[0].clone().clamp(0.0, 1.0));
    }
    image
}
