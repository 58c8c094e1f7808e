//! Stages `tokenizer`, `pretrain` and `distill`: the language model.

use anyhow::{Context, Result, anyhow};
use burn::module::Module;
use firebrick_data::Tokenizer;
use firebrick_models::{Decoder, DecoderConfig, save_decoder};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_tensor::CausalLm;
use firebrick_train::{Checkpoints, distill, lm};
use firebrick_types::{Seed, TokenId};
use rand::seq::SliceRandom;
use serde::Serialize;

use super::artifacts::{Corpus, LanguageModel, METRICS, Vocabulary};
use super::recipe::{DistillRecipe, ModelRecipe, Recipe, TrainRecipe};
use crate::env::Env;
use crate::progress::Progress;

/// The checkpoints of a stage.
pub(crate) fn checkpoints(ctx: &StageContext, env: &Env) -> Checkpoints {
    Checkpoints::new(ctx.work().join("checkpoint"), env.checkpoint_every)
}

/// Puts what was measured into the artifact: nothing if nothing was trained.
pub(crate) fn keep_metrics(ctx: &StageContext) -> Result<()> {
    let (from, to) = (Progress::metrics(ctx.work()), ctx.artifact().join(METRICS));
    let kept = if from.exists() { std::fs::copy(&from, &to).map(drop) } else { std::fs::write(&to, "") };
    kept.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Writes a language model with what was measured while it was trained.
pub(crate) fn keep_decoder(model: &Decoder, config: &DecoderConfig, ctx: &StageContext) -> Result<()> {
    save_decoder(model, config, ctx.artifact())?;
    keep_metrics(ctx)
}

/// The shape of a decoder that was trained here.
pub(crate) fn config_of(model: &Decoder, recipe: &ModelRecipe) -> DecoderConfig {
    recipe.config(model.vocab())
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrainTokenizer {
    pub(crate) vocab: usize,
}

impl Stage<Env> for TrainTokenizer {
    const VERSION: u32 = 2;
    type Inputs = (Output<Corpus>,);
    type Output = Vocabulary;

    fn run(&self, (corpus,): (Corpus,), ctx: &StageContext, _env: &Env) -> Result<(), BoxError> {
        let text = corpus.train_text()?.into_iter().chain(corpus.dialogues()?).collect::<Vec<_>>();
        let tokenizer = Tokenizer::train(&text, self.vocab)?;
        tokenizer.save(&ctx.artifact().join(Vocabulary::FILE))?;
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pretrain {
    seed: u64,
    model: ModelRecipe,
    #[serde(flatten)]
    train: TrainRecipe,
}

impl Pretrain {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { seed: recipe.seed, model: recipe.model, train: recipe.pretrain }
    }
}

impl Stage<Env> for Pretrain {
    const VERSION: u32 = 2;
    type Inputs = (Output<Corpus>, Output<Vocabulary>);
    type Output = LanguageModel;

    fn run(
        &self,
        (corpus, Vocabulary(tokenizer)): (Corpus, Vocabulary),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/pretrain");
        let documents = corpus.train_text()?.iter().map(|document| tokenizer.encode(document)).collect::<Vec<_>>();
        let config = self.model.config(tokenizer.vocab_size());
        let rows = lm::pack(&lm::pieces(&documents, tokenizer.eoc(), config.context), config.context).len();
        if rows < self.train.batch_size {
            return Err(anyhow!(
                "`pretrain.batch_size` = {} is larger than the corpus, {rows} rows of `model.context` = {}; lower it or take \
                 more `data.documents`",
                self.train.batch_size,
                config.context
            )
            .into());
        }
        let train = lm::LmConfig {
            batch_size: self.train.batch_size,
            micro_batch_size: self.train.micro_batch_size,
            fit: self.train.fit(rows),
        };
        let model = lm::pretrain(
            config.init(seed, &env.device.clone().autodiff()),
            &documents,
            tokenizer.eoc(),
            &train,
            seed,
            Some(&mut checkpoints(ctx, env)),
            &mut Progress::new(ctx.work(), ctx.stage(), env.voice),
        )?;
        keep_decoder(&model.valid(), &config, ctx)?;
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Distill {
    seed: u64,
    model: ModelRecipe,
    #[serde(flatten)]
    recipe: DistillRecipe,
}

impl Distill {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { seed: recipe.seed, model: recipe.model, recipe: recipe.distill.clone() }
    }

    /// Half documents, half dialogues, each as many tokens as fit.
    fn texts(&self, corpus: &Corpus, tokenizer: &Tokenizer, seed: Seed) -> Result<Vec<Vec<TokenId>>> {
        let take = |mut texts: Vec<String>, count: usize, name: &str| {
            texts.shuffle(&mut seed.derive(name).rng());
            texts.truncate(count);
            texts
        };
        let dialogues = take(corpus.dialogues()?, self.recipe.texts / 2, "dialogues");
        let documents = take(corpus.train_text()?, self.recipe.texts - dialogues.len(), "documents");
        let encode = |text: &String| {
            let mut tokens = tokenizer.encode(text);
            tokens.truncate(self.recipe.max_tokens);
            tokens
        };
        Ok(dialogues.iter().chain(&documents).map(encode).collect())
    }
}

impl Stage<Env> for Distill {
    const VERSION: u32 = 2;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<LanguageModel>);
    type Output = LanguageModel;

    fn run(
        &self,
        (corpus, Vocabulary(tokenizer), base): (Corpus, Vocabulary, LanguageModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/distill");
        let prompt = tokenizer.encode(&corpus.prompt()?);
        let needed = prompt.len() + 1 + self.recipe.max_tokens;
        if needed > self.model.context {
            return Err(anyhow!(
                "the HHH prompt of {} tokens and a text of `distill.max_tokens` = {} do not fit `model.context` = {}; raise it \
                 to at least {needed}, or lower `distill.max_tokens` or `data.prompt_conversations`",
                prompt.len(),
                self.recipe.max_tokens,
                self.model.context
            )
            .into());
        }
        let texts = self.texts(&corpus, &tokenizer, seed)?;
        let config = distill::DistillConfig {
            batch_size: self.recipe.train.batch_size,
            micro_batch_size: self.recipe.train.micro_batch_size,
            top_k: self.recipe.top_k,
            fit: self.recipe.train.fit(texts.len()),
        };
        let base = base.load(&env.device.clone().autodiff())?;
        let shape = config_of(&base, &self.model);
        let model = distill::context_distill(
            base,
            &prompt,
            &texts,
            tokenizer.eoc(),
            &config,
            seed,
            Some(&mut checkpoints(ctx, env)),
            &mut Progress::new(ctx.work(), ctx.stage(), env.voice),
        )?;
        keep_decoder(&model.valid(), &shape, ctx)?;
        Ok(())
    }
}
