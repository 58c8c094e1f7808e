//! Proximal policy optimisation of a language model against a preference model.
//!
//! One readable loop: `collect` samples responses, `score` gives them log-probabilities, values and scores,
//! `advantages` turns those into targets, `update` takes the optimiser steps. Everything a rollout holds is kept on the host, and
//! every random number is named by iteration and sample, so a killed run goes on from its last checkpoint to the same bits.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use firebrick_sampling::{Finish, Sampler, Stop, generate};
use firebrick_tensor::{
    CausalLm, Incremental, Mask, Parameters, ResponseBatch, SequenceScorer, TokenBatch, TokenValues, entropy, kl,
    masked, token_log_probs,
};
use firebrick_train::{
    AdamW, AdamWConfig, Checkpoint, Checkpoints, Error, Event, Loss, Observer, Schedule, Values, gradients_of,
    parallel_map,
};
use firebrick_types::{Seed, TokenId};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::{gae, policy_loss, shaped_rewards, value_loss};

/// How [`train`] optimises. Quantities are named by what they count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PpoConfig {
    /// Rounds of sampling and learning.
    pub iterations: usize,
    /// Prompts answered in each.
    pub prompts_per_iteration: usize,
    /// Answers to each prompt.
    pub samples_per_prompt: usize,
    /// Samples of one optimiser step.
    pub sequences_per_update: usize,
    /// Samples computed at a time.
    pub micro_batch_size: usize,
    /// Passes over the samples of an iteration (K of B-26).
    pub passes: usize,
    /// Longest response, in tokens.
    pub max_response_tokens: usize,
    /// Policy and reference are both read at it (T-03).
    pub temperature: f64,
    /// Weight of the KL penalty, in reward per nat (B-25).
    pub kl_coefficient: f64,
    /// Discount.
    pub gamma: f64,
    /// Decay of [`gae`].
    pub lambda: f64,
    /// ε of [`policy_loss`].
    pub policy_clip: f64,
    /// ε of [`value_loss`].
    pub value_clip: f64,
    /// Peak learning rate of the policy.
    pub policy_learning_rate: f64,
    /// Peak learning rate of the critic.
    pub value_learning_rate: f64,
    /// Factor of both over samples.
    pub schedule: Schedule,
    /// Gradients longer than this are scaled down to it, policy and critic each.
    pub clip_norm: f64,
    /// Both optimisers.
    pub adamw: AdamWConfig,
}

impl PpoConfig {
    /// Samples of one iteration.
    pub fn samples_per_iteration(&self) -> usize {
        self.prompts_per_iteration * self.samples_per_prompt
    }
}

/// How responses are read as text is: what ends one, and what the preference model is shown.
#[derive(Clone, Debug)]
pub struct Turns {
    /// The end-of-context token, on which a preference model reads its score.
    pub eoc: TokenId,
    /// Tokens that end a response, `eoc` among them.
    pub ends: Vec<TokenId>,
    /// Token sequences that end a response, for instance those of `\n\nHuman:`.
    pub stop: Vec<Vec<TokenId>>,
}

impl Turns {
    /// The rule by which a response ends.
    pub fn stop(&self, max_tokens: usize) -> Stop {
        Stop { tokens: self.ends.clone(), sequences: self.stop.clone(), max_tokens }
    }

    /// The response without what ended it.
    pub fn text<'a>(&self, response: &'a [TokenId]) -> &'a [TokenId] {
        let response = match response.split_last() {
            Some((last, before)) if self.ends.contains(last) => before,
            _ => response,
        };
        let stop = self.stop.iter().find(|stop| response.ends_with(stop)).map_or(0, Vec::len);
        &response[..response.len() - stop]
    }

    /// What a preference model reads: the prompt, the response without what ended it, and the end of context once (T-12).
    pub fn judged(&self, prompt: &[TokenId], response: &[TokenId]) -> Vec<TokenId> {
        [prompt, self.text(response), &[self.eoc]].concat()
    }
}

