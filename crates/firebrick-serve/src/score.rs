//! The log-probabilities of a prompt's own tokens.

use burn::tensor::{Device, Tensor};
use firebrick_kernels::token_log_probs;
use firebrick_sampling::likeliest;
use firebrick_tensor::{CausalLm, TokenBatch};
use firebrick_types::TokenId;

use crate::choice::agreeing;

/// Positions whose distributions are looked at together.
const PIECE: usize = 64;

/// Of a token: its log-probability, none of the first, and the likeliest at its place.
pub(crate) type Score = (Option<f32>, Vec<(TokenId, f32)>);

/// A score of each token, read in one pass as training does; `top` alternatives are told.
pub(crate) fn score<M: CausalLm>(model: &M, device: &Device, ids: &[TokenId], top: usize) -> Vec<Score> {
    let mut scores = vec![(None, Vec::new())];
    let Some(last) = ids.len().checked_sub(1).filter(|&last| last > 0) else { return scores };
    let vocab = model.vocab();
    let batch = TokenBatch::from_ragged(&[ids], device).ids().clone();
    let logits: Tensor<2> = model.logits(batch.clone().slice([0..1, 0..last])).reshape([last, vocab]);
    let targets = batch.slice([0..1, 1..last + 1]).reshape([last]);
    for begin in (0..last).step_by(PIECE) {
        let piece = begin..(begin + PIECE).min(last);
        let logits = logits.clone().slice([piece.clone(), 0..vocab]);
        let values = (top > 0).then(|| logits.to_data().try_to_vec::<f32>().expect("logits are f32"));
        let log_probs = token_log_probs(logits, targets.clone().slice([piece.clone()]));
        let log_probs = log_probs.into_data().try_to_vec::<f32>().expect("log-probabilities are f32");
        for (row, log_prob) in log_probs.into_iter().enumerate() {
            let row_of = |values: &Vec<f32>| likeliest(&values[row * vocab..][..vocab], top);
            let likely = values.as_ref().map(row_of).unwrap_or_default();
            scores.push((Some(log_prob), agreeing(likely, ids[piece.start + row + 1], log_prob)));
        }
    }
    scores
}
