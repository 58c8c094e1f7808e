//! Training a preference model (reward model).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_tensor::{ScoringLm, TokenBatch, segment, token_log_probs};
use firebrick_train::{Error, FitConfig, Loss, Order, Run, Samples, fit};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::{Pair, pair_accuracy, ranked_loss};

/// How a preference model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardModelConfig {
    /// Pairs of one optimiser step.
    pub batch_size: usize,
    /// Pairs computed at a time.
    pub micro_batch_size: usize,
    /// How often the pairs are read.
    pub passes: usize,
    /// Weight of the ranked loss (λ of A-33).
    pub ranked_weight: f64,
    /// Weight of the language-model loss on the chosen sequence (μ of A-33).
    pub lm_weight: f64,
    /// The optimiser; its schedule counts pairs.
    pub fit: FitConfig,
}

/// The losses of some pairs.
#[derive(Clone, Debug)]
pub struct PairLosses {
    /// The ranked loss of each pair, `[pairs]`.
    pub ranked: Tensor<1>,
    /// The mean next-token loss over each chosen sequence, prompt included, `[pairs]`; 0 of a single token.
    pub lm: Tensor<1>,
    /// Scores of the chosen sequences, `[pairs]`.
    pub chosen: Tensor<1>,
    /// Scores of the rejected sequences, `[pairs]`.
    pub rejected: Tensor<1>,
}

impl PairLosses {
    /// Both losses, in one pass over all sequences (A-33). The language-model loss reads the chosen ones alone, unmasked (T-27).
    ///
    /// # Panics
    /// If there is no pair, a sequence is empty, or every chosen one has a single token.
    pub fn of<M: ScoringLm>(model: &M, pairs: &[Pair], device: &Device) -> Self {
        let (chosen, rejected): (Vec<_>, Vec<_>) =
            pairs.iter().map(|pair| pair.sequences(model.context()).into()).unzip();
        let chosen = TokenBatch::of(&chosen, device);
        let sequences = chosen.sequences().chain(rejected.iter().map(Vec::as_slice)).collect::<Vec<_>>();
        let mut positions = (0..chosen.tokens()).collect::<Vec<_>>();
        chosen.last().into_iter().rev().for_each(|end| _ = positions.remove(end));
        assert!(!positions.is_empty(), "every chosen sequence has a single token");
        let (scores, logits) = model.scores_and_logits(&TokenBatch::of(&sequences, device), &positions);
        let targets = chosen.lengths().iter().map(|length| length - 1).collect::<Vec<_>>();
        let lm = segment::mean(token_log_probs(logits, chosen.targets()).neg(), &targets);
        let [chosen, rejected] = [0, pairs.len()].map(|first| scores.clone().narrow(0, first, pairs.len()));
        Self { ranked: ranked_loss(chosen.clone(), rejected.clone()), lm, chosen, rejected }
    }
}

/// The model after its passes over the pairs in an order drawn from the seed (T-28).
///
/// ```text
/// L = λ mean(ranked) + μ mean(lm)
/// ```
///
/// Askell et al. 2021, §4 and C.3. Spec: A-31, A-33, B-09. Sequences longer than the model's context are cut from the left (T-12).
/// Metrics: `loss`, `accuracy`, `margin`, `mean_reward`, `ranked_loss`, `lm_loss`, `grad_norm`, `lr`.
///
/// # Errors
/// See [`fit`]; also if there is no pair, or one is a tie.
pub fn train<M: ScoringLm + Module + Send>(
    model: M,
    pairs: &[Pair],
    config: &RewardModelConfig,
    run: Run<'_, M>,
) -> Result<M, Error> {
    if pairs.is_empty() {
        return Err(Error::Empty { what: "the set of pairs".into(), fix: "give it at least one comparison".into() });
    }
    if let Some(index) = pairs.iter().position(|pair| pair.tie) {
        return Err(Error::Sample {
            what: format!("pair {index} is a tie, of which the ranked loss can learn nothing"),
            fix: "leave it out".into(),
        });
    }
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let seed = run.seed.derive("preference/order");
    let mut pairs = pairs.to_vec();
    pairs.shuffle(&mut seed.rng());
    let count = (pairs.len() * config.passes) as u64;
    let samples = Samples { count, per_step: config.batch_size as u64, unit: "tokens" };
    let mut order = Order::new(pairs.len(), |pass| (pass > 0).then(|| seed.at(&[pass])));
    let batch = |places| {
        let pairs = order.take(places).into_iter().map(|(_, pair)| pairs[pair].clone()).collect::<Vec<_>>();
        let share = |chunk: &[Pair]| (chunk.to_vec(), chunk.len() as f64 / pairs.len() as f64);
        Ok(pairs.chunks(config.micro_batch_size).map(share).collect())
    };
    let loss = |model: &M, (pairs, share): &(Vec<Pair>, f64)| {
        let losses = PairLosses::of(model, pairs, &device);
        let mean = |values: &Tensor<1>| f64::from(values.clone().without_autodiff().mean().into_scalar::<f32>());
        let right = pair_accuracy(losses.chosen.clone(), losses.rejected.clone());
        let accuracy = right.iter().map(|&right| f64::from(right)).sum::<f64>() / right.len() as f64;
        let (chosen, rejected) = (mean(&losses.chosen), mean(&losses.rejected));
        let metrics = [
            ("accuracy", accuracy),
            ("margin", chosen - rejected),
            ("mean_reward", 0.5 * (chosen + rejected)),
            ("ranked_loss", mean(&losses.ranked)),
            ("lm_loss", mean(&losses.lm)),
        ];
        let total = losses.ranked.mean() * config.ranked_weight + losses.lm.mean() * config.lm_weight;
        let loss = Loss::new(total * *share, pairs.iter().map(Pair::tokens).sum());
        metrics.into_iter().fold(loss, |loss, (name, value)| loss.with(name, value * share))
    };
    fit(model, &config.fit, samples, run, batch, loss)
}