/// One sampled response and everything learning needs to know of it; per-token numbers are of the response's tokens.
#[derive(Clone, Debug, Default)]
struct Rollout {
    prompt: Vec<TokenId>,
    response: Vec<TokenId>,
    stopped: bool,
    log_probs: Vec<f32>,
    reference: Vec<f32>,
    values: Vec<f32>,
    advantages: Vec<f32>,
    returns: Vec<f32>,
    /// Exact divergence from the reference summed over the response, in nats.
    kl: f64,
    entropy: f64,
    score: f64,
    /// The sum of the shaped rewards.
    reward: f64,
}

impl Rollout {
    /// Tokens of the prompt and the response.
    fn length(&self) -> usize {
        self.prompt.len() + self.response.len()
    }
}

/// The policy and critic after all iterations.
///
/// The reference is the policy as it is handed over (T-21); prompts are taken in an order drawn from the seed, again and again. Metrics
/// are TRL's: `objective/{kl,entropy,non_score_reward,rlhf_reward,scores}`, `policy/{approxkl_avg,clipfrac_avg,entropy_avg}`,
/// `loss/{policy_avg,value_avg}`, `val/{clipfrac_avg,ratio,ratio_var,num_eos_tokens}`, `lr`, `episode`; beside them
/// `objective/kl_exact`, `val/ratio_first_max_deviation` (0 says that what is trained is what was sampled),
/// `response_length`, `grad_norm/{policy,value}`.
///
/// The scorer is read on the plain device: hand over its `valid()`.
///
/// # Errors
/// If there is no prompt, a loss or gradient is not finite, a checkpoint cannot be written, or the observer fails.
///
/// # Panics
/// If a prompt with its response and the end of context does not fit the policy's context.
#[expect(clippy::too_many_arguments, reason = "a loop is named by its parts; a struct would only rename them")]
pub fn train<P, V, S>(
    mut policy: P,
    mut critic: V,
    scorer: &S,
    prompts: &[Vec<TokenId>],
    turns: &Turns,
    config: &PpoConfig,
    seed: Seed,
    mut checkpoints: Option<&mut Checkpoints>,
    observer: &mut dyn Observer,
) -> Result<(P, V), Error>
where
    P: Incremental + Module + Send,
    V: TokenValues + Module + Send,
    S: SequenceScorer + Module + Send,
{
    if prompts.is_empty() {
        return Err(Error::Empty { what: "the set of prompts".into(), fix: "give it at least one prompt".into() });
    }
    let device = policy.devices().into_iter().next().expect("a module has parameters").inner();
    let reference = policy.valid();
    let (mut policy_optimizer, mut value_optimizer) = (AdamW::new(config.adamw), AdamW::new(config.adamw));
    let mut start = 0;
    if let Some(checkpoint) = checkpoints.as_deref().map_or(Ok(None), Checkpoints::load::<[u64; 2]>)? {
        let damaged = |error: firebrick_tensor::ParametersError| Error::Damaged {
            path: checkpoints.as_deref().and_then(Checkpoints::newest).unwrap_or_default(),
            reason: error.to_string(),
        };
        let tensors = &checkpoint.tensors;
        policy = tensors.under("policy.").load_trained(policy).map_err(damaged)?;
        critic = tensors.under("critic.").load_trained(critic).map_err(damaged)?;
        let [policy_steps, value_steps] = checkpoint.counters;
        policy_optimizer = AdamW::restore(config.adamw, policy_steps, &tensors.under("policy_adamw."), &device);
        value_optimizer = AdamW::restore(config.adamw, value_steps, &tensors.under("value_adamw."), &device);
        start = checkpoint.steps;
    }
    observer.on(Event::Begin { unit: "tokens", steps: config.iterations as u64, done: start })?;
    for iteration in start..config.iterations as u64 {
        let mut rollouts = collect(&policy.valid(), prompts, turns, config, seed, iteration);
        score(&policy, &reference, &critic, scorer, turns, config, &mut rollouts);
        advantages(config, &mut rollouts, &device);
        let samples = iteration * config.samples_per_iteration() as u64;
        let checkpoint = checkpoints.as_deref().and_then(Checkpoints::newest);
        let mut values = describe(&rollouts, config);
        let trained = update(
            policy,
            critic,
            (&mut policy_optimizer, &mut value_optimizer),
            &rollouts,
            config,
            seed.derive("ppo/minibatches").at(&[iteration]),
            samples,
            &mut values,
        );
        (policy, critic) =
            trained.map_err(|(what, value)| Error::NonFinite { what, value, step: iteration, samples, checkpoint })?;
        let done = iteration + 1;
        let samples = samples + config.samples_per_iteration() as u64;
        let units = rollouts.iter().map(Rollout::length).sum::<usize>() as u64;
        observer.on(Event::Step { done, samples, units, values: &values })?;
        if let Some(checkpoints) = checkpoints.as_deref_mut().filter(|checkpoints| checkpoints.due()) {
            let ((policy_steps, policy_state), (value_steps, value_state)) =
                (policy_optimizer.state(), value_optimizer.state());
            let tensors = Parameters::default()
                .with("policy.", Parameters::trained(&policy))
                .with("critic.", Parameters::trained(&critic))
                .with("policy_adamw.", policy_state)
                .with("value_adamw.", value_state);
            checkpoints.save(&Checkpoint { steps: done, tensors, counters: [policy_steps, value_steps] })?;
        }
    }
    Ok((policy, critic))
}

