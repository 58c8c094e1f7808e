//! Stages `pmp`, `pm-train` and `pm-test`: the preference models.

use anyhow::Result;
use burn::module::Module;
use firebrick_data::pmp::{TextPair, binarize, ranked};
use firebrick_data::split;
use firebrick_models::{DecoderConfig, LoraConfig, ScoredDecoder, save_scored};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_preference::Pair;
use firebrick_preference::reward_model::{RewardModelConfig, train};
use firebrick_text::{ComparisonTokens, Renderer};
use firebrick_types::{LabelledComparison, Seed};
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, PreferenceModel, Used, Vocabulary, write_json};
use crate::language::{adapted, keep_metrics};
use crate::recipe::{PairRecipe, PmpRecipe, Shape};

fn fit(
    model: ScoredDecoder,
    pairs: &[Pair],
    recipe: &PairRecipe,
    seed: Seed,
    ctx: &StageContext,
    env: &Env,
) -> Result<ScoredDecoder> {
    let config = RewardModelConfig {
        batch_size: recipe.train.batch_size,
        micro_batch_size: recipe.train.micro_batch_size,
        passes: recipe.train.passes,
        ranked_weight: recipe.ranked_weight,
        lm_weight: recipe.lm_weight,
        fit: recipe.train.fit(pairs.len()),
    };
    Ok(train(model, pairs, &config, env.run(ctx, seed))?)
}

fn keep(model: &ScoredDecoder, config: &DecoderConfig, ctx: &StageContext) -> Result<()> {
    save_scored(&model.valid().merged(), config, ctx.artifact())?;
    keep_metrics(ctx)
}

/// Preference-model pretraining on pairs of answers, binary or ranked.
#[derive(Clone, Debug, Serialize)]
pub struct Pmp {
    /// Where all randomness comes from.
    pub seed: u64,
    /// The model's shape.
    pub model: Shape,
    /// How it is adapted, unless all of its weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How it learns.
    #[serde(flatten)]
    pub recipe: PmpRecipe,
}

impl Stage<Env> for Pmp {
    const VERSION: u32 = 3;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<LanguageModel>);
    type Output = PreferenceModel;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), base): (Corpus, Vocabulary, LanguageModel),
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
        let pair = |pair: &TextPair| -> Result<Pair> {
            let [chosen, rejected] = [&pair.chosen, &pair.rejected].map(|text| renderer.scored_text(text));
            Ok(Pair::new(Vec::new(), chosen?, rejected?))
        };
        let pairs = texts.iter().map(pair).collect::<Result<Vec<_>>>()?;
        // Cutting a longer sample from the left would cut off its label, and leave nothing to learn.
        let fits = |pair: &Pair| pair.chosen.len().max(pair.rejected.len()) <= self.model.context;
        let (pairs, too_long): (Vec<_>, Vec<_>) = pairs.into_iter().partition(fits);
        let used = Used { pairs: pairs.len(), too_long: too_long.len() };
        write_json(&ctx.artifact().join(PreferenceModel::USED), &used)?;
        let (body, config) = base.load_with_config(&env.device.clone().autodiff())?;
        let model = ScoredDecoder::from_body(adapted(body, self.lora, seed), seed);
        let model = if pairs.is_empty() { model } else { fit(model, &pairs, &self.recipe.pairs, seed, ctx, env)? };
        keep(&model, &config, ctx)?;
        Ok(())
    }
}

/// A comparison as a preference model reads it; of a tie none.
pub(crate) fn pair(renderer: &Renderer, comparison: &LabelledComparison) -> Result<Option<Pair>> {
    let pair = |ComparisonTokens { prompt, chosen, rejected }| Pair {
        strength: comparison.strength,
        ..Pair::new(prompt, chosen, rejected)
    };
    Ok(renderer.comparison(comparison)?.map(pair))
}

/// Which half of the conversations a preference model learns from (B-27).
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Half {
    /// The first.
    First,
    /// The second.
    Second,
}

/// A preference model (reward model) finetuned on human feedback (B-09).
#[derive(Clone, Debug, Serialize)]
pub struct RewardModel {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Of which half of the conversations it learns.
    pub half: Half,
    /// The model's shape.
    pub model: Shape,
    /// How it is adapted, unless all of its weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How it learns.
    #[serde(flatten)]
    pub recipe: PairRecipe,
}

impl Stage<Env> for RewardModel {
    const VERSION: u32 = 3;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<PreferenceModel>);
    type Output = PreferenceModel;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), pmp): (Corpus, Vocabulary, PreferenceModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/pm");
        let opening = |one: &LabelledComparison| one.prompt().opening().unwrap_or_default().to_owned();
        let comparisons = corpus.train_comparisons()?;
        let openings = comparisons.iter().map(opening).collect::<Vec<_>>();
        let indexed = openings.iter().zip(comparisons).collect::<Vec<_>>();
        let [first, second] = split::halves(indexed, |(opening, _)| opening.as_str())?;
        let half = match self.half {
            Half::First => first,
            Half::Second => second,
        };
        let pairs = half.iter().filter_map(|(_, comparison)| pair(&renderer, comparison).transpose());
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let used = Used { pairs: pairs.len(), too_long: 0 };
        write_json(&ctx.artifact().join(PreferenceModel::USED), &used)?;
        let (model, config) = pmp.load_with_config(&env.device.clone().autodiff())?;
        let model = match &self.lora {
            Some(lora) => model.with_lora(lora, seed),
            None => model,
        };
        let model = fit(model, &pairs, &self.recipe, seed, ctx, env)?;
        keep(&model, &config, ctx)?;
        Ok(())
    }
}
