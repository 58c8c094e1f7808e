//! Stages `pmp`, `pm-train` and `pm-test`: the preference models.

use std::collections::BTreeMap;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_data::pmp::{RankedPair, TextPair, binarize, ranked};
use firebrick_data::split;
use firebrick_eval::accuracy;
use firebrick_models::checkpoint::Text;
use firebrick_models::{DecoderConfig, LoraConfig, ScoredDecoder, save_scored};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_preference::reward_model::{RewardModelConfig, train};
use firebrick_preference::{Pair, ranked_loss};
use firebrick_tensor::{SequenceScorer, Workers, scores};
use firebrick_text::{ComparisonTokens, Renderer};
use firebrick_train::Values;
use firebrick_types::{LabelledComparison, Seed};
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, PreferenceModel, Used, Vocabulary, write_json};
use crate::error::BadInput;
use crate::language::{Base, adapted, keep_metrics};
use crate::recipe::{PairRecipe, PmpRecipe, ProbeRecipe, Shape};

/// Trains on the pairs, and judges some of the held-out ones meanwhile if the recipe asks for it.
fn fit(
    model: ScoredDecoder,
    [pairs, held_out]: [&[Pair]; 2],
    recipe: &PairRecipe,
    seed: Seed,
    ctx: &StageContext,
    env: &Env,
) -> Result<ScoredDecoder> {
    let ProbeRecipe { every, samples } = recipe.probe;
    let held_out = &held_out[..held_out.len().min(samples)];
    let micro_batch_size = recipe.train.micro_batch_size;
    let run = env.run(ctx, seed);
    let run = if every == 0 || held_out.is_empty() {
        run
    } else {
        run.probe(every, |model: &ScoredDecoder| {
            Ok(eval_metrics(&model.valid(), held_out, micro_batch_size, env.workers))
        })
    };
    let config = RewardModelConfig {
        batch_size: recipe.train.batch_size,
        micro_batch_size: recipe.train.micro_batch_size,
        passes: recipe.train.passes,
        ranked_weight: recipe.ranked_weight,
        lm_weight: recipe.lm_weight,
        fit: recipe.train.fit(pairs.len()),
    };
    Ok(train(model, pairs, &config, run)?)
}

/// The scores of the chosen and the rejected response of each pair.
pub(crate) fn pair_scores(
    model: &ScoredDecoder,
    pairs: &[Pair],
    context: usize,
    micro_batch_size: usize,
    workers: Workers,
) -> Vec<(f64, f64)> {
    let [chosen, rejected] = [0, 1].map(|side: usize| {
        let sequences = pairs.iter().map(|pair| pair.sequences(context)[side].clone()).collect::<Vec<_>>();
        scores(model, &sequences, micro_batch_size, &workers)
    });
    chosen.into_iter().zip(rejected).collect()
}