/// Responses to the prompts of an iteration.
fn collect<P: Incremental + Module + Send>(
    policy: &P,
    prompts: &[Vec<TokenId>],
    turns: &Turns,
    config: &PpoConfig,
    seed: Seed,
    iteration: u64,
) -> Vec<Rollout> {
    let first = iteration as usize * config.prompts_per_iteration;
    let places = first..first + config.prompts_per_iteration;
    let asked = places.clone().zip(prompts_at(places, prompts.len(), seed)).flat_map(|(place, index)| {
        let prompt = &prompts[index];
        (0..config.samples_per_prompt).map(move |sample| (place, sample, prompt))
    });
    let asked = asked.collect::<Vec<_>>();
    let sampler = Sampler { temperature: config.temperature, ..Sampler::default() };
    let stop = turns.stop(config.max_response_tokens);
    let seed = seed.derive("ppo/rollout");
    let policy = policy.clone().prepacked();
    let chunks = asked.chunks(asked.len().div_ceil(2)).map(|chunk| (policy.clone(), chunk)).collect();
    let rollouts = parallel_map(chunks, |(policy, chunk): (P, &[_])| {
        let prompts = chunk.iter().map(|&(_, _, prompt): &(_, _, &Vec<_>)| prompt.clone()).collect::<Vec<_>>();
        let seeds = chunk.iter().map(|&(place, sample, _)| seed.at(&[place as u64, sample as u64])).collect::<Vec<_>>();
        let samples = generate(&policy, &prompts, &seeds, &sampler, &stop);
        let rollout = |(prompt, sample): (Vec<_>, firebrick_sampling::Sample)| Rollout {
            prompt,
            stopped: sample.finish == Finish::Stop,
            response: sample.tokens,
            log_probs: sample.sampler_log_probs,
            ..Rollout::default()
        };
        prompts.into_iter().zip(samples).map(rollout).collect::<Vec<_>>()
    });
    rollouts.into_iter().flatten().collect()
}

/// The prompts at these places of the endless order: one permutation of all prompts after another.
fn prompts_at(places: Range<usize>, prompts: usize, seed: Seed) -> Vec<usize> {
    let rounds = places.start / prompts..places.end.div_ceil(prompts);
    let order = rounds.clone().flat_map(|round| {
        let mut order = (0..prompts).collect::<Vec<_>>();
        order.shuffle(&mut seed.derive("ppo/prompts").at(&[round as u64]).rng());
        order
    });
    order.skip(places.start - rounds.start * prompts).take(places.len()).collect()
}

