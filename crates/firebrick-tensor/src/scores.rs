//! Scores of many sequences.

use burn::module::Module;
use firebrick_types::TokenId;

use crate::{SequenceScorer, TokenBatch, Workers};

/// The score of every sequence, computed `micro_batch_size` at a time by the workers.
///
/// Sequences longer than the scorer's context are cut from the left (T-12). A score depends on its sequence alone.
pub fn scores<S: SequenceScorer + Module + Send>(
    scorer: &S,
    sequences: &[Vec<TokenId>],
    micro_batch_size: usize,
    workers: &Workers,
) -> Vec<f64> {
    let device = scorer.devices().into_iter().next().expect("a module has parameters");
    let context = scorer.context();
    let tails =
        sequences.iter().map(|sequence| &sequence[sequence.len().saturating_sub(context)..]).collect::<Vec<_>>();
    let chunks = tails.chunks(micro_batch_size).map(|chunk| (scorer.clone(), chunk)).collect();
    let chunks = workers.map(chunks, |(scorer, chunk): (S, &[&[TokenId]])| {
        let scores = scorer.scores(&TokenBatch::of(chunk, &device)).without_autodiff().into_data();
        scores.try_to_vec::<f32>().expect("scores are f32")
    });
    chunks.into_iter().flatten().map(f64::from).collect()
}