/// What a model that is being trained makes of pairs that it does not learn from.
fn eval_metrics(model: &ScoredDecoder, pairs: &[Pair], micro_batch_size: usize, workers: Workers) -> Values {
    let scores = pair_scores(model, pairs, model.context(), micro_batch_size, workers);
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let values = [
        ("eval_accuracy", mean(accuracy(&scores))),
        ("eval_loss", mean_ranked_loss(&scores)),
        ("eval_margin", mean(scores.iter().map(|(chosen, rejected)| chosen - rejected).collect())),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The mean ranked loss of pairs with these scores, in nats a pair.
pub(crate) fn mean_ranked_loss(scores: &[(f64, f64)]) -> f64 {
    let (chosen, rejected): (Vec<f32>, Vec<f32>) = scores.iter().map(|&(a, b)| (a as f32, b as f32)).unzip();
    let [chosen, rejected] =
        [chosen, rejected].map(|scores| Tensor::<1>::from_floats(scores.as_slice(), &Device::flex()));
    f64::from(ranked_loss(chosen, rejected).mean().into_scalar::<f32>())
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

/// Ranked pairs of answers as pairs of tokens; how many do not fit the context.
pub(crate) fn ranked_tokens(
    answers: &[RankedPair],
    is_binary: bool,
    context: usize,
    renderer: &Renderer,
) -> Result<(Vec<Pair>, usize)> {
    let texts = if is_binary {
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
    let fits = |pair: &Pair| pair.chosen.len().max(pair.rejected.len()) <= context;
    let (pairs, too_long): (Vec<_>, Vec<_>) = pairs.into_iter().partition(fits);
    Ok((pairs, too_long.len()))
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
        let tokens =
            |answers: &[RankedPair]| ranked_tokens(answers, self.recipe.binarize, self.model.context, &renderer);
        let (pairs, too_long) = tokens(&corpus.ranked_pairs()?)?;
        let (held_out, _) = tokens(&corpus.held_out_ranked_pairs()?)?;
        write_json(&ctx.artifact().join(PreferenceModel::USED), &Used { pairs: pairs.len(), too_long })?;
        let (body, config) = base.load_with_config(&env.device.clone().autodiff())?;
        let model = ScoredDecoder::from_body(adapted(body, self.lora, seed), seed);
        let model = match &pairs[..] {
            [] => model,
            pairs => fit(model, [pairs, &held_out], &self.recipe.pairs, seed, ctx, env)?,
        };
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

impl Half {
    /// Its comparisons.
    ///
    /// # Errors
    /// If there are too few conversations for two halves.
    pub fn of(self, comparisons: Vec<LabelledComparison>) -> Result<Vec<LabelledComparison>> {
        let opening = |one: &LabelledComparison| one.prompt().opening().unwrap_or_default().to_owned();
        let openings = comparisons.iter().map(opening).collect::<Vec<_>>();
        let indexed = openings.iter().zip(comparisons).collect::<Vec<_>>();
        let [first, second] = split::halves(indexed, |(opening, _)| opening.as_str())?;
        let half = match self {
            Self::First => first,
            Self::Second => second,
        };
        Ok(half.into_iter().map(|(_, comparison)| comparison).collect())
    }
}

/// A language model with a new scalar head: what a preference model begins as that is not pretrained.
#[derive(Clone, Debug, Serialize)]
pub struct AddHead {
    /// Where all randomness comes from.
    pub seed: u64,
}

impl Stage<Env> for AddHead {
    const VERSION: u32 = 1;
    type Inputs = (Output<LanguageModel>,);
    type Output = PreferenceModel;

    fn run(&self, (base,): (LanguageModel,), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        let (body, config) = base.load_with_config(&env.device)?;
        write_json(&ctx.artifact().join(PreferenceModel::USED), &Used { pairs: 0, too_long: 0 })?;
        keep(&ScoredDecoder::from_body(body, Seed::new(self.seed).derive("hh/pmp")), &config, ctx)?;
        Ok(())
    }
}

/// A reward model that somebody trained, with how it reads conversations.
#[derive(Clone, Debug, Serialize)]
pub struct TakeRewardModel(pub Base);

impl Stage<Env> for TakeRewardModel {
    const VERSION: u32 = 1;
    type Inputs = ();
    type Output = PreferenceModel;

    fn external(&self, _env: &Env) -> Result<BTreeMap<String, String>, BoxError> {
        self.0.digest()
    }

    fn run(&self, (): (), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        let checkpoint = self.0.checkpoint();
        let (model, config) = checkpoint.reward_model(&env.device)?;
        let Some(Text { renderer, .. }) = checkpoint.text(config.vocab)? else {
            let path = checkpoint.path().display();
            let message =
                format!("{path} brings no tokenizer, so nobody knows how it reads; put its tokenizer.json beside it");
            return Err(BadInput::new(message).into());
        };
        renderer.save(ctx.artifact())?;
        write_json(&ctx.artifact().join(PreferenceModel::USED), &Used { pairs: 0, too_long: 0 })?;
        save_scored(&model, &config, ctx.artifact())?;
        keep_metrics(ctx)?;
        Ok(())
    }
}

/// A preference model (reward model) finetuned on human feedback (B-09).
#[derive(Clone, Debug, Serialize)]
pub struct RewardModel {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Of which half of the conversations it learns; none: of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half: Option<Half>,
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
        let comparisons = corpus.train_comparisons()?;
        let comparisons = match self.half {
            Some(half) => half.of(comparisons)?,
            None => comparisons,
        };
        let pairs = |comparisons: &[LabelledComparison]| -> Result<Vec<_>> {
            comparisons.iter().filter_map(|one| pair(&renderer, one).transpose()).collect()
        };
        let (pairs, held_out) = (pairs(&comparisons)?, pairs(&corpus.test_comparisons()?)?);
        let used = Used { pairs: pairs.len(), too_long: 0 };
        write_json(&ctx.artifact().join(PreferenceModel::USED), &used)?;
        let (model, config) = pmp.load_with_config(&env.device.clone().autodiff())?;
        let model = match &self.lora {
            Some(lora) => model.with_lora(lora, seed),
            None => model,
        };
        let model = fit(model, [&pairs, &held_out], &self.recipe, seed, ctx, env)?;
        keep(&model, &config, ctx)?;
        Ok(())
    }
}
