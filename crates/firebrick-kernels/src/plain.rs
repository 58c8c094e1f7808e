//! The references: elementary operations, on every device.

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::Reach;

/// What a hidden position adds to an attention score; its probability is then exactly 0.
const HIDDEN: f32 = -1e9;

/// [`crate::gelu`].
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// [`crate::layer_norm`].
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let deviation = (centred.clone().square().mean_dim(1) + epsilon).sqrt();
    centred / deviation * weight.unsqueeze() + bias.unsqueeze()
}

/// [`crate::attention`].
pub fn attention(qkv: Tensor<3>, heads: usize, reach: &Reach) -> Tensor<3> {
    let [batch, seq, width] = qkv.dims();
    let d_model = width / 3;
    let d_head = d_model / heads;
    let part = |index: usize| {
        let part = qkv.clone().slice([0..batch, 0..seq, index * d_model..(index + 1) * d_model]);
        part.reshape([batch, seq, heads, d_head]).swap_dims(1, 2) // [batch, heads, seq, d_head]
    };
    let rows = reach.first().iter().enumerate().flat_map(|(index, &first)| {
        let position = index % seq;
        (0..seq).map(move |read| if (first..=position).contains(&read) { 0.0 } else { HIDDEN })
    });
    let hidden = TensorData::new(rows.collect::<Vec<f32>>(), [batch, 1, seq, seq]);
    let hidden = Tensor::<4>::from_data(hidden, &qkv.device());
    let scores = (part(0) * (d_head as f64).powf(-0.5)).matmul(part(1).swap_dims(2, 3)) + hidden;
    let exp = (scores.clone() - scores.detach().max_dim(3)).exp();
    let sum = exp.clone().sum_dim(3);
    let read = (exp / sum).matmul(part(2));
    read.swap_dims(1, 2).reshape([batch, seq, d_model])
}

/// [`crate::token_log_probs`].
pub fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [tokens, _] = logits.dims();
    let shifted = logits.clone() - logits.detach().max_dim(1);
    let log_sum = shifted.clone().exp().sum_dim(1).log(); // [tokens, 1]
    let chosen = shifted.gather(1, targets.reshape([tokens, 1]));
    (chosen - log_sum).reshape([tokens])
}
