//! Stage `ppo`: the policy, against the train preference model (B-24 to B-26).

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use burn::module::Module;
use firebrick_models::{LoraConfig, ScoredDecoder};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_rl::ppo::{self, PpoConfig};
use firebrick_rl::{Prompt, RewardModel};
use firebrick_train::{Event, Observer, ObserverError};
use firebrick_types::{Seed, TokenId};
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, PreferenceModel, Vocabulary};
use crate::language::{adapted, keep_decoder};
use crate::recipe::Shape;
use crate::recorder::Recorder;

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
    /// The policy's shape.
    pub model: Shape,
    /// How policy and critic are adapted, unless all of their weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How they learn.
    #[serde(flatten)]
    pub recipe: PpoConfig,
}

impl Stage<Env> for Ppo {
    const VERSION: u32 = 3;
    /// The last is the language model that the critic begins with; if there is none, it begins as the preference model.
    type Inputs = (
        Output<Corpus>,
        Output<Vocabulary>,
        Output<LanguageModel>,
        Output<PreferenceModel>,
        Vec<Output<LanguageModel>>,
    );
    type Output = LanguageModel;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), initial, pm, bodies): (
            Corpus,
            Vocabulary,
            LanguageModel,
            PreferenceModel,
            Vec<LanguageModel>,
        ),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/ppo");
        // Of the preference model's own training part (T-24); each prompt once.
        let prompts = corpus
            .train_comparisons()?
            .iter()
            .map(|one| renderer.prompt(one.prompt()))
            .collect::<Result<BTreeSet<_>, _>>()?;
        let (prompts, dropped) = fitting(prompts.into_iter(), self.model.context, self.recipe.max_response_tokens);
        if prompts.is_empty() {
            return Err(anyhow!(
                "none of the {dropped} prompts leaves room for `ppo.max_response_tokens` = {} in `model.context` = {}",
                self.recipe.max_response_tokens,
                self.model.context
            )
            .into());
        }
        let prompts = prompts.into_iter().enumerate();
        let prompts = prompts.map(|(index, tokens)| Prompt::new(index.to_string(), tokens)).collect::<Vec<_>>();
        let training = env.device.clone().autodiff();
        let (policy, shape) = initial.load_with_config(&training)?;
        let critic = match bodies.first() {
            Some(body) => ScoredDecoder::from_body(body.load(&training)?, seed.derive("critic head")).with_zero_head(),
            None => pm.load(&training)?,
        };
        let critic = match &self.lora {
            Some(lora) => critic.with_lora(lora, seed.derive("critic")),
            None => critic,
        };
        let responses = renderer.response_format();
        let observer =
            EntropyWatch { recorder: env.observer(ctx), iterations: self.recipe.iterations as u64, initial: None };
        let run = env.run(ctx, seed).observer(observer);
        let (scorer, micro_batch_size) = (&pm.load(&env.device)?, self.recipe.micro_batch_size);
        let reward = RewardModel { scorer, format: &responses, micro_batch_size, workers: run.workers };
        let policy = adapted(policy, self.lora, seed);
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
