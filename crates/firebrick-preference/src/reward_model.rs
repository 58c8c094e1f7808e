//! Training a preference model (reward model).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_tensor::{ScoringLm, TokenBatch, segment, token_log_probs};
use firebrick_train::{Error, FitConfig, Passes, Run};
use serde::{Deserialize, Serialize};

use crate::passes::{fit_pairs, mean, share_right};
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
/// See [`fit`](firebrick_train::fit); also if there is no pair, or one is a tie.
pub fn train<M: ScoringLm + Module + Send>(
    model: M,
    pairs: &[Pair],
    config: &RewardModelConfig,
    run: Run<'_, M>,
) -> Result<M, Error> {
    if let Some(index) = pairs.iter().position(|pair| pair.tie) {
        return Err(Error::Sample {
            what: format!("pair {index} is a tie, of which the ranked loss can learn nothing"),
            fix: "leave it out".into(),
        });
    }
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let loss = |model: &M, pairs: &[Pair]| {
        let losses = PairLosses::of(model, pairs, &device);
        let (chosen, rejected) = (mean(&losses.chosen), mean(&losses.rejected));
        let metrics = [
            ("accuracy", share_right(&pair_accuracy(losses.chosen, losses.rejected))),
            ("margin", chosen - rejected),
            ("mean_reward", 0.5 * (chosen + rejected)),
            ("ranked_loss", mean(&losses.ranked)),
            ("lm_loss", mean(&losses.lm)),
        ];
        (losses.ranked.mean() * config.ranked_weight + losses.lm.mean() * config.lm_weight, metrics)
    };
    let RewardModelConfig { batch_size, micro_batch_size, passes, fit, .. } = *config;
    fit_pairs(model, pairs, &Passes { batch_size, micro_batch_size, passes, fit }, run, loss)
}
