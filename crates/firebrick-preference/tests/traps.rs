//! Traps of preference modeling, through the whole training with small models.

#![cfg(feature = "train")]

use std::time::Duration;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_models::{Architecture, Decoder, DecoderConfig, ScoredDecoder};
use firebrick_preference::policy;
use firebrick_preference::reward_model::{PairLosses, RewardModelConfig, train};
use firebrick_preference::{Dpo, Objective, Pair, PairLogProbs, pair_accuracy};
use firebrick_tensor::{Parameters, ScoringLm, SequenceScorer, TokenBatch, Workers, scores};
use firebrick_testkit::{assert_close, cpu};
use firebrick_train::{
    AdamWConfig, Checkpoints, Error, Event, FitConfig, Gradients, Observer, ObserverError, Passes, Run, Schedule,
    Values,
};
use firebrick_types::{Seed, TokenId};
use rand::RngExt;

const EOC: TokenId = 1;
const CHOSEN: TokenId = 2;
const REJECTED: TokenId = 3;
const CONTEXT: usize = 16;
const D_MODEL: usize = 16;

fn shape() -> DecoderConfig {
    DecoderConfig {
        vocab: 20,
        context: CONTEXT,
        n_layer: 1,
        d_model: D_MODEL,
        heads: 2,
        d_ff: 32,
        architecture: Architecture::gpt(),
    }
}

fn model_on(device: &Device) -> ScoredDecoder {
    shape().init_scored(Seed::new(1), device)
}

fn model() -> ScoredDecoder {
    model_on(&cpu().autodiff())
}

/// Pairs that share a prompt; a token at a random place of each answer marks which was chosen.
fn pairs(count: usize, seed: u64) -> Vec<Pair> {
    let mut rng = Seed::new(seed).rng();
    let mut words = |count: usize| (0..count).map(|_| rng.random_range(4..20)).collect::<Vec<TokenId>>();
    let mut pair = || {
        let prompt = words(3);
        let mut side = |mark| {
            let length = 2 + words(1)[0] as usize % 4;
            let mut answer = words(length);
            answer.insert(words(1)[0] as usize % (length + 1), mark);
            [&answer[..], &[EOC]].concat()
        };
        Pair::new(prompt.clone(), side(CHOSEN), side(REJECTED))
    };
    (0..count).map(|_| pair()).collect()
}

fn config() -> RewardModelConfig {
    RewardModelConfig {
        batch_size: 16,
        micro_batch_size: 8,
        passes: 1,
        ranked_weight: 1.0,
        lm_weight: 0.0,
        fit: FitConfig {
            learning_rate: 1e-2,
            schedule: Schedule::Constant,
            clip_norm: 1.0,
            adamw: AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() },
        },
    }
}

/// An optimiser whose step is proportional to the gradient: with a small ε the rounding of a gradient near 0 would become a step
/// of full length.
fn linear() -> FitConfig {
    FitConfig {
        learning_rate: 1.0,
        clip_norm: 100.0,
        adamw: AdamWConfig { epsilon: 1.0, weight_decay: 0.0, ..AdamWConfig::default() },
        ..FitConfig::default()
    }
}

/// What a run has told, up to the step at which it is killed.
#[derive(Default)]
struct Record {
    promised: u64,
    units: u64,
    steps: Vec<Values>,
    killed_at: Option<u64>,
}

impl Observer for Record {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Begin { steps, .. } => self.promised = steps,
            Event::Step { done, units, values, .. } => {
                self.steps.push(values.clone());
                self.units += units;
                if self.killed_at == Some(done) {
                    return Err("killed".into());
                }
            }
        }
        Ok(())
    }
}

fn trained(pairs: &[Pair], config: &RewardModelConfig) -> (ScoredDecoder, Record) {
    let mut record = Record::default();
    let model = train(model(), pairs, config, Run::new(Seed::new(5)).observer(&mut record)).unwrap();
    (model, record)
}

