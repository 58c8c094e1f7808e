//! The log-probabilities of a prompt's own tokens.

use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_kernels::token_log_probs;
use firebrick_sampling::likeliest;
use firebrick_tensor::{CausalLm, TokenBatch};
use firebrick_types::TokenId;

use crate::choice::agreeing;

/// Positions whose distributions are looked at together.
const PIECE: usize = 64;

/// Of a token: its log-probability, none of the first, and the likeliest at its place.
pub(crate) type Score = (Option<f32>, Vec<(TokenId, f32)>);

/// A prompt as the model sees it.
pub(crate) struct Scored {
    /// Of each token.
    pub(crate) tokens: Vec<Score>,
    /// Of what may follow, `[1, vocab]`.
    pub(crate) next: Tensor<2>,
}

/// A score of each token, read in one pass as training does; `top` alternatives are told.
pub(crate) fn score<M: CausalLm>(model: &M, device: &Device, ids: &[TokenId], top: usize) -> Scored {
    let (vocab, last) = (model.vocab(), ids.len() - 1);
    let logits = model.logits(&TokenBatch::of(&[ids], device));
    let next = logits.clone().slice([last..last + 1, 0..vocab]);
    let mut tokens = vec![(None, Vec::new())];
    for begin in (0..last).step_by(PIECE) {
        let piece = begin..(begin + PIECE).min(last);
        let targets = &ids[piece.start + 1..=piece.end];
        tokens.extend(log_probs(logits.clone().slice([piece, 0..vocab]), targets, top));
    }
    Scored { tokens, next }
}

/// What logits `[tokens, vocab]` say of the tokens that follow.
pub(crate) fn log_probs(logits: Tensor<2>, targets: &[TokenId], top: usize) -> Vec<Score> {
    let [tokens, vocab] = logits.dims();
    let values = (top > 0).then(|| logits.to_data().try_to_vec::<f32>().expect("logits are f32"));
    let ids = targets.iter().map(|&id| i64::from(id)).collect::<Vec<_>>();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [tokens]), &logits.device());
    let own = token_log_probs(logits, ids).into_data().try_to_vec::<f32>().expect("log-probabilities are f32");
    let score = |(row, log_prob): (usize, f32)| {
        let likely = values.as_ref().map(|values| likeliest(&values[row * vocab..][..vocab], top));
        (Some(log_prob), agreeing(likely.unwrap_or_default(), targets[row], log_prob))
    };
    own.into_iter().enumerate().map(score).collect()
}
