//! Stage `ppo`: the policy, against the train preference model (B-24 to B-26).

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use burn::module::Module;
use firebrick_models::{Decoder, LoraConfig, ScoredDecoder};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_rl::ppo::{self, PpoConfig};
use firebrick_rl::{
    Collection, Group, Prompt, RenderedRewardModel, Reward, RewardError, RewardModel, Rollout, collect, judge,
};
use firebrick_tensor::Workers;
use firebrick_text::{Renderer, ResponseFormat};
use firebrick_train::{Event, Observer, ObserverError, Values};
use firebrick_types::{Dialogue, Seed, TokenId};
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, PreferenceModel, Vocabulary};
use crate::language::{adapted, keep_decoder};
use crate::recipe::ProbeRecipe;
use crate::recorder::Recorder;
use crate::reward_model::Half;

/// The prompts that leave room for a response, and how many do not.
pub(crate) fn fitting(
    prompts: impl Iterator<Item = Vec<TokenId>>,
    context: usize,
    response: usize,
) -> (Vec<Vec<TokenId>>, usize) {
    let (kept, dropped): (Vec<_>, Vec<_>) = prompts.partition(|prompt| prompt.len() + response < context);
    (kept, dropped.len())
}

/// Trains a policy by PPO against a preference model (B-24 to B-26).
#[derive(Clone, Debug, Serialize)]
pub struct Ppo {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Tokens that the policy reads at most.
    pub context: usize,
    /// Of which half of the conversations its prompts are, where its preference model learnt from one (T-24); none: of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half: Option<Half>,
    /// How policy and critic are adapted, unless all of their weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How they learn.
    #[serde(flatten)]
    pub recipe: PpoConfig,
    /// How often held-out prompts are answered meanwhile, if at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeRecipe>,
}

/// A preference model as a reward for responses of a policy.
pub(crate) enum AnyReward<'a> {
    /// It reads the policy's own tokens.
    Tokens(RewardModel<'a, ScoredDecoder>),
    /// It has a tokenizer or template of its own, and reads text.
    Text(RenderedRewardModel<'a, ScoredDecoder>),
}

/// A preference model that is at hand, with how it reads conversations where that is not as the policy does.
pub(crate) struct LoadedReward {
    pub(crate) scorer: ScoredDecoder,
    pub(crate) own: Option<Renderer>,
}

impl LoadedReward {
    /// A preference model for responses of a policy of this renderer.
    pub(crate) fn of(pm: &PreferenceModel, policy: &Renderer, env: &Env) -> Result<Self> {
        Ok(Self { scorer: pm.load(&env.device)?, own: pm.own_renderer(policy)? })
    }

    /// It as a reward for responses of this format.
    pub(crate) fn reward<'a>(
        &'a self,
        format: &'a ResponseFormat,
        micro_batch_size: usize,
        workers: Workers,
    ) -> AnyReward<'a> {
        let scorer = &self.scorer;
        match &self.own {
            Some(renderer) => AnyReward::Text(RenderedRewardModel { scorer, renderer, micro_batch_size, workers }),
            None => AnyReward::Tokens(RewardModel { scorer, format, micro_batch_size, workers }),
        }
    }
}

impl Reward for AnyReward<'_> {
    fn score(&self, groups: &[Group<'_>]) -> Result<Vec<f64>, RewardError> {
        match self {
            Self::Tokens(reward) => reward.score(groups),
            Self::Text(reward) => reward.score(groups),
        }
    }
}

impl Ppo {
    /// Each prompt once, with its conversation, if it leaves room for a response.
    fn prompts(&self, dialogues: Vec<Dialogue>, renderer: &Renderer) -> Result<Vec<Prompt>> {
        let rendered = dialogues.into_iter().map(|dialogue| Ok((renderer.prompt(&dialogue)?, dialogue)));
        let rendered = rendered.collect::<Result<BTreeMap<_, _>>>()?;
        let (context, response) = (self.context, self.recipe.max_response_tokens);
        let all = rendered.len();
        let fitting = rendered.into_iter().filter(|(tokens, _)| tokens.len() + response < context);
        let named = |(index, (tokens, dialogue)): (usize, (Vec<TokenId>, Dialogue))| Prompt {
            dialogue: Some(dialogue),
            ..Prompt::new(index.to_string(), tokens)
        };
        let prompts = fitting.enumerate().map(named).collect::<Vec<_>>();
        if prompts.is_empty() {
            return Err(anyhow!(
                "none of the {all} prompts leaves room for `ppo.max_response_tokens` = {response} in `model.context` = {context}"
            ));
        }
        Ok(prompts)
    }
}