fn numbers(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

#[track_caller]
fn assert_close_parameters(found: &ScoredDecoder, expected: &ScoredDecoder, tolerance: f64) {
    for ((_, _, found), (_, _, expected)) in Parameters::of(found).iter().zip(Parameters::of(expected).iter()) {
        assert_close(numbers(found), numbers(expected), tolerance);
    }
}

#[track_caller]
fn assert_close_steps(found: &[Values], expected: &[Values], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        for ((name, found), (_, expected)) in found.iter().zip(expected) {
            let allowed = tolerance * expected.abs().max(1.0);
            assert!((found - expected).abs() <= allowed, "`{name}` of step {step}: {found}, expected {expected}");
        }
    }
}

#[test]
fn t12_a_long_sequence_is_scored_by_its_end() {
    let sequence = (0..40).map(|place| 4 + place % 16).chain([EOC]).collect::<Vec<TokenId>>();
    let end = sequence[sequence.len() - CONTEXT..].to_vec();
    let pair = |chosen: &[TokenId]| Pair::new(Vec::new(), chosen.to_vec(), vec![5, EOC]);
    let model = model_on(&cpu());
    let losses = |pair: Pair| PairLosses::of(&model, &[pair], &cpu());
    assert_close(losses(pair(&sequence)).ranked, losses(pair(&end)).ranked, 0.0);
    assert_close(losses(pair(&sequence)).lm, losses(pair(&end)).lm, 0.0);
    let score = |sequence: &Vec<TokenId>| scores(&model, std::slice::from_ref(sequence), 4, &Workers::default());
    assert_eq!(score(&sequence), score(&end));
}

/// The hidden state that a row's score reads, all gradients of that score, and the row's hidden states, `[tokens, d_model]`.
///
/// The head is linear, so the gradient of a score with respect to the head's weights is the state that it reads.
fn read_out(sequences: &[Vec<TokenId>], row: usize) -> (Tensor<1>, Gradients, Tensor<2>) {
    let model = model();
    let batch = TokenBatch::of(sequences, &cpu().autodiff());
    let gradients = Gradients::of(&model, &model.scores(&batch).narrow(0, row, 1));
    let (lengths, last) = (batch.lengths(), batch.last());
    let hidden = model.body().hidden(&batch).without_autodiff().narrow(0, last[row] + 1 - lengths[row], lengths[row]);
    (gradients.named("head.weight").unwrap().clone(), gradients, hidden)
}

#[test]
fn t13_what_else_is_in_the_batch_changes_no_score_and_no_loss() {
    let device = cpu();
    let model = model_on(&device);
    let (short, long) = (vec![5, 6, EOC], vec![7, 8, 9, 10, 11, 12, 13, 14, 15, EOC]);
    let batch = |sequences: &[&Vec<TokenId>]| TokenBatch::of(sequences, &device);
    let alone = model.scores(&batch(&[&short]));
    assert_close(model.scores(&batch(&[&short, &long])).narrow(0, 0, 1), alone, 0.0);
    let pair = |chosen: &[TokenId], rejected: &[TokenId]| Pair::new(Vec::new(), chosen.to_vec(), rejected.to_vec());
    let alone = PairLosses::of(&model, &[pair(&short, &long)], &device);
    // A single token is scored, and predicts nothing.
    for others in [[pair(&long, &short), pair(&[EOC], &[EOC])], [pair(&[EOC], &short), pair(&long, &[EOC])]] {
        let [first, last] = others;
        let single = usize::from(last.chosen.len() == 1) * 2;
        let beside = PairLosses::of(&model, &[first, pair(&short, &long), last], &device);
        assert_close(beside.lm.clone().narrow(0, 1, 1), alone.lm.clone(), 0.0);
        assert_close(beside.ranked.narrow(0, 1, 1), alone.ranked.clone(), 0.0);
        assert_close(beside.lm.narrow(0, single, 1), [0.0], 0.0);
    }
}