/// The prompts and responses of rollouts.
fn batch_of(rollouts: &[&Rollout], device: &Device) -> ResponseBatch {
    ResponseBatch::of(rollouts.iter().map(|rollout| (&rollout.prompt[..], &rollout.response[..])), device)
}

/// The reference's log-probabilities, values, divergences and scores of the rollouts.
///
/// The policy's log-probabilities are those it was sampled with: a token's are the same bits one by one and in a whole pass, so
/// the first ratio is exactly 1 (T-01), and the divergence of an untrained policy exactly 0 (T-03).
fn score<P, V, S>(
    policy: &P,
    reference: &P,
    critic: &V,
    scorer: &S,
    turns: &Turns,
    config: &PpoConfig,
    rollouts: &mut [Rollout],
) where
    P: CausalLm + Module + Send,
    V: TokenValues + Module + Send,
    S: SequenceScorer + Module + Send,
{
    let device = reference.devices().into_iter().next().expect("a module has parameters");
    let (policy, critic) = (policy.valid(), critic.valid());
    let chunks = rollouts.chunks_mut(config.micro_batch_size);
    let work = chunks.map(|chunk| (chunk, policy.clone(), reference.clone(), critic.clone(), scorer.clone())).collect();
    parallel_map(work, |(chunk, policy, reference, critic, scorer): (&mut [Rollout], P, P, V, S)| {
        let batch = batch_of(&chunk.iter().collect::<Vec<_>>(), &device);
        let logits = batch.logits(&policy, config.temperature);
        let reference_logits = batch.logits(&reference, config.temperature);
        let reference = batch.apart(token_log_probs(reference_logits.clone(), batch.responses()));
        let kl = batch.apart(kl(logits.clone(), reference_logits));
        let entropy = batch.apart(entropy(logits));
        let values = batch.apart(batch.values(&critic));
        let judged = chunk.iter().map(|rollout| turns.judged(&rollout.prompt, &rollout.response)).collect::<Vec<_>>();
        let scores = scorer.scores(&TokenBatch::of(&judged, &device)).into_data();
        let scores = scores.try_to_vec::<f32>().expect("scores are f32");
        let total = |numbers: &Vec<f32>| numbers.iter().map(|&number| f64::from(number)).sum::<f64>();
        for (row, rollout) in chunk.iter_mut().enumerate() {
            rollout.reference.clone_from(&reference[row]);
            rollout.values.clone_from(&values[row]);
            rollout.kl = total(&kl[row]);
            rollout.entropy = total(&entropy[row]) / rollout.response.len() as f64;
            rollout.score = f64::from(scores[row]);
        }
    });
}

/// Whitened advantages and returns of the rollouts.
fn advantages(config: &PpoConfig, rollouts: &mut [Rollout], device: &Device) {
    let steps = rollouts.iter().map(|rollout| rollout.response.len()).max().unwrap_or(0);
    let spans = rollouts.iter().map(|rollout| (0, rollout.response.len())).collect::<Vec<_>>();
    let mask = Mask::from_spans(&spans, steps, device);
    let tensor = |field: fn(&Rollout) -> &Vec<f32>| {
        let filled = |rollout| {
            let numbers: &Vec<f32> = field(rollout);
            numbers.iter().copied().chain(std::iter::repeat_n(0.0, steps - numbers.len())).collect::<Vec<_>>()
        };
        let values = rollouts.iter().flat_map(filled).collect::<Vec<_>>();
        Tensor::<2>::from_data(TensorData::new(values, [rollouts.len(), steps]), device)
    };
    let scores = rollouts.iter().map(|rollout| rollout.score as f32).collect::<Vec<_>>();
    let scores = Tensor::<1>::from_data(TensorData::new(scores, [rollouts.len()]), device);
    let values = tensor(|rollout| &rollout.values);
    let log_probs = tensor(|rollout| &rollout.log_probs);
    let reference = tensor(|rollout| &rollout.reference);
    let rewards = shaped_rewards(scores, log_probs, reference, &mask, config.kl_coefficient);
    let raw = gae(rewards.clone(), values.clone(), &mask, config.gamma, config.lambda);
    let rows = |tensor: Tensor<2>| tensor.into_data().try_to_vec::<f32>().expect("tensors are f32");
    let returns = rows(raw.clone() + values);
    let whitened = rows(masked::whiten(raw, &mask, false));
    let rewards = rows(rewards);
    for (row, rollout) in rollouts.iter_mut().enumerate() {
        let span = row * steps..row * steps + rollout.response.len();
        rollout.advantages = whitened[span.clone()].to_vec();
        rollout.returns = returns[span.clone()].to_vec();
        rollout.reward = rewards[span].iter().map(|&reward| f64::from(reward)).sum();
    }
}