impl Ppo {
    /// What a policy that is being trained answers to held-out prompts, by each reward.
    fn watch(
        &self,
        policy: &Decoder,
        prompts: &[Prompt],
        rewards: &[(AnyReward<'_>, &str)],
        format: &ResponseFormat,
        seed: Seed,
        workers: Workers,
    ) -> Result<Values, firebrick_rl::Error> {
        let PpoConfig { max_response_tokens, temperature, .. } = self.recipe;
        let collection = Collection { samples_per_prompt: 1, max_response_tokens, temperature };
        let mut rollouts = collect(policy, prompts, 0..prompts.len() as u64, format, &collection, seed, &workers);
        let mean = |rollouts: &[Rollout], of: &dyn Fn(&Rollout) -> f64| {
            rollouts.iter().map(of).sum::<f64>() / rollouts.len() as f64
        };
        let mut values = vec![("eval/response_length".to_owned(), mean(&rollouts, &|one| one.response.len() as f64))];
        for (reward, name) in rewards {
            judge(&mut rollouts, prompts, 1, reward)?;
            values.push(((*name).to_owned(), mean(&rollouts, &|one| one.score)));
        }
        Ok(values)
    }
}

impl Stage<Env> for Ppo {
    const VERSION: u32 = 4;
    /// The preference models are the one that rewards and those that only watch. The last is the language model that the critic
    /// begins with; if there is none, it begins as the preference model that rewards.
    type Inputs = (
        Output<Corpus>,
        Output<Vocabulary>,
        Output<LanguageModel>,
        Output<PreferenceModel>,
        Vec<Output<PreferenceModel>>,
        Vec<Output<LanguageModel>>,
    );
    type Output = LanguageModel;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), initial, pm, watching, bodies): (
            Corpus,
            Vocabulary,
            LanguageModel,
            PreferenceModel,
            Vec<PreferenceModel>,
            Vec<LanguageModel>,
        ),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/ppo");
        // Of the preference model's own training part (T-24).
        let prompts = match self.half {
            Some(half) => half.of(corpus.train_comparisons()?)?.into_iter().map(|one| one.comparison.prompt).collect(),
            None => corpus.train_prompts()?,
        };
        let prompts = self.prompts(prompts, &renderer)?;
        let micro_batch_size = self.recipe.micro_batch_size;
        let rewarding = LoadedReward::of(&pm, &renderer, env)?;
        let watching = watching.iter().map(|pm| LoadedReward::of(pm, &renderer, env)).collect::<Result<Vec<_>>>()?;
        let training = env.device.clone().autodiff();
        let (policy, shape) = initial.load_with_config(&training)?;
        let new_critic = |body| ScoredDecoder::from_body(body, seed.derive("critic head")).with_zero_head();
        let critic = match (bodies.first(), &rewarding.own) {
            (Some(body), _) => new_critic(body.load(&training)?),
            // The critic reads the policy's tokens.
            (None, Some(_)) => new_critic(initial.load(&training)?),
            (None, None) => pm.load(&training)?,
        };
        let critic = match &self.lora {
            Some(lora) => critic.with_lora(lora, seed.derive("critic")),
            None => critic,
        };
        let responses = renderer.response_format();
        let observer =
            EntropyWatch { recorder: env.observer(ctx), iterations: self.recipe.iterations as u64, initial: None };
        let run = env.run(ctx, seed).observer(observer);
        let asked = match self.probe {
            Some(ProbeRecipe { every, samples }) if every > 0 => {
                let mut held_out = self.prompts(corpus.held_out_prompts()?, &renderer)?;
                held_out.truncate(samples);
                Some((every, held_out))
            }
            _ => None,
        };
        let run = match &asked {
            None => run,
            Some((every, held_out)) => run.probe(*every, |policy: &Decoder| {
                let names = ["eval/scores", "eval/test_scores"].into_iter();
                let rewards = std::iter::once(&rewarding).chain(&watching);
                let rewards = rewards.map(|one| one.reward(&responses, micro_batch_size, env.workers)).zip(names);
                let rewards = rewards.collect::<Vec<_>>();
                Ok(self.watch(&policy.valid(), held_out, &rewards, &responses, seed.derive("probe"), env.workers)?)
            }),
        };
        let policy = adapted(policy, self.lora, seed);
        let reward = rewarding.reward(&responses, micro_batch_size, env.workers);
        let (policy, _critic) = ppo::train(policy, critic, &reward, &prompts, &responses, &self.recipe, run)?;
        keep_decoder(&policy.valid().merged(), &shape, ctx)?;
        Ok(())
    }
}

/// Warns of a policy which stops exploring before it has learnt anything.
struct EntropyWatch {
    recorder: Recorder,
    iterations: u64,
    /// The entropy at the first iteration seen, until there was a warning.
    initial: Option<f64>,
}

impl Observer for EntropyWatch {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        if let Event::Step { done, values, .. } = &event
            && let Some((_, entropy)) = values.iter().find(|(name, _)| name == "policy/entropy_avg")
        {
            let initial = *self.initial.get_or_insert(*entropy);
            if collapsed(initial, *entropy, *done, self.iterations) {
                self.initial = Some(0.0);
                tracing::warn!(
                    "the policy's entropy fell from {initial:.2} to {entropy:.2} nats a token by iteration {done} of {}: it \
                     answers nearly always the same; lower `ppo.policy_learning_rate` or raise `ppo.kl_coefficient`",
                    self.iterations
                );
            }
        }
        self.recorder.on(event)
    }
}

/// Whether less than a tenth of the initial entropy is left in the first half of the iterations (T-34).
///
/// That entropy falls is expected: a trained policy behaves as if its temperature were lower. That it is gone early is a bug
/// or a learning rate too high.
fn collapsed(initial: f64, entropy: f64, done: u64, iterations: u64) -> bool {
    entropy < 0.1 * initial && 2 * done <= iterations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t34_entropy_that_is_gone_early_is_an_alarm() {
        assert!(collapsed(2.0, 0.1, 5, 10));
        assert!(!collapsed(2.0, 0.1, 6, 10), "late");
        assert!(!collapsed(2.0, 0.3, 5, 10), "expected");
    }
}
