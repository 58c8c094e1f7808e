//! Training a policy on pairs directly, without a preference model.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use firebrick_tensor::{CausalLm, ResponseBatch, segment, token_log_probs};
use firebrick_train::{Error, Passes, Run};

use crate::passes::{fit_pairs, mean, share_right};
use crate::{Objective, Pair, PairLogProbs, pair_accuracy};

/// log π of every response, summed over its tokens, `[responses]`: the chosen ones of the pairs, then the rejected ones.
///
/// # Panics
/// If there is no pair, or a prompt or response is empty.
pub fn response_log_probs<M: CausalLm>(model: &M, pairs: &[Pair], device: &Device) -> Tensor<1> {
    let of = |response: fn(&Pair) -> &Vec<_>| pairs.iter().map(move |pair| (&pair.prompt[..], &response(pair)[..]));
    let batch = ResponseBatch::of(of(|pair| &pair.chosen).chain(of(|pair| &pair.rejected)), device);
    segment::sum(token_log_probs(batch.logits(model, 1.0), batch.responses()), batch.lengths())
}

impl PairLogProbs {
    /// Those of some pairs by a policy and its reference; gradients flow through the policy alone.
    ///
    /// # Panics
    /// As of [`response_log_probs`].
    pub fn of<P: CausalLm, R: CausalLm>(policy: &P, reference: &R, pairs: &[Pair], device: &Device) -> Self {
        let count = pairs.len();
        let halves = |whole: Tensor<1>| [0, count].map(|first| whole.clone().narrow(0, first, count));
        let [chosen, rejected] = halves(response_log_probs(policy, pairs, device));
        let frozen = response_log_probs(reference, pairs, &device.clone().inner());
        let frozen = frozen.without_autodiff().into_data();
        let [reference_chosen, reference_rejected] = halves(Tensor::from_data(frozen, device));
        let numbers = |number: &dyn Fn(&Pair) -> f32| {
            Tensor::from_data(TensorData::new(pairs.iter().map(number).collect::<Vec<_>>(), [count]), device)
        };
        Self {
            chosen,
            rejected,
            reference_chosen,
            reference_rejected,
            chosen_lengths: numbers(&|pair| pair.chosen.len() as f32),
            rejected_lengths: numbers(&|pair| pair.rejected.len() as f32),
            ties: numbers(&|pair| f32::from(u8::from(pair.tie))),
            strengths: numbers(&|pair| pair.strength.unwrap_or(1.0) as f32),
        }
    }
}

/// The policy after its passes over the pairs, in an order drawn from the seed; the reference is the policy as it is handed over.
///
/// Metrics, with TRL's names: `loss`, `rewards/accuracies` (share of pairs whose chosen response gained more log-probability than the
/// rejected one, ties of it count half), `rewards/margins` (that difference, in nats, not scaled by a β), `logps/chosen`,
/// `logps/rejected`, `grad_norm`, `lr`.
///
/// # Errors
/// See [`fit`](firebrick_train::fit); also if there is no pair, or one does not fit the policy's context.
pub fn train<P: CausalLm + Module + Send + Sync, O: Objective + Sync>(
    policy: P,
    objective: &O,
    pairs: &[Pair],
    config: &Passes,
    run: Run<'_, P>,
) -> Result<P, Error> {
    let context = policy.context();
    let fits = |pair: &Pair| {
        let shortest = pair.prompt.len().min(pair.chosen.len()).min(pair.rejected.len());
        shortest > 0 && pair.prompt.len() + pair.chosen.len().max(pair.rejected.len()) <= context
    };
    if let Some(index) = pairs.iter().position(|pair| !fits(pair)) {
        return Err(Error::Sample {
            what: format!("pair {index} lacks a prompt or response, or is longer than the context of {context} tokens"),
            fix: "leave it out".into(),
        });
    }
    let device = policy.devices().into_iter().next().expect("a module has parameters");
    let reference = policy.valid();
    let loss = |policy: &P, pairs: &[Pair]| {
        let log_probs = PairLogProbs::of(policy, &reference, pairs, &device);
        let (chosen, rejected) = (log_probs.chosen_log_ratios(), log_probs.rejected_log_ratios());
        let metrics = [
            ("rewards/accuracies", share_right(&pair_accuracy(chosen.clone(), rejected.clone()))),
            ("rewards/margins", mean(&chosen) - mean(&rejected)),
            ("logps/chosen", mean(&log_probs.chosen)),
            ("logps/rejected", mean(&log_probs.rejected)),
        ];
        (objective.losses(&log_probs).mean(), metrics)
    };
    fit_pairs(policy, pairs, config, run, loss)
}
