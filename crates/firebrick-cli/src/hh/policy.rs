//! Stage `ppo`: the policy, against the train preference model (B-24 to B-26).

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use burn::module::Module;
use firebrick_data::{Tokenizer, dialogue};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_rl::ppo::{self, PpoConfig, Turns};
use firebrick_types::{Seed, TokenId};
use serde::Serialize;

use super::artifacts::{Corpus, LanguageModel, PreferenceModel, Vocabulary};
use super::language::{checkpoints, config_of, keep_decoder};
use super::preference::prompt_tokens;
use super::recipe::{ModelRecipe, Recipe};
use crate::env::Env;
use crate::progress::Progress;

/// How a response ends in this pipeline's text format.
pub(crate) fn turns(tokenizer: &Tokenizer) -> Turns {
    let stop = [dialogue::STOP, dialogue::SEPARATOR].map(|text| tokenizer.encode(text));
    Turns { eoc: tokenizer.eoc(), stop: stop.into() }
}

/// The prompts that leave room for a response, and how many do not.
pub(crate) fn fitting(
    prompts: impl Iterator<Item = Vec<TokenId>>,
    context: usize,
    response: usize,
) -> (Vec<Vec<TokenId>>, usize) {
    let (kept, dropped): (Vec<_>, Vec<_>) = prompts.partition(|prompt| prompt.len() + response < context);
    (kept, dropped.len())
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ppo {
    seed: u64,
    model: ModelRecipe,
    #[serde(flatten)]
    recipe: PpoConfig,
}

impl Ppo {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { seed: recipe.seed, model: recipe.model, recipe: recipe.ppo }
    }
}

impl Stage<Env> for Ppo {
    const VERSION: u32 = 2;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<LanguageModel>, Output<PreferenceModel>);
    type Output = LanguageModel;

    fn run(
        &self,
        (corpus, Vocabulary(tokenizer), initial, pm): (Corpus, Vocabulary, LanguageModel, PreferenceModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/ppo");
        // Of the preference model's own training part (T-24); each prompt once.
        let prompts = corpus
            .train_comparisons()?
            .iter()
            .map(|one| prompt_tokens(&tokenizer, &one.prompt))
            .collect::<BTreeSet<_>>();
        let (prompts, dropped) = fitting(prompts.into_iter(), self.model.context, self.recipe.max_response_tokens);
        if prompts.is_empty() {
            return Err(anyhow!(
                "none of the {dropped} prompts leaves room for `ppo.max_response_tokens` = {} in `model.context` = {}",
                self.recipe.max_response_tokens,
                self.model.context
            )
            .into());
        }
        let training = env.device.clone().autodiff();
        let policy = initial.load(&training)?;
        let shape = config_of(&policy, &self.model);
        let (policy, _critic) = ppo::train(
            policy,
            pm.load(&training)?,
            &pm.load(&env.device)?,
            &prompts,
            &turns(&tokenizer),
            &self.recipe,
            seed,
            Some(&mut checkpoints(ctx, env)),
            &mut Progress::new(ctx.work(), ctx.stage(), env.voice),
        )?;
        keep_decoder(&policy.valid(), &shape, ctx)?;
        Ok(())
    }
}
