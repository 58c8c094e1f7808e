//! What a response is worth.

use burn::module::Module;
use firebrick_sampling::Finish;
use firebrick_tensor::{SequenceScorer, Workers, scores};
use firebrick_text::{Renderer, ResponseFormat};
use firebrick_types::TokenId;

use crate::Prompt;

/// What stops a reward, for instance a program that cannot be run.
pub type RewardError = Box<dyn std::error::Error + Send + Sync>;

/// A prompt and all responses to it that are judged together.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// What was asked.
    pub prompt: &'a Prompt,
    /// What was answered, in the order of the samples.
    pub responses: Vec<Response<'a>>,
}

/// A response as a reward sees it.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The tokens as they were sampled, with those that ended it.
    pub tokens: &'a [TokenId],
    /// Its text without what ended it.
    pub text: &'a str,
    /// Why it ended.
    pub finish: Finish,
}

/// What every response of some groups is worth, in units that [`kl_coefficient`](crate::ppo::PpoConfig::kl_coefficient) weighs nats
/// against. A closure is one.
///
/// ```
/// use firebrick_rl::{Group, Reward, RewardError};
///
/// /// 1 for every response that names the prompt's reference answer.
/// fn exact_match(groups: &[Group<'_>]) -> Result<Vec<f64>, RewardError> {
///     let right = |group: &Group<'_>| {
///         let reference = group.prompt.reference.clone().unwrap_or_default();
///         group.responses.iter().map(|one| f64::from(u8::from(one.text.trim() == reference))).collect::<Vec<_>>()
///     };
///     Ok(groups.iter().flat_map(right).collect())
/// }
/// # fn is_a_reward(_: &impl Reward) {}
/// # is_a_reward(&exact_match);
/// ```
pub trait Reward {
    /// A finite number for each response, group after group.
    ///
    /// # Errors
    /// If a response cannot be judged; the run then stops.
    fn score(&self, groups: &[Group<'_>]) -> Result<Vec<f64>, RewardError>;
}

impl<F: Fn(&[Group<'_>]) -> Result<Vec<f64>, RewardError>> Reward for F {
    fn score(&self, groups: &[Group<'_>]) -> Result<Vec<f64>, RewardError> {
        self(groups)
    }
}

/// A preference model (reward model) as a reward: its score of the prompt, the response and one end (T-11, T-12, T-41).
#[derive(Clone, Copy, Debug)]
pub struct RewardModel<'a, S> {
    /// The preference model, on the plain device.
    pub scorer: &'a S,
    /// What it is shown of a response.
    pub format: &'a ResponseFormat,
    /// Sequences computed at a time.
    pub micro_batch_size: usize,
    /// Who computes.
    pub workers: Workers,
}

impl<S: SequenceScorer + Module + Send> Reward for RewardModel<'_, S> {
    fn score(&self, groups: &[Group<'_>]) -> Result<Vec<f64>, RewardError> {
        let of = |group: &Group<'_>| {
            let prompt = &group.prompt.tokens;
            group.responses.iter().map(|one| self.format.scored_sequence(prompt, one.tokens)).collect::<Vec<_>>()
        };
        let sequences = groups.iter().flat_map(of).collect::<Vec<_>>();
        Ok(scores(self.scorer, &sequences, self.micro_batch_size, &self.workers))
    }
}

/// A preference model (reward model) of another tokenizer or template than the policy's as a reward.
///
/// The text of each response is rendered anew behind its prompt's [conversation](Prompt::dialogue), as the preference model was
/// trained to read them. That text goes nowhere else: what is learnt from are the policy's own tokens (T-11).
#[derive(Clone, Copy, Debug)]
pub struct RenderedRewardModel<'a, S> {
    /// The preference model, on the plain device.
    pub scorer: &'a S,
    /// How it reads conversations.
    pub renderer: &'a Renderer,
    /// Sequences computed at a time.
    pub micro_batch_size: usize,
    /// Who computes.
    pub workers: Workers,
}

impl<S: SequenceScorer + Module + Send> Reward for RenderedRewardModel<'_, S> {
    fn score(&self, groups: &[Group<'_>]) -> Result<Vec<f64>, RewardError> {
        let mut sequences = Vec::new();
        for Group { prompt, responses } in groups {
            let dialogue = prompt.dialogue.as_ref();
            let dialogue = dialogue.ok_or_else(|| format!("prompt `{}` comes without its conversation", prompt.id))?;
            let prompt = self.renderer.prompt(dialogue)?;
            for response in responses {
                sequences.push([&prompt[..], &self.renderer.response(response.text)?, &[self.renderer.end()]].concat());
            }
        }
        Ok(scores(self.scorer, &sequences, self.micro_batch_size, &self.workers))
    }
}