#[test]
fn t13_the_score_and_its_gradient_are_of_the_end_of_context_alone() {
    let sequences = [vec![5, 6, 7, EOC], vec![7, 8, 9, 10, 11, 12, EOC]];
    for (row, sequence) in sequences.iter().enumerate() {
        let (read, gradients, hidden) = read_out(&sequences, row);
        let last = sequence.len() - 1;
        assert_close(read, hidden.slice([last..last + 1, 0..D_MODEL]).reshape([D_MODEL]), 1e-5);
        assert_close(gradients.named("head.bias").unwrap().clone(), [1.0], 0.0);
        // What stands behind the end has no part in the score, down to the embedding of its position.
        let positions = gradients.named("body.wpe.weight").unwrap().clone().into_data().try_to_vec::<f32>().unwrap();
        for (position, gradient) in positions.chunks(D_MODEL).enumerate() {
            let read = gradient.iter().any(|&gradient| gradient != 0.0);
            assert_eq!(read, position <= last, "position {position} of a sequence of {}", sequence.len());
        }
    }
}

/// The token that ends a sequence is found by its length, not by a search for it.
#[test]
fn t42_the_score_is_read_at_the_last_token_whatever_stands_before_it() {
    for sequence in [vec![5, 6, 7, 8], vec![5, EOC, 7, EOC], vec![EOC, 6, EOC, EOC], vec![EOC, EOC, 7, 8]] {
        let (read, _, hidden) = read_out(&[sequence.clone(), vec![9; 6]], 0);
        let states = (0..4).map(|place| hidden.clone().slice([place..place + 1, 0..D_MODEL]).reshape([D_MODEL]));
        let distance = |state: Tensor<1>| (state - read.clone()).abs().max().into_scalar::<f32>();
        let distances = states.map(distance).collect::<Vec<_>>();
        assert!(distances[3] < 1e-5 && distances[..3].iter().all(|&distance| distance > 1e-3), "{distances:?}");
    }
}

/// Accuracy on pairs that training has not seen.
fn accuracy(model: &ScoredDecoder, pairs: &[Pair]) -> f64 {
    let side = |side: usize| {
        let sequences = pairs.iter().map(|pair| pair.sequences(CONTEXT)[side].clone()).collect::<Vec<_>>();
        let scores = scores(model, &sequences, 32, &Workers::default());
        let scores = scores.into_iter().map(|score| score as f32).collect::<Vec<_>>();
        Tensor::<1>::from_floats(scores.as_slice(), &cpu())
    };
    let right = pair_accuracy(side(0), side(1));
    right.iter().map(|&right| f64::from(right)).sum::<f64>() / right.len() as f64
}

#[test]
fn t23_one_pass_over_marked_pairs_orders_unseen_ones() {
    let (model, _) = trained(&pairs(384, 1), &config());
    let accuracy = accuracy(&model, &pairs(100, 2));
    assert!(accuracy > 0.9, "{accuracy} of the held-out pairs");
}

/// The same pairs the other way round teach the opposite.
#[test]
fn t22_labels_the_other_way_round_turn_the_scores_round() {
    let turned = |pair: Pair| Pair::new(pair.prompt, pair.rejected, pair.chosen);
    let (model, _) = trained(&pairs(384, 1).into_iter().map(turned).collect::<Vec<_>>(), &config());
    let accuracy = accuracy(&model, &pairs(100, 2));
    assert!(accuracy < 0.1, "{accuracy} of the held-out pairs");
}

#[test]
fn t27_the_language_model_loss_is_not_of_the_rejected_sequence() {
    let (these, others) = (pairs(24, 1), pairs(24, 2));
    let mixed = these.iter().zip(&others);
    let mixed = mixed.map(|(one, other)| Pair { rejected: other.rejected.clone(), ..one.clone() }).collect::<Vec<_>>();
    let parameters = |pairs: &[Pair], ranked_weight: f64| {
        let config =
            RewardModelConfig { batch_size: 8, micro_batch_size: 4, ranked_weight, lm_weight: 1.0, ..config() };
        Parameters::of(&trained(pairs, &config).0)
    };
    assert!(parameters(&these, 0.0) == parameters(&mixed, 0.0), "the rejected sequences have been learnt");
    assert!(parameters(&these, 1.0) != parameters(&mixed, 1.0), "the ranked loss does not read the rejected sequences");
}

