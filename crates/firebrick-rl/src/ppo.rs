//! Proximal policy optimisation of a language model against a preference model.
//!
//! One readable loop: [`collect`] samples responses, `evaluate` gives them log-probabilities and values, [`judge`] scores,
//! `advantages` turns those into targets, `update` takes the optimiser steps. Everything a rollout holds is kept on the host, and
//! every random number is named by iteration and sample, so a killed run goes on from its last checkpoint to the same bits.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use firebrick_sampling::Finish;
use firebrick_tensor::{
    CausalLm, Incremental, Mask, ResponseBatch, TokenValues, Workers, entropy, kl, masked, token_log_probs,
};
use firebrick_text::ResponseFormat;
use firebrick_train::{AdamWConfig, Learner, Loss, NonFinite, Run, Schedule, Step, Values, gradients_of};
use firebrick_types::Seed;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tracing::debug_span;

use crate::{Collection, Error, Prompt, Reward, Rollout, collect, gae, judge, policy_loss, shaped_rewards, value_loss};

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

    fn collection(&self) -> Collection {
        let Self { samples_per_prompt, max_response_tokens, temperature, .. } = *self;
        Collection { samples_per_prompt, max_response_tokens, temperature }
    }
}

/// The policy and critic after all iterations.
///
/// The reference is the policy as it is handed over (T-21); prompts are taken in an order drawn from the seed, again and again. Metrics
/// are TRL's: `objective/{kl,entropy,non_score_reward,rlhf_reward,scores}`, `policy/{approxkl_avg,clipfrac_avg,entropy_avg}`,
/// `loss/{policy_avg,value_avg}`, `val/{clipfrac_avg,ratio,ratio_var,num_eos_tokens}`, `lr`, `episode`; beside them
/// `objective/kl_exact`, `val/ratio_first_max_deviation` (0 says that what is trained is what was sampled),
/// `response_length`, `grad_norm/{policy,value}`. A probe is handed the policy.
///
/// # Errors
/// If there is no prompt, the reward fails, a loss or gradient is not finite, a checkpoint cannot be written, or the observer fails.
///
/// # Panics
/// If a prompt with its response and the end of context does not fit the policy's context.
pub fn train<P, V>(
    policy: P,
    critic: V,
    reward: &impl Reward,
    prompts: &[Prompt],
    format: &ResponseFormat,
    config: &PpoConfig,
    mut run: Run<'_, P>,
) -> Result<(P, V), Error>
where
    P: Incremental + Module + Send,
    V: TokenValues + Module + Send,
{
    if prompts.is_empty() {
        let (what, fix) = ("the set of prompts".into(), "give it at least one prompt".into());
        return Err(firebrick_train::Error::Empty { what, fix }.into());
    }
    let device = policy.devices().into_iter().next().expect("a module has parameters").inner();
    let reference = policy.valid();
    let learner = Learner::new(policy, config.adamw, config.clip_norm);
    let critic = Learner::new(critic, config.adamw, config.clip_norm);
    let steps = config.iterations as u64;
    let (mut learners, start) = run.begin((learner, critic), "tokens", steps)?;
    let per_iteration = config.samples_per_iteration() as u64;
    for iteration in start..steps {
        let _step = debug_span!("step", number = iteration + 1).entered();
        let first = iteration * config.prompts_per_iteration as u64;
        let places = first..first + config.prompts_per_iteration as u64;
        let policy = learners.0.model().valid();
        let mut rollouts = collect(&policy, prompts, places, format, &config.collection(), run.seed, &run.workers);
        evaluate(&policy, &reference, &learners.1.model().valid(), config, &mut rollouts, &run.workers);
        judge(&mut rollouts, prompts, config.samples_per_prompt, reward)?;
        advantages(config, &mut rollouts, &device);
        let samples = iteration * per_iteration;
        let mut values = describe(&rollouts, config);
        let seed = run.seed.derive("ppo/minibatches").at(&[iteration]);
        let updated = update(learners, &rollouts, config, seed, samples, &run.workers);
        let updated = updated.map_err(|what| run.non_finite(what, iteration, samples))?;
        values.extend(updated.values);
        learners = (updated.policy, updated.critic);
        let units = rollouts.iter().map(Rollout::length).sum::<usize>() as u64;
        let step =
            Step { done: iteration + 1, steps, samples: samples + per_iteration, new_samples: per_iteration, units };
        run.end_step(&step, values, learners.0.model(), &learners)?;
    }
    Ok((learners.0.into_model(), learners.1.into_model()))
}

/// The prompts and responses of rollouts.
fn batch_of(rollouts: &[&Rollout], device: &Device) -> ResponseBatch {
    ResponseBatch::of(rollouts.iter().map(|rollout| (&rollout.prompt[..], &rollout.response[..])), device)
}

