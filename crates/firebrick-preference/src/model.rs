//! Training a preference model.

use burn::module::Module;
use burn::tensor::Tensor;
use firebrick_tensor::{ScoringLm, TokenBatch, masked, token_log_probs};
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
    /// The mean next-token loss over each better sequence, prompt included, `[batch]`.
    pub lm: Tensor<1>,
    /// Scores of the better sequences, `[batch]`.
    pub better: Tensor<1>,
    /// Scores of the worse sequences, `[batch]`.
    pub worse: Tensor<1>,
}

impl PairLosses {
    /// Both losses of pairs (A-33). The language-model loss reads the better sequences alone, unmasked (T-27).
    pub fn of<M: ScoringLm>(model: &M, better: &TokenBatch, worse: &TokenBatch) -> Self {
        let (good, logits) = model.scores_and_logits(better);
        let bad = model.scores(worse);
        let losses = token_log_probs(logits, better.targets()).neg();
        Self {
            ranked: ranked_loss(good.clone(), bad.clone()),
            lm: masked::row_means(losses, &better.target_mask()),
            better: good,
            worse: bad,
        }
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
        let mut pairs = pairs[start..pairs.len().min(start + config.batch_size)].to_vec();
        // Pairs of a length together, so that little is filled in.
        pairs.sort_by_key(|pair| pair.better.len().max(pair.worse.len()));
        let micro_batch = |chunk: &[Pair]| {
            let better = chunk.iter().map(|pair| &pair.better).collect::<Vec<_>>();
            let worse = chunk.iter().map(|pair| &pair.worse).collect::<Vec<_>>();
            let share = chunk.len() as f64 / pairs.len() as f64;
            (TokenBatch::from_ragged(&better, &device), TokenBatch::from_ragged(&worse, &device), share)
        };
        Ok(pairs.chunks(config.micro_batch_size).map(micro_batch).collect())
    };
    let loss = |model: &M, (better, worse, share): &(TokenBatch, TokenBatch, f64)| {
        let losses = PairLosses::of(model, better, worse);
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
        let tokens = better.lengths().iter().chain(worse.lengths()).sum::<usize>() as u64;
        metrics
            .into_iter()
            .fold(Loss::new(total * *share, tokens), |loss, (name, value)| loss.with(name, value * share))
    };
    fit(model, &config.fit, samples, config.batch_size as u64, checkpoints, observer, batch, loss)
}

/// The score of every sequence, computed `micro_batch_size` at a time on the machine's cores, those of a length together.
///
/// Sequences longer than the model's context are cut from the left (T-12).
pub fn scores<M: ScoringLm + Module + Send>(
    model: &M,
    sequences: &[Vec<TokenId>],
    micro_batch_size: usize,
) -> Vec<f64> {
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let context = model.context();
    let tail = |index: usize| &sequences[index][sequences[index].len().saturating_sub(context)..];
    let mut order = (0..sequences.len()).collect::<Vec<_>>();
    order.sort_by_key(|&index| tail(index).len());
    let chunks = order.chunks(micro_batch_size).map(|chunk| (model.clone(), chunk)).collect();
    let chunks = parallel_map(chunks, |(model, chunk): (M, &[usize])| {
        let batch = TokenBatch::from_ragged(&chunk.iter().map(|&index| tail(index)).collect::<Vec<_>>(), &device);
        model.scores(&batch).without_autodiff().into_data().try_to_vec::<f32>().expect("scores are f32")
    });
    let mut scores = vec![0.0; sequences.len()];
    order.iter().zip(chunks.into_iter().flatten()).for_each(|(&index, score)| scores[index] = f64::from(score));
    scores
}