/// The mean of −log p over every token but the first, prompt and end included, from the logits by hand.
#[test]
fn t27_the_language_model_loss_is_of_every_token_of_the_chosen_sequence() {
    let model = model_on(&cpu());
    let sequences = [vec![5, 6, 7, 8, EOC], vec![9, 10, 11, 12, 13, 14, 15, EOC]];
    let batch = TokenBatch::of(&sequences, &cpu());
    let (_, logits) = model.scores_and_logits(&batch, &(0..batch.tokens()).collect::<Vec<_>>());
    let [_, vocab] = logits.dims();
    let logits = numbers(&logits.into_data().try_to_vec::<f32>().unwrap());
    let loss = |(row, sequence): (usize, &Vec<TokenId>)| {
        let token = |place: usize| {
            let at = &logits[(row * sequences[0].len() + place) * vocab..][..vocab];
            at.iter().map(|logit| logit.exp()).sum::<f64>().ln() - at[sequence[place + 1] as usize]
        };
        (0..sequence.len() - 1).map(token).sum::<f64>() / (sequence.len() - 1) as f64
    };
    let expected = sequences.iter().enumerate().map(loss).collect::<Vec<_>>();
    let pairs = sequences.clone().map(|chosen| Pair::new(Vec::new(), chosen, vec![EOC]));
    assert_close(PairLosses::of(&model, &pairs, &cpu()).lm, expected, 1e-5);
}

#[test]
fn t28_every_pair_is_read_once() {
    for (count, batch_size, steps) in [(10, 4, 3), (12, 4, 3), (3, 8, 1)] {
        let pairs = pairs(count, 1);
        let (_, record) = trained(&pairs, &RewardModelConfig { batch_size, micro_batch_size: 3, ..config() });
        assert_eq!((record.promised, record.steps.len()), (steps, steps as usize), "{count} pairs");
        let tokens = pairs.iter().flat_map(|pair| pair.sequences(CONTEXT)).map(|one| one.len() as u64).sum::<u64>();
        assert_eq!(record.units, tokens, "{count} pairs");
    }
}

#[test]
fn micro_batches_change_nothing_but_the_rounding() {
    let pairs = pairs(20, 1);
    let run = |micro_batch_size| {
        // 8, 8 and 4 pairs: none of the sizes below divides all of them.
        let config = RewardModelConfig { batch_size: 8, micro_batch_size, lm_weight: 1.0, fit: linear(), ..config() };
        trained(&pairs, &config)
    };
    let (whole, record) = run(8);
    assert!(Parameters::of(&whole) != Parameters::of(&model()));
    for micro_batch_size in [1, 3, 5] {
        let (parts, parts_record) = run(micro_batch_size);
        // Sums of some hundred numbers of size 1 in f32 differ by some 10⁻⁶ when they are cut otherwise.
        assert_close_steps(&parts_record.steps, &record.steps, 1e-5);
        assert_close_parameters(&parts, &whole, 1e-5);
    }
}

#[test]
fn the_order_of_pairs_inside_a_batch_changes_nothing_but_the_rounding() {
    let pairs = pairs(12, 1);
    let config = RewardModelConfig { batch_size: 12, micro_batch_size: 5, lm_weight: 1.0, fit: linear(), ..config() };
    let (forwards, record) = trained(&pairs, &config);
    let (backwards, other) = trained(&pairs.iter().rev().cloned().collect::<Vec<_>>(), &config);
    assert_close_steps(&other.steps, &record.steps, 1e-5);
    assert_close_parameters(&backwards, &forwards, 1e-5);
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let pairs = pairs(40, 1);
    let config = RewardModelConfig { batch_size: 8, micro_batch_size: 3, lm_weight: 0.5, ..config() };
    let (whole, record) = trained(&pairs, &config);
    for killed_at in [1, 3, 5] {
        let dir = tempfile::tempdir().unwrap();
        let run = || Run::new(Seed::new(5)).checkpoints(Checkpoints::new(dir.path(), Duration::ZERO));
        let mut killed = Record { killed_at: Some(killed_at), ..Record::default() };
        let result = train(model(), &pairs, &config, run().observer(&mut killed));
        assert!(matches!(result.map(|_| ()), Err(Error::Observer(_))));
        let mut rest = Record::default();
        let again = train(model(), &pairs, &config, run().observer(&mut rest)).unwrap();
        // The step that was told last had no checkpoint yet.
        assert_eq!(rest.steps, record.steps[killed_at as usize - 1..], "killed at {killed_at}");
        assert!(Parameters::of(&again).to_bytes() == Parameters::of(&whole).to_bytes(), "killed at {killed_at}");
    }
}