/// Fills in the reference's log-probabilities, values and divergences of the rollouts.
///
/// The policy's log-probabilities are those it was sampled with: a token's are the same bits one by one and in a whole pass, so
/// the first ratio is exactly 1 (T-01), and the divergence of an untrained policy exactly 0 (T-03).
fn evaluate<P, V>(
    policy: &P,
    reference: &P,
    critic: &V,
    config: &PpoConfig,
    rollouts: &mut [Rollout],
    workers: &Workers,
) where
    P: CausalLm + Module + Send,
    V: TokenValues + Module + Send,
{
    let device = reference.devices().into_iter().next().expect("a module has parameters");
    let chunks = rollouts.chunks_mut(config.micro_batch_size);
    let work = chunks.map(|chunk| (chunk, policy.clone(), reference.clone(), critic.clone())).collect();
    workers.map(work, |(chunk, policy, reference, critic): (&mut [Rollout], P, P, V)| {
        let batch = batch_of(&chunk.iter().collect::<Vec<_>>(), &device);
        let logits = batch.logits(&policy, config.temperature);
        let reference_logits = batch.logits(&reference, config.temperature);
        let reference = batch.split_by_response(token_log_probs(reference_logits.clone(), batch.responses()));
        let kl = batch.split_by_response(kl(logits.clone(), reference_logits));
        let entropy = batch.split_by_response(entropy(logits));
        let values = batch.split_by_response(batch.values(&critic));
        let total = |numbers: &Vec<f32>| numbers.iter().map(|&number| f64::from(number)).sum::<f64>();
        for (row, rollout) in chunk.iter_mut().enumerate() {
            rollout.reference.clone_from(&reference[row]);
            rollout.values.clone_from(&values[row]);
            rollout.kl = total(&kl[row]);
            rollout.entropy = total(&entropy[row]) / rollout.response.len() as f64;
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
    let whitened = rows(masked::whiten(raw, &mask));
    let rewards = rows(rewards);
    for (row, rollout) in rollouts.iter_mut().enumerate() {
        let span = row * steps..row * steps + rollout.response.len();
        rollout.advantages = whitened[span.clone()].to_vec();
        rollout.returns = returns[span.clone()].to_vec();
        rollout.shaped_reward = rewards[span].iter().map(|&reward| f64::from(reward)).sum();
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
        ("objective/rlhf_reward", mean(&|rollout| rollout.shaped_reward)),
        ("objective/scores", mean(&|rollout| rollout.score)),
        ("policy/entropy_avg", mean(&|rollout| rollout.entropy)),
        ("response_length", mean(&|rollout| rollout.response.len() as f64)),
        ("val/num_eos_tokens", rollouts.iter().filter(|rollout| rollout.finish == Finish::Stop).count() as f64),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Policy and critic after an update, and what was measured.
struct Updated<P, V> {
    policy: Learner<P>,
    critic: Learner<V>,
    values: Values,
}

/// The policy and critic after all passes over the rollouts; what is not finite is named.
fn update<P, V>(
    (mut policy, mut critic): (Learner<P>, Learner<V>),
    rollouts: &[Rollout],
    config: &PpoConfig,
    seed: Seed,
    samples: u64,
    workers: &Workers,
) -> Result<Updated<P, V>, NonFinite>
where
    P: CausalLm + Module + Send,
    V: TokenValues + Module + Send,
{
    let device = policy.model().devices().into_iter().next().expect("a module has parameters");
    let factor = config.schedule.factor(samples);
    let named = |loss, grad_norm| {
        move |NonFinite { what, value }| NonFinite { what: if what == "loss" { loss } else { grad_norm }, value }
    };
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
            let (policy_gradients, policy_values, _) =
                gradients_of(policy.model(), chunks(), workers, |policy, rollouts| {
                    policy_share(policy, rollouts, config, tokens, &device)
                });
            let (value_gradients, value_values, _) =
                gradients_of(critic.model(), chunks(), workers, |critic, rollouts| {
                    value_share(critic, rollouts, config, tokens, &device)
                });
            let rates = [config.policy_learning_rate, config.value_learning_rate].map(|rate| rate * factor);
            let (policy_norm, value_norm);
            (policy, policy_norm) = policy
                .step(policy_values[0].1, policy_gradients, rates[0], workers)
                .map_err(named("policy loss", "policy grad_norm"))?;
            (critic, value_norm) = critic
                .step(value_values[0].1, value_gradients, rates[1], workers)
                .map_err(named("value loss", "value grad_norm"))?;
            let norms = [("grad_norm/policy", policy_norm), ("grad_norm/value", value_norm)];
            let both = policy_values.into_iter().skip(1).chain(value_values.into_iter().skip(1));
            measured.push(both.chain(norms.map(|(name, value)| (name.to_owned(), value))).collect());
        }
    }
    let mut values = Values::new();
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
    Ok(Updated { policy, critic, values })
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
    let old = batch.from_rows(rollouts.iter().map(|rollout| &rollout.log_probs[..]));
    let advantages = batch.from_rows(rollouts.iter().map(|rollout| &rollout.advantages[..]));
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
    let old = batch.from_rows(rollouts.iter().map(|rollout| &rollout.values[..]));
    let returns = batch.from_rows(rollouts.iter().map(|rollout| &rollout.returns[..]));
    let losses = value_loss(batch.values(critic), old, returns, config.value_clip);
    let loss = losses.loss.sum() / tokens;
    let clipped = losses.clipped.sum().without_autodiff().into_scalar::<f32>();
    let value = f64::from(loss.clone().without_autodiff().into_scalar::<f32>());
    Loss::new(loss, tokens as u64).with("loss/value_avg", value).with("val/clipfrac_avg", f64::from(clipped) / tokens)
}
