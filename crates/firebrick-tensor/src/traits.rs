//! How losses, samplers and loops see a model.

use burn::tensor::{Int, Tensor};

use crate::{PackedBatch, TokenBatch};

/// A model that gives every position the distribution of the next token.
pub trait CausalLm {
    /// Next-token logits, `[batch, seq, vocab]`, of ids `[batch, seq]`.
    fn logits(&self, ids: Tensor<2, Int>) -> Tensor<3>;

    /// The number of tokens in the vocabulary.
    fn vocab(&self) -> usize;

    /// The longest sequence it can read, in tokens.
    fn context(&self) -> usize;
}

/// A [`CausalLm`] that reads several sequences side by side in one row.
pub trait PackedLm: CausalLm {
    /// Next-token logits, `[batch, seq, vocab]`, of packed sequences.
    fn packed_logits(&self, batch: &PackedBatch) -> Tensor<3>;
}

/// A [`CausalLm`] that reads on where it stopped.
pub trait Incremental: CausalLm {
    /// What it remembers of the tokens read.
    type Cache;

    /// Reads the prompts; returns the next-token logits `[batch, vocab]` after each one's last token, and a cache with room
    /// for `new_tokens` more.
    fn prefill(&self, prompts: &TokenBatch, new_tokens: usize) -> (Tensor<2>, Self::Cache);

    /// Reads one more token of every sequence, `[batch]`; returns the next-token logits `[batch, vocab]`.
    fn step(&self, ids: Tensor<1, Int>, cache: &mut Self::Cache) -> Tensor<2>;

    /// Keeps only these sequences in the cache, in this order.
    fn retain(&self, rows: &[usize], cache: &mut Self::Cache);
}

/// A model that gives a whole sequence one score: a preference model, in its own logits.
pub trait SequenceScorer {
    /// The score of each sequence, `[batch]`, read at its last real token (A-34, T-13).
    fn scores(&self, batch: &TokenBatch) -> Tensor<1>;
}

/// A model that gives every position a value: a critic.
pub trait TokenValues {
    /// The value after each token, `[batch, seq]`, of ids `[batch, seq]`.
    fn values(&self, ids: Tensor<2, Int>) -> Tensor<2>;
}

/// A [`SequenceScorer`] that is a language model too, so that both losses of preference-model training share one pass.
pub trait ScoringLm: SequenceScorer {
    /// The scores `[batch]` and the next-token logits `[batch, seq, vocab]`.
    fn scores_and_logits(&self, batch: &TokenBatch) -> (Tensor<1>, Tensor<3>);

    /// The longest sequence it can read, in tokens.
    fn context(&self) -> usize;
}