#[test]
fn a_run_without_pairs_or_with_ties_says_so() {
    let result = train(model(), &[], &config(), Run::new(Seed::new(5)));
    assert!(matches!(result.map(|_| ()), Err(Error::Empty { .. })));
    let ties = [Pair { tie: true, ..pairs(1, 1).remove(0) }];
    let message = train(model(), &ties, &config(), Run::new(Seed::new(5))).map(|_| ()).unwrap_err().to_string();
    assert_eq!(message, "pair 0 is a tie, of which the ranked loss can learn nothing: leave it out");
}

/// A policy whose distributions are far from uniform.
fn policy(device: &Device) -> Decoder {
    let mut scaled = Parameters::default();
    let model = shape().init(Seed::new(1), device);
    for (name, dims, values) in Parameters::of(&model).iter() {
        let factor = if name == "wte.weight" { 8.0 } else { 1.0 };
        scaled.insert(name, dims.to_vec(), values.iter().map(|value| value * factor).collect());
    }
    scaled.load(model).unwrap()
}

fn policy_config() -> Passes {
    let RewardModelConfig { batch_size, micro_batch_size, passes, fit, .. } = config();
    Passes { batch_size, micro_batch_size, passes, fit }
}

/// Before anything is learnt policy and reference are the same: every log-ratio is 0 and the loss is ln 2.
#[test]
fn the_first_loss_of_direct_preference_optimisation_is_ln_2() {
    let (device, pairs) = (cpu().autodiff(), pairs(5, 1));
    let policy = policy(&device);
    let log_probs = PairLogProbs::of(&policy, &policy.valid(), &pairs, &device);
    assert_close(log_probs.chosen_log_ratios().without_autodiff(), [0.0; 5], 0.0);
    let losses = Dpo { beta: 0.1 }.losses(&log_probs).without_autodiff();
    assert_close(losses, [std::f64::consts::LN_2; 5], 1e-6);
    // A prompt and its response alone give what they give beside others, to the bit.
    let alone = PairLogProbs::of(&policy, &policy.valid(), &pairs[3..4], &device);
    assert_close(alone.rejected.without_autodiff(), log_probs.rejected.narrow(0, 3, 1).without_autodiff(), 0.0);
}

#[test]
fn direct_preference_optimisation_prefers_what_was_chosen_on_unseen_pairs() {
    let policy = policy(&cpu().autodiff());
    let reference = policy.valid();
    let run = || Run::new(Seed::new(5));
    let margin = |policy: &Decoder, pairs: &[Pair]| {
        let log_probs = PairLogProbs::of(policy, &reference, pairs, &cpu());
        (log_probs.chosen_log_ratios() - log_probs.rejected_log_ratios()).mean().into_scalar::<f32>()
    };
    let learnt = policy::train(policy.clone(), &Dpo { beta: 0.1 }, &pairs(256, 1), &policy_config(), run()).unwrap();
    assert!(margin(&learnt.valid(), &pairs(50, 2)) > 1.0);
    // An objective of one's own, the negative of that one, teaches the opposite.
    let opposite = |pairs: &PairLogProbs| Dpo { beta: -0.1 }.losses(pairs);
    let learnt = policy::train(policy, &opposite, &pairs(256, 1), &policy_config(), run()).unwrap();
    assert!(margin(&learnt.valid(), &pairs(50, 2)) < -1.0);
}

#[test]
fn a_pair_that_a_policy_cannot_read_is_named() {
    let long = Pair::new(vec![5; CONTEXT], vec![CHOSEN, EOC], vec![REJECTED, EOC]);
    let all = [pairs(1, 1).remove(0), long];
    let result =
        policy::train(policy(&cpu().autodiff()), &Dpo { beta: 0.1 }, &all, &policy_config(), Run::new(Seed::new(5)));
    let message = result.map(|_| ()).unwrap_err().to_string();
    assert!(
        message.starts_with("pair 1 lacks a prompt or response, or is longer than the context of 16 tokens"),
        "{message}"
    );
}
