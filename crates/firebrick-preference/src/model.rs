//! Training a preference model.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
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

/// The losses of some pairs.
#[derive(Clone, Debug)]
pub struct PairLosses {
    /// The ranked loss of each pair, `[pairs]`.
    pub ranked: Tensor<1>,
    /// The mean next-token loss over each better sequence, prompt included, `[pairs]`; 0 of a single token.
    pub lm: Tensor<1>,
    /// Scores of the better sequences, `[pairs]`.
    pub better: Tensor<1>,
    /// Scores of the worse sequences, `[pairs]`.
    pub worse: Tensor<1>,
}

impl PairLosses {
    /// Both losses, in one pass over all sequences (A-33). The language-model loss reads the better ones alone, unmasked (T-27).
    ///
    /// # Panics
    /// If there is no pair, a sequence is empty, or every better one has a single token.
    pub fn of<M: ScoringLm>(model: &M, pairs: &[Pair], device: &Device) -> Self {
        let better = TokenBatch::of(&pairs.iter().map(|pair| &pair.better).collect::<Vec<_>>(), device);
        let sequences = better.sequences().chain(pairs.iter().map(|pair| &pair.worse[..])).collect::<Vec<_>>();
        let mut places = (0..better.tokens()).collect::<Vec<_>>();
        better.last().into_iter().rev().for_each(|end| _ = places.remove(end));
        assert!(!places.is_empty(), "every better sequence has a single token");
        let (scores, logits) = model.scores_and_logits(&TokenBatch::of(&sequences, device), &places);
        let losses = token_log_probs(logits, better.targets()).neg();
        let mut start = 0;
        let mean = |&length: &usize| match length - 1 {
            0 => Tensor::zeros([1], device),
            targets => {
                start += targets;
                losses.clone().narrow(0, start - targets, targets).mean()
            }
        };
        let lm = Tensor::cat(better.lengths().iter().map(mean).collect(), 0);
        let [better, worse] = [0, pairs.len()].map(|first| scores.clone().narrow(0, first, pairs.len()));
        Self { ranked: ranked_loss(better.clone(), worse.clone()), lm, better, worse }
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
        let share = |chunk: &[Pair]| (chunk.to_vec(), chunk.len() as f64 / pairs.len() as f64);
        Ok(pairs.chunks(config.micro_batch_size).map(share).collect())
    };
    let loss = |model: &M, (pairs, share): &(Vec<Pair>, f64)| {
        let losses = PairLosses::of(model, pairs, &device);
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
        let tokens = pairs.iter().map(|pair| (pair.better.len() + pair.worse.len()) as u64).sum();
        let total = losses.ranked.mean() * config.ranked_weight + losses.lm.mean() * config.lm_weight;
        metrics
            .into_iter()
            .fold(Loss::new(total * *share, tokens), |loss, (name, value)| loss.with(name, value * share))
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
