//! Stages `tokenizer`, `pretrain` and `distill`: the language model.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use burn::module::Module;
use firebrick_kernels::Precision;
use firebrick_models::checkpoint::{Checkpoint, Text};
use firebrick_models::{Decoder, DecoderConfig, LoraConfig, Positions, save_decoder};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext, digest};
use firebrick_text::{Renderer, Tokenizer};
use firebrick_train::{distill, lm};
use firebrick_types::{Seed, TokenId};
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, METRICS, Vocabulary};
use crate::checkpoint::located;
use crate::recipe::{DistillRecipe, Shape, TrainRecipe};
use crate::recorder::Recorder;

/// Puts what was measured into the artifact: nothing if nothing was trained.
pub(crate) fn keep_metrics(ctx: &StageContext) -> Result<()> {
    let (from, to) = (Recorder::metrics(ctx.work()), ctx.artifact().join(METRICS));
    let kept = if from.exists() { std::fs::copy(&from, &to).map(drop) } else { std::fs::write(&to, "") };
    kept.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Writes a language model with what was measured while it was trained.
pub(crate) fn keep_decoder(model: &Decoder, config: &DecoderConfig, ctx: &StageContext) -> Result<()> {
    save_decoder(model, config, ctx.artifact())?;
    keep_metrics(ctx)
}

/// The model as it is trained: whole, or frozen with adapters.
pub(crate) fn adapted(model: Decoder, lora: Option<LoraConfig>, seed: Seed) -> Decoder {
    match lora {
        Some(lora) => model.with_lora(&lora, seed),
        None => model,
    }
}

/// Trains a tokenizer on the text to learn from.
#[derive(Clone, Debug, Serialize)]
pub struct TrainTokenizer {
    /// Tokens, at most.
    pub vocab: usize,
}

impl Stage<Env> for TrainTokenizer {
    const VERSION: u32 = 3;
    type Inputs = (Output<Corpus>,);
    type Output = Vocabulary;

    fn run(&self, (corpus,): (Corpus,), ctx: &StageContext, _env: &Env) -> Result<(), BoxError> {
        let text = corpus.train_text()?.into_iter().chain(corpus.dialogues()?).collect::<Vec<_>>();
        let tokenizer = Tokenizer::train(&text, self.vocab)?;
        tokenizer.save(&ctx.artifact().join(Vocabulary::FILE))?;
        Ok(())
    }
}

/// A checkpoint to begin with.
#[derive(Clone, Debug, Serialize)]
pub struct Base {
    source: String,
    #[serde(skip)]
    checkpoint: Checkpoint,
}

impl Base {
    /// The checkpoint that the recipe names.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(source: &str) -> Result<Self> {
        let checkpoint = located(source).with_context(|| format!("`base.model` = {source}"))?;
        Ok(Self { source: source.to_owned(), checkpoint })
    }

    /// What tells its files from others of the same name.
    fn digest(&self) -> Result<BTreeMap<String, String>, BoxError> {
        Ok(BTreeMap::from([(self.source.clone(), digest(self.checkpoint.path())?)]))
    }
}

/// The tokenizer and the template of a checkpoint, in place of a trained one.
#[derive(Clone, Debug, Serialize)]
pub struct TakeTokenizer(pub Base);

impl Stage<Env> for TakeTokenizer {
    const VERSION: u32 = 3;
    type Inputs = ();
    type Output = Vocabulary;

    fn external(&self, _env: &Env) -> Result<BTreeMap<String, String>, BoxError> {
        self.0.digest()
    }

    fn run(&self, (): (), ctx: &StageContext, _env: &Env) -> Result<(), BoxError> {
        let checkpoint = &self.0.checkpoint;
        let Some(Text { renderer, .. }) = checkpoint.text(checkpoint.config()?.vocab)? else {
            return Err(
                anyhow!("`base.model` = {} has no tokenizer; put its tokenizer.json beside it", self.0.source).into()
            );
        };
        renderer.save(ctx.artifact())?;
        Ok(())
    }
}

/// The weights of a checkpoint, in place of pretrained ones.
#[derive(Clone, Debug, Serialize)]
pub struct TakeModel {
    /// Where they are.
    pub base: Base,
    /// Tokens that the models read at most.
    pub context: usize,
    /// What linear maps round their factors to.
    pub precision: Precision,
}

