//! How losses, samplers and loops see a model.

use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_types::TokenId;

use crate::TokenBatch;

/// Indices as a tensor, for [`Tensor::select`].
pub fn indices(indices: &[usize], device: &Device) -> Tensor<1, Int> {
    let numbers = indices.iter().map(|&index| index as i64).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(numbers, [indices.len()]), device)
}

/// A model that gives every position the distribution of the next token.
pub trait CausalLm {
    /// Next-token logits, `[tokens, vocab]`, after every token of the batch.
    fn logits(&self, batch: &TokenBatch) -> Tensor<2>;

    /// Next-token logits, `[positions, vocab]`, after the tokens at some positions of the batch.
    ///
    /// The same numbers as those of [`logits`](Self::logits), which computes more than is wanted where few positions are.
    ///
    /// # Panics
    /// If the batch has no such position.
    fn logits_at(&self, batch: &TokenBatch, positions: &[usize]) -> Tensor<2> {
        self.logits(batch).select(0, indices(positions, batch.device()))
    }

    /// The number of tokens in the vocabulary.
    fn vocab(&self) -> usize;

    /// The longest sequence it can read, in tokens.
    fn context(&self) -> usize;
}

/// Tokens that a sequence of a cache reads next.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a> {
    /// The sequence's place in the cache.
    pub slot: usize,
    /// At least one token.
    pub tokens: &'a [TokenId],
}

/// A [`CausalLm`] that reads on where it stopped.
///
/// A cache holds several sequences in slots. They are independent: each reads when it is fed, is forgotten when its slot is
/// wanted, and gives the same logits whatever its neighbours do.
pub trait Incremental: CausalLm {
    /// What it remembers of the tokens read.
    type Cache;

    /// The same model with its matrices laid out for sampling too, which is then faster and takes more memory; the same one where
    /// that does not help.
    #[must_use]
    fn prepacked(self) -> Self
    where
        Self: Sized,
    {
        self
    }

    /// A cache of this many empty slots, each with room for `capacity` tokens.
    fn cache(&self, slots: usize, capacity: usize) -> Self::Cache;

    /// Reads more tokens of some sequences; returns the next-token logits `[feeds, vocab]` after the last of each.
    ///
    /// # Panics
    /// If a slot is fed twice or nothing, or has no room.
    fn extend(&self, cache: &mut Self::Cache, feeds: &[Feed<'_>]) -> Tensor<2>;

    /// Empties a slot.
    fn forget(&self, cache: &mut Self::Cache, slot: usize);

    /// Makes slot `to` remember what slot `from` does.
    fn copy(&self, cache: &mut Self::Cache, from: usize, to: usize);
}

/// A model that gives a whole sequence one score: a preference model, in its own logits.
pub trait SequenceScorer {
    /// The score of each sequence, `[sequences]`, read at its last token (A-34, T-13).
    fn scores(&self, batch: &TokenBatch) -> Tensor<1>;

    /// The longest sequence it can read, in tokens.
    fn context(&self) -> usize;
}

/// A model that gives every position a value: a critic.
pub trait TokenValues {
    /// The value after each token of the batch, `[tokens]`.
    fn values(&self, batch: &TokenBatch) -> Tensor<1>;
}

/// A [`SequenceScorer`] that is a language model too, so that both losses of preference-model training share one pass.
pub trait ScoringLm: SequenceScorer {
    /// The [scores](SequenceScorer::scores) `[sequences]`, and the [logits](CausalLm::logits_at) `[positions, vocab]` at some positions.
    fn scores_and_logits(&self, batch: &TokenBatch, positions: &[usize]) -> (Tensor<1>, Tensor<2>);
}
