//! Training a preference model.

use burn::module::Module;
use burn::tensor::Tensor;
use firebrick_tensor::{ScoringLm, TokenBatch, token_log_probs};
use firebrick_train::{Checkpoints, Error, FitConfig, Loss, Observer, fit, parallel_map};
use firebrick_types::{Seed, TokenId};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::{pair_accuracy, ranked_loss};

/// Two sequences, each ending with the end-of-context token, of which the first is better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The preferred sequence.
    pub better: Vec<TokenId>,
    /// The other one.
    pub worse: Vec<TokenId>,
}

impl Pair {
    /// The pair cut to a context from the left, so that the last turn and the token that is read stay (T-12).
    #[must_use]
    pub fn within(&self, context: usize) -> Self {
        let tail = |sequence: &[TokenId]| sequence[sequence.len().saturating_sub(context)..].to_vec();
        Self { better: tail(&self.better), worse: tail(&self.worse) }
    }
}

/// How a preference model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreferenceConfig {
    /// Pairs of one optimiser step.
    pub batch_size: usize,
    /// Pairs computed at a time.
    pub micro_batch_size: usize,
    /// Weight of the ranked loss (λ of A-33).
    pub ranked_weight: f64,
    /// Weight of the language-model loss on the better sequence (μ of A-33).
    pub lm_weight: f64,
    /// The optimiser; its schedule counts pairs.
    pub fit: FitConfig,
}

/// The losses of a batch of pairs.
#[derive(Clone, Debug)]
pub struct PairLosses {
    /// The ranked loss of each pair, `[batch]`.
    pub ranked: Tensor<1>,
    /// The mean next-token loss over each better sequence, prompt included, `[batch]`; 0 of a single token.
    pub lm: Tensor<1>,
    /// Scores of the better sequences, `[batch]`.
    pub better: Tensor<1>,
    /// Scores of the worse sequences, `[batch]`.
    pub worse: Tensor<1>,
}

impl PairLosses {
    /// Both losses of pairs, in one pass over a batch of the better sequences and then, in the same order, the worse ones (A-33).
    /// The language-model loss reads the better sequences alone, unmasked (T-27).
    ///
    /// # Panics
    /// If the sequences are not twice as many as pairs, or no better one has two tokens.
    pub fn of<M: ScoringLm>(model: &M, batch: &TokenBatch) -> Self {
        let pairs = batch.lengths().len() / 2;
        assert_eq!(batch.lengths().len(), 2 * pairs, "a sequence has no other one");
        let better = TokenBatch::of(&batch.sequences().take(pairs).collect::<Vec<_>>(), batch.device());
        let ends = batch.last();
        let places = (0..=ends[pairs - 1]).filter(|place| !ends.contains(place)).collect::<Vec<_>>();
        let (scores, logits) = model.scores_and_logits(batch, &places);
        let losses = token_log_probs(logits, better.targets()).neg();
        let means = better.lengths().iter().scan(0, |start, length| {
            let targets = length - 1;
            *start += targets;
            Some(losses.clone().narrow(0, *start - targets, targets).sum() / targets.max(1) as f64)
        });
        let (better, worse) = (scores.clone().narrow(0, 0, pairs), scores.narrow(0, pairs, pairs));
        let ranked = ranked_loss(better.clone(), worse.clone());
        Self { ranked, lm: Tensor::cat(means.collect(), 0), better, worse }
    }
}

/// The model after one pass over the pairs in an order drawn from the seed (T-28).
///
/// ```text
/// L = λ mean(ranked) + μ mean(lm)
/// ```
///
/// Askell et al. 2021, §4 and C.3. Spec: A-31, A-33, B-09. Metrics: `loss`, `accuracy`, `margin`, `ranked_loss`, `lm_loss`,
/// `mean_reward`, `grad_norm`, `lr`.
///
/// # Errors
/// See [`fit`]; also if there is no pair.
pub fn train<M: ScoringLm + Module + Send>(
    model: M,
    pairs: &[Pair],
    config: &PreferenceConfig,
    seed: Seed,
    checkpoints: Option<&mut Checkpoints>,
    observer: &mut dyn Observer,
) -> Result<M, Error> {
    if pairs.is_empty() {
        return Err(Error::Empty { what: "the set of pairs".into(), fix: "give it at least one comparison".into() });
    }
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let mut pairs = pairs.iter().map(|pair| pair.within(model.context())).collect::<Vec<_>>();
    pairs.shuffle(&mut seed.derive("preference/order").rng());
    let samples = pairs.len() as u64;
    let batch = |step: u64| {
        let start = step as usize * config.batch_size;
        let pairs = &pairs[start..pairs.len().min(start + config.batch_size)];
        let micro_batch = |chunk: &[Pair]| {
            let sequences = chunk.iter().map(|pair| &pair.better).chain(chunk.iter().map(|pair| &pair.worse));
            let share = chunk.len() as f64 / pairs.len() as f64;
            (TokenBatch::of(&sequences.collect::<Vec<_>>(), &device), share)
        };
        Ok(pairs.chunks(config.micro_batch_size).map(micro_batch).collect())
    };
    let loss = |model: &M, (batch, share): &(TokenBatch, f64)| {
        let losses = PairLosses::of(model, batch);
        let mean = |values: &Tensor<1>| f64::from(values.clone().without_autodiff().mean().into_scalar::<f32>());
        let right = pair_accuracy(losses.better.clone(), losses.worse.clone());
        let accuracy = right.iter().map(|&right| f64::from(right)).sum::<f64>() / right.len() as f64;
        let (good, bad) = (mean(&losses.better), mean(&losses.worse));
        let metrics = [
            ("accuracy", accuracy),
            ("margin", good - bad),
            ("mean_reward", 0.5 * (good + bad)),
            ("ranked_loss", mean(&losses.ranked)),
            ("lm_loss", mean(&losses.lm)),
        ];
        let total = losses.ranked.mean() * config.ranked_weight + losses.lm.mean() * config.lm_weight;
        metrics.into_iter().fold(Loss::new(total * *share, batch.tokens() as u64), |loss, (name, value)| {
            loss.with(name, value * share)
        })
    };
    fit(model, &config.fit, samples, config.batch_size as u64, checkpoints, observer, batch, loss)
}

/// The score of every sequence, computed `micro_batch_size` at a time on the machine's cores.
///
/// Sequences longer than the model's context are cut from the left (T-12).
pub fn scores<M: ScoringLm + Module + Send>(
    model: &M,
    sequences: &[Vec<TokenId>],
    micro_batch_size: usize,
) -> Vec<f64> {
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let context = model.context();
    let tails =
        sequences.iter().map(|sequence| &sequence[sequence.len().saturating_sub(context)..]).collect::<Vec<_>>();
    let chunks = tails.chunks(micro_batch_size).map(|chunk| (model.clone(), chunk)).collect();
    let chunks = parallel_map(chunks, |(model, chunk): (M, &[&[TokenId]])| {
        let scores = model.scores(&TokenBatch::of(chunk, &device)).without_autodiff().into_data();
        scores.try_to_vec::<f32>().expect("scores are f32")
    });
    chunks.into_iter().flatten().map(f64::from).collect()
}
