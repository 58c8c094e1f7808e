//! Stages `pmp`, `pm-train` and `pm-test`: the preference models.

use anyhow::Result;
use burn::module::Module;
use firebrick_data::pmp::{binarize, ranked};
use firebrick_data::{Tokenizer, dialogue, split};
use firebrick_models::{ScoredDecoder, save_scored};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_preference::{Pair, PreferenceConfig, train};
use firebrick_types::{Comparison, Dialogue, Message, Seed, TokenId};
use serde::Serialize;

use super::artifacts::{Corpus, LanguageModel, PreferenceModel, Used, Vocabulary, write_json};
use super::language::{checkpoints, config_of, keep_metrics};
use super::recipe::{ModelRecipe, PairRecipe, PmpRecipe, Recipe};
use crate::env::Env;
use crate::progress::Progress;

/// A text as a preference model reads it: between two end-of-context tokens, the score on the last.
pub(crate) fn judged_text(tokenizer: &Tokenizer, text: &str) -> Vec<TokenId> {
    let eoc = tokenizer.eoc();
    [&[eoc], tokenizer.encode(text).as_slice(), &[eoc]].concat()
}

/// A prompt as a policy reads it.
pub(crate) fn prompt_tokens(tokenizer: &Tokenizer, prompt: &Dialogue) -> Vec<TokenId> {
    [&[tokenizer.eoc()], tokenizer.encode(&dialogue::render_prompt(prompt)).as_slice()].concat()
}

/// Both dialogues of a comparison as a preference model reads them.
pub(crate) fn pair(tokenizer: &Tokenizer, comparison: &Comparison) -> Pair {
    let with = |answer: &String| {
        let whole = comparison.prompt.with(Message::assistant(answer.clone()));
        judged_text(tokenizer, &dialogue::render(&whole))
    };
    Pair { better: with(&comparison.chosen), worse: with(&comparison.rejected) }
}

fn fit(
    model: ScoredDecoder,
    pairs: &[Pair],
    recipe: &PairRecipe,
    seed: Seed,
    ctx: &StageContext,
    env: &Env,
) -> Result<ScoredDecoder> {
    let config = PreferenceConfig {
        batch_size: recipe.train.batch_size,
        micro_batch_size: recipe.train.micro_batch_size,
        ranked_weight: recipe.ranked_weight,
        lm_weight: recipe.lm_weight,
        fit: recipe.train.fit(pairs.len()),
    };
    let mut progress = Progress::new(ctx.work(), ctx.stage(), env.voice);
    Ok(train(model, pairs, &config, seed, Some(&mut checkpoints(ctx, env)), &mut progress)?)
}

fn keep(model: &ScoredDecoder, shape: &ModelRecipe, ctx: &StageContext) -> Result<()> {
    let config = config_of(model.body(), shape);
    save_scored(&model.valid(), &config, ctx.artifact())?;
    keep_metrics(ctx)
}

/// Preference-model pretraining on pairs of answers, binary or ranked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pmp {
    seed: u64,
    model: ModelRecipe,
    #[serde(flatten)]
    recipe: PmpRecipe,
}

impl Pmp {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { seed: recipe.seed, model: recipe.model, recipe: recipe.pmp.clone() }
    }
}

impl Stage<Env> for Pmp {
    const VERSION: u32 = 2;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<LanguageModel>);
    type Output = PreferenceModel;

    fn run(
        &self,
        (corpus, Vocabulary(tokenizer), base): (Corpus, Vocabulary, LanguageModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/pmp");
        let answers = corpus.ranked_pairs()?;
        let texts = if self.recipe.binarize {
            answers.iter().flat_map(binarize).collect::<Vec<_>>()
        } else {
            answers.iter().map(ranked).collect()
        };
        let pairs = texts.iter().map(|pair| Pair {
            better: judged_text(&tokenizer, &pair.better),
            worse: judged_text(&tokenizer, &pair.worse),
        });
        // Cutting a longer sample from the left would cut off its label, and leave nothing to learn.
        let fits = |pair: &Pair| pair.better.len().max(pair.worse.len()) <= self.model.context;
        let (pairs, too_long): (Vec<_>, Vec<_>) = pairs.partition(fits);
        let used = Used { pairs: pairs.len(), too_long: too_long.len() };
        write_json(&ctx.artifact().join(PreferenceModel::USED), &used)?;
        let body = base.load(&env.device.clone().autodiff())?;
        let model = ScoredDecoder::from_body(body, seed);
        let model = if pairs.is_empty() { model } else { fit(model, &pairs, &self.recipe.pairs, seed, ctx, env)? };
        keep(&model, &self.model, ctx)?;
        Ok(())
    }
}

/// Which half of the conversations a preference model learns from (B-27).
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Half {
    First,
    Second,
}

/// A preference model finetuned on human feedback (B-09).
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pm {
    seed: u64,
    half: Half,
    model: ModelRecipe,
    #[serde(flatten)]
    recipe: PairRecipe,
}

impl Pm {
    pub(crate) fn of(recipe: &Recipe, half: Half) -> Self {
        Self { seed: recipe.seed, half, model: recipe.model, recipe: recipe.pm.clone() }
    }
}

impl Stage<Env> for Pm {
    const VERSION: u32 = 2;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<PreferenceModel>);
    type Output = PreferenceModel;

    fn run(
        &self,
        (corpus, Vocabulary(tokenizer), pmp): (Corpus, Vocabulary, PreferenceModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/pm");
        let opening = |one: &Comparison| one.prompt.opening().unwrap_or_default().to_owned();
        let comparisons = corpus.train_comparisons()?;
        let openings = comparisons.iter().map(opening).collect::<Vec<_>>();
        let indexed = openings.iter().zip(comparisons).collect::<Vec<_>>();
        let [first, second] = split::halves(indexed, |(opening, _)| opening.as_str())?;
        let half = match self.half {
            Half::First => first,
            Half::Second => second,
        };
        let pairs = half.iter().map(|(_, comparison)| pair(&tokenizer, comparison)).collect::<Vec<_>>();
        let used = Used { pairs: pairs.len(), too_long: 0 };
        write_json(&ctx.artifact().join(PreferenceModel::USED), &used)?;
        let model = pmp.load(&env.device.clone().autodiff())?;
        let model = fit(model, &pairs, &self.recipe, seed, ctx, env)?;
        keep(&model, &self.model, ctx)?;
        Ok(())
    }
}
