//! Responses of a policy to prompts.

use std::ops::Range;

use firebrick_sampling::{Finish, Sample, Sampler, Stop, generate};
use firebrick_tensor::{Incremental, Workers};
use firebrick_text::ResponseFormat;
use firebrick_types::{Seed, TokenId};
use serde::{Deserialize, Serialize};

use crate::{Error, Group, Prompt, Response, Reward, prompt};

/// One sampled response and what learning needs to know of it; per-token numbers are of the response's tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The prompt's place in the list of prompts.
    pub prompt_index: usize,
    /// The prompt's tokens.
    pub prompt: Vec<TokenId>,
    /// The response's tokens, with those that ended it.
    pub response: Vec<TokenId>,
    /// Its text without what ended it.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// log π of each token as it was sampled.
    pub log_probs: Vec<f32>,
    /// log π₀ of each token.
    pub reference: Vec<f32>,
    /// What the critic expected before each token.
    pub values: Vec<f32>,
    /// Advantages, whitened over the iteration.
    pub advantages: Vec<f32>,
    /// What the critic is to expect.
    pub returns: Vec<f32>,
    /// Exact divergence from the reference summed over the response, in nats.
    pub kl: f64,
    /// Mean entropy of the distributions that its tokens were drawn from, in nats.
    pub entropy: f64,
    /// What the reward says of it.
    pub score: f64,
    /// The sum of the shaped rewards.
    pub shaped_reward: f64,
}

impl Rollout {
    /// Tokens of the prompt and the response.
    pub(crate) fn length(&self) -> usize {
        self.prompt.len() + self.response.len()
    }

    fn as_response(&self) -> Response<'_> {
        Response { tokens: &self.response, text: &self.text, finish: self.finish }
    }
}

/// How responses are collected.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// Answers to each prompt.
    pub samples_per_prompt: usize,
    /// Longest response, in tokens.
    pub max_response_tokens: usize,
    /// What logits are divided by.
    pub temperature: f64,
}

/// Responses to the prompts at these places of the endless order of prompts, place after place, sample after sample.
///
/// The tokens of a sample depend on its place and number alone, neither on the batch nor on how many threads compute. What the
/// reference, the critic and the reward say of it is still to be filled in.
///
/// # Panics
/// If there is no prompt, or one with its response does not fit the policy's context.
pub fn collect<P: Incremental + Clone + Send>(
    policy: &P,
    prompts: &[Prompt],
    places: Range<u64>,
    format: &ResponseFormat,
    config: &Collection,
    seed: Seed,
    workers: &Workers,
) -> Vec<Rollout> {
    let asked = places.clone().zip(prompt::at(places, prompts, seed));
    let asked = asked.flat_map(|(place, index)| {
        (0..config.samples_per_prompt as u64)
            .map(move |sample| (seed.derive("ppo/rollout").at(&[place, sample]), index))
    });
    let asked = asked.collect::<Vec<_>>();
    let sampler = Sampler { temperature: config.temperature, ..Sampler::default() };
    let stop = Stop::of(format, config.max_response_tokens);
    let policy = policy.clone().prepacked();
    let chunks = asked.chunks(asked.len().div_ceil(workers.count()).max(1));
    let chunks = chunks.map(|chunk| (policy.clone(), chunk)).collect();
    let rollouts = workers.map(chunks, |(policy, chunk): (P, &[(Seed, usize)])| {
        let tokens = chunk.iter().map(|&(_, index)| prompts[index].tokens.clone()).collect::<Vec<_>>();
        let seeds = chunk.iter().map(|&(seed, _)| seed).collect::<Vec<_>>();
        let samples = generate(&policy, &tokens, &seeds, &sampler, &stop);
        let rollout = |(&(_, prompt_index), sample): (&(Seed, usize), Sample)| Rollout {
            prompt_index,
            prompt: prompts[prompt_index].tokens.clone(),
            text: format.text(&sample.tokens),
            response: sample.tokens,
            finish: sample.finish,
            log_probs: sample.sampler_log_probs,
            reference: Vec::new(),
            values: Vec::new(),
            advantages: Vec::new(),
            returns: Vec::new(),
            kl: 0.0,
            entropy: 0.0,
            score: 0.0,
            shaped_reward: 0.0,
        };
        chunk.iter().zip(samples).map(rollout).collect::<Vec<_>>()
    });
    rollouts.into_iter().flatten().collect()
}

/// Fills in what the reward says of rollouts, `samples_per_prompt` of them to each prompt in a row.
///
/// # Errors
/// If the reward fails, gives another count of scores than there are responses, or one that is not finite.
pub fn judge(
    rollouts: &mut [Rollout],
    prompts: &[Prompt],
    samples_per_prompt: usize,
    reward: &impl Reward,
) -> Result<(), Error> {
    let groups = rollouts.chunks(samples_per_prompt).map(|chunk| Group {
        prompt: &prompts[chunk[0].prompt_index],
        responses: chunk.iter().map(Rollout::as_response).collect(),
    });
    let scores = reward.score(&groups.collect::<Vec<_>>());
    let scores = scores.map_err(Error::Reward)?;
    if scores.len() != rollouts.len() {
        return Err(Error::RewardCount { scores: scores.len(), responses: rollouts.len() });
    }
    for (rollout, score) in rollouts.iter_mut().zip(scores) {
        if !score.is_finite() {
            let prompt = prompts[rollout.prompt_index].id.clone();
            return Err(Error::RewardValue { prompt, response: rollout.text.clone(), score });
        }
        rollout.score = score;
    }
    Ok(())
}