impl Stage<Env> for TakeModel {
    const VERSION: u32 = 1;
    type Inputs = ();
    type Output = LanguageModel;

    fn external(&self, _env: &Env) -> Result<BTreeMap<String, String>, BoxError> {
        self.base.digest()
    }

    fn run(&self, (): (), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        let (model, mut config) = self.base.checkpoint.model(&env.device)?;
        if self.context > config.context {
            return Err(anyhow!(
                "`model.context` = {} is longer than what `base.model` = {} was made for, {} tokens; lower it",
                self.context,
                self.base.source,
                config.context
            )
            .into());
        }
        if let Positions::Rotary(_) = config.architecture.positions {
            // Angles are a table; positions that were learnt are weights.
            config.context = self.context;
        }
        config.architecture.precision = self.precision;
        keep_decoder(&model, &config, ctx)?;
        Ok(())
    }
}

/// Pretrains a language model on the text to learn from.
#[derive(Clone, Debug, Serialize)]
pub struct Pretrain {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Its shape.
    pub model: Shape,
    /// The optimiser; samples are rows of one context.
    #[serde(flatten)]
    pub train: TrainRecipe,
}

impl Stage<Env> for Pretrain {
    const VERSION: u32 = 2;
    type Inputs = (Output<Corpus>, Output<Vocabulary>);
    type Output = LanguageModel;

    fn run(
        &self,
        (corpus, Vocabulary(renderer)): (Corpus, Vocabulary),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/pretrain");
        let tokenizer = renderer.tokenizer();
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
            passes: self.train.passes,
            fit: self.train.fit(rows),
        };
        let model = lm::pretrain(
            config.init(seed, &env.device.clone().autodiff()),
            &documents,
            tokenizer.eoc(),
            &train,
            env.run(ctx, seed),
        )?;
        keep_decoder(&model.valid(), &config, ctx)?;
        Ok(())
    }
}

/// Distils the HHH prompt into a language model.
#[derive(Clone, Debug, Serialize)]
pub struct Distill {
    /// Where all randomness comes from.
    pub seed: u64,
    /// The model's shape.
    pub model: Shape,
    /// How it is adapted, unless all of its weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How it is distilled.
    #[serde(flatten)]
    pub recipe: DistillRecipe,
}

impl Distill {
    /// Half documents, half dialogues, each as many tokens as fit.
    fn texts(&self, corpus: &Corpus, renderer: &Renderer, seed: Seed) -> Result<Vec<Vec<TokenId>>> {
        let take = |mut texts: Vec<String>, count: usize, name: &str| {
            texts.shuffle(&mut seed.derive(name).rng());
            texts.truncate(count);
            texts
        };
        let dialogues = take(corpus.dialogues()?, self.recipe.texts / 2, "dialogues");
        let documents = take(corpus.train_text()?, self.recipe.texts - dialogues.len(), "documents");
        let cut = |mut tokens: Vec<TokenId>| {
            tokens.truncate(self.recipe.max_tokens);
            tokens
        };
        let dialogues = dialogues.iter().map(|text| Ok(cut(renderer.passage(text)?)));
        let documents = documents.iter().map(|text| Ok(cut(renderer.document(text)?)));
        dialogues.chain(documents).collect()
    }
}

impl Stage<Env> for Distill {
    const VERSION: u32 = 3;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<LanguageModel>);
    type Output = LanguageModel;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), base): (Corpus, Vocabulary, LanguageModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/distill");
        let prompt = renderer.passage(&corpus.prompt()?)?;
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
        let texts = self.texts(&corpus, &renderer, seed)?;
        let config = distill::DistillConfig {
            batch_size: self.recipe.train.batch_size,
            micro_batch_size: self.recipe.train.micro_batch_size,
            passes: self.recipe.train.passes,
            top_k: self.recipe.top_k,
            fit: self.recipe.train.fit(texts.len()),
        };
        let (base, shape) = base.load_with_config(&env.device.clone().autodiff())?;
        let model = distill::context_distill(
            adapted(base, self.lora, seed),
            &prompt,
            &texts,
            renderer.end(),
            &config,
            env.run(ctx, seed),
        )?;
        keep_decoder(&model.valid().merged(), &shape, ctx)?;
        Ok(())
    }
}