/// What the rollouts of an iteration say, before anything is learnt from them.
fn describe(rollouts: &[Rollout], config: &PpoConfig) -> Values {
    let mean = |f: &dyn Fn(&Rollout) -> f64| rollouts.iter().map(f).sum::<f64>() / rollouts.len() as f64;
    let k1 = |rollout: &Rollout| {
        let pairs = rollout.log_probs.iter().zip(&rollout.reference);
        pairs.map(|(&new, &old)| f64::from(new - old)).sum::<f64>()
    };
    let values = [
        ("objective/kl", mean(&k1)),
        ("objective/kl_exact", mean(&|rollout| rollout.kl)),
        ("objective/entropy", mean(&|rollout| rollout.entropy * rollout.response.len() as f64)),
        ("objective/non_score_reward", mean(&|rollout| -config.kl_coefficient * k1(rollout))),
        ("objective/rlhf_reward", mean(&|rollout| rollout.reward)),
        ("objective/scores", mean(&|rollout| rollout.score)),
        ("policy/entropy_avg", mean(&|rollout| rollout.entropy)),
        ("response_length", mean(&|rollout| rollout.response.len() as f64)),
        ("val/num_eos_tokens", rollouts.iter().filter(|rollout| rollout.stopped).count() as f64),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The policy and critic after all passes over the rollouts; what is not finite is named.
#[expect(clippy::too_many_arguments, reason = "the phase of a loop takes what the loop holds")]
fn update<P, V>(
    mut policy: P,
    mut critic: V,
    (policy_optimizer, value_optimizer): (&mut AdamW, &mut AdamW),
    rollouts: &[Rollout],
    config: &PpoConfig,
    seed: Seed,
    samples: u64,
    values: &mut Values,
) -> Result<(P, V), (&'static str, f64)>
where
    P: CausalLm + Module + Send,
    V: TokenValues + Module + Send,
{
    let device = policy.devices().into_iter().next().expect("a module has parameters");
    let factor = config.schedule.factor(samples);
    let mut measured: Vec<Values> = Vec::new();
    for pass in 0..config.passes {
        let mut order = rollouts.iter().collect::<Vec<_>>();
        if pass > 0 {
            // The first pass has the order in which prompts were drawn.
            order.shuffle(&mut seed.at(&[pass as u64]).rng());
        }
        for minibatch in order.chunks(config.sequences_per_update) {
            let tokens = minibatch.iter().map(|rollout| rollout.response.len()).sum::<usize>() as f64;
            let chunks = || minibatch.chunks(config.micro_batch_size).collect::<Vec<_>>();
            let (policy_gradients, policy_values, _) = gradients_of(&policy, chunks(), |policy, rollouts| {
                policy_share(policy, rollouts, config, tokens, &device)
            });
            let (value_gradients, value_values, _) = gradients_of(&critic, chunks(), |critic, rollouts| {
                value_share(critic, rollouts, config, tokens, &device)
            });
            let norms = [policy_gradients.global_norm(), value_gradients.global_norm()];
            let checks = [("policy loss", policy_values[0].1), ("value loss", value_values[0].1)];
            let norm_checks = [("policy grad_norm", norms[0]), ("value grad_norm", norms[1])];
            if let Some(bad) = checks.into_iter().chain(norm_checks).find(|(_, value)| !value.is_finite()) {
                return Err(bad);
            }
            let policy_gradients = policy_gradients.clip(norms[0], config.clip_norm);
            let value_gradients = value_gradients.clip(norms[1], config.clip_norm);
            policy = policy_optimizer.step(policy, policy_gradients, config.policy_learning_rate * factor);
            critic = value_optimizer.step(critic, value_gradients, config.value_learning_rate * factor);
            let norms = [("grad_norm/policy", norms[0]), ("grad_norm/value", norms[1])];
            let both = policy_values.into_iter().skip(1).chain(value_values.into_iter().skip(1));
            measured.push(both.chain(norms.map(|(name, value)| (name.to_owned(), value))).collect());
        }
    }
    for (index, (name, _)) in measured[0].iter().enumerate() {
        let of = |values: &Values| values[index].1;
        let value = match name.as_str() {
            // Before the first step the policy is the one that sampled.
            "val/ratio_first_max_deviation" => of(&measured[0]),
            _ => measured.iter().map(of).sum::<f64>() / measured.len() as f64,
        };
        values.push((name.clone(), value));
    }
    values.push(("lr".to_owned(), config.policy_learning_rate * factor));
    values.push(("episode".to_owned(), (samples + rollouts.len() as u64) as f64));
    Ok((policy, critic))
}

/// A micro-batch's share of the policy loss of a minibatch of this many response tokens.
fn policy_share<P: CausalLm>(
    policy: &P,
    rollouts: &[&Rollout],
    config: &PpoConfig,
    tokens: f64,
    device: &Device,
) -> Loss {
    let batch = batch_of(rollouts, device);
    let log_probs = token_log_probs(batch.logits(policy, config.temperature), batch.responses());
    let old = batch.joined(rollouts.iter().map(|rollout| &rollout.log_probs[..]));
    let advantages = batch.joined(rollouts.iter().map(|rollout| &rollout.advantages[..]));
    let losses = policy_loss(log_probs.clone(), old.clone(), advantages, config.policy_clip);
    let loss = losses.loss.sum() / tokens;
    let share = |values: Tensor<1>| f64::from(values.sum().without_autodiff().into_scalar::<f32>()) / tokens;
    let approx_kl = share((log_probs.detach() - old).square() * 0.5);
    let largest = (losses.ratio.clone() - 1.0).abs().max().without_autodiff().into_scalar::<f32>();
    let value = f64::from(loss.clone().without_autodiff().into_scalar::<f32>());
    Loss::new(loss, tokens as u64)
        .with("loss/policy_avg", value)
        .with("policy/approxkl_avg", approx_kl)
        .with("policy/clipfrac_avg", share(losses.clipped))
        .with("val/ratio", share(losses.ratio.clone()))
        .with("val/ratio_var", share((losses.ratio - 1.0).square()))
        .with_greatest("val/ratio_first_max_deviation", f64::from(largest))
}

/// A micro-batch's share of the value loss of a minibatch of this many response tokens.
fn value_share<V: TokenValues>(
    critic: &V,
    rollouts: &[&Rollout],
    config: &PpoConfig,
    tokens: f64,
    device: &Device,
) -> Loss {
    let batch = batch_of(rollouts, device);
    let old = batch.joined(rollouts.iter().map(|rollout| &rollout.values[..]));
    let returns = batch.joined(rollouts.iter().map(|rollout| &rollout.returns[..]));
    let losses = value_loss(batch.values(critic), old, returns, config.value_clip);
    let loss = losses.loss.sum() / tokens;
    let clipped = losses.clipped.sum().without_autodiff().into_scalar::<f32>();
    let value = f64::from(loss.clone().without_autodiff().into_scalar::<f32>());
    Loss::new(loss, tokens as u64).with("loss/value_avg", value).with("val/clipfrac_avg", f64::from(clipped) / tokens)
}
