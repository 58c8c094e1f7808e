//! Stages `tokenizer`, `base` and `pretrain`: the language model.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use burn::module::Module;
use firebrick_kernels::Precision;
use firebrick_models::checkpoint::{Checkpoint, Text};
use firebrick_models::{Decoder, DecoderConfig, LoraConfig, Positions, save_decoder};
use firebrick_pipeline::{BoxError, Output, Pipeline, Stage, StageContext, digest};
use firebrick_tensor::Workers;
use firebrick_text::Tokenizer;
use firebrick_train::lm;
use firebrick_types::Seed;
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, METRICS, Vocabulary};
use crate::checkpoint::located;
use crate::error::BadInput;
use crate::estimate::{Load, Work};
use crate::recipe::{BaseRecipe, Shape, TokenizerRecipe, TrainRecipe};
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
        if checkpoint.is_reward_model()? {
            return Err(BadInput::new(format!(
                "{source} is a reward model, where a language model is wanted; it goes to --reward of `pipeline rl` and \
                 `pipeline evaluate`, to `score`, and to --model of `pipeline reward`"
            ))
            .into());
        }
        Ok(Self { source: source.to_owned(), checkpoint })
    }

    /// The reward model that an option names.
    ///
    /// # Errors
    /// If there is none.
    pub fn reward_model(option: &str, source: &str) -> Result<Self> {
        let checkpoint = located(source).with_context(|| format!("{option} {source}"))?;
        if !checkpoint.is_reward_model()? {
            return Err(BadInput::new(format!(
                "{option} {source} is a language model, where a reward model is wanted: a folder that `pipeline reward` leaves as \
                 `model`, or another …ForSequenceClassification with one label"
            ))
            .into());
        }
        Ok(Self { source: source.to_owned(), checkpoint })
    }

    /// Tokens that it reads at most: as many as are wanted, if it was made for so many.
    ///
    /// # Errors
    /// If its shape cannot be read.
    pub(crate) fn context(&self, wanted: usize) -> Result<usize> {
        Ok(wanted.min(self.checkpoint.config()?.context))
    }

    /// Where it is.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What tells its files from others of the same name.
    pub(crate) fn digest(&self) -> Result<BTreeMap<String, String>, BoxError> {
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
        let train = self.train.passes(rows);
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

/// What a pipeline's models begin with: a checkpoint, or a tokenizer and a language model of its own.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Where all randomness comes from.
    pub seed: u64,
    /// The checkpoint, if one is named.
    pub base: &'a BaseRecipe,
    /// How the tokenizer is trained otherwise.
    pub tokenizer: &'a TokenizerRecipe,
    /// The shape of the model; of a checkpoint its context and precision.
    pub model: Shape,
    /// How the model is pretrained.
    pub pretrain: TrainRecipe,
}

impl Start<'_> {
    /// The shape of the model that the run trains.
    ///
    /// # Errors
    /// If there is no such checkpoint.
    pub(crate) fn config(&self) -> Result<DecoderConfig> {
        let Some(source) = self.base.checkpoint() else { return Ok(self.model.config(self.tokenizer.vocab)) };
        let config = located(source).with_context(|| format!("--model {source}"))?.config()?;
        Ok(DecoderConfig { context: config.context.min(self.model.context), ..config })
    }

    /// What pretraining takes at most, where there is no checkpoint.
    pub(crate) fn work(&self, rows: usize) -> Result<Work> {
        if self.base.checkpoint().is_some() {
            return Ok(Work::default());
        }
        let (load, workers) = (Load::trained(&self.config()?, None), Workers::default().count());
        let sequences = rows * self.pretrain.passes;
        Ok(Work::training(&load, sequences, self.model.context, self.pretrain.micro_batch_size, workers))
    }

    /// Whether what is named is a reward model.
    ///
    /// # Errors
    /// If there is no such checkpoint.
    pub fn is_reward_model(&self) -> Result<bool> {
        let Some(source) = self.base.checkpoint() else { return Ok(false) };
        Ok(located(source).with_context(|| format!("--model {source}"))?.is_reward_model()?)
    }

    /// Adds the stages that make it; the text to learn from is that of `data`.
    ///
    /// # Errors
    /// If there is no such checkpoint.
    pub fn add(
        &self,
        p: &mut Pipeline<Env>,
        data: Output<Corpus>,
    ) -> Result<(Output<Vocabulary>, Output<LanguageModel>)> {
        let Shape { context, precision, .. } = self.model;
        Ok(match self.base.checkpoint() {
            Some(source) => {
                let base = Base::of(source)?;
                let context = base.context(context)?;
                let tokenizer = p.add("tokenizer", TakeTokenizer(base.clone()), ());
                (tokenizer, p.add("base", TakeModel { base, context, precision }, ()))
            }
            None => {
                let tokenizer = p.add("tokenizer", TrainTokenizer { vocab: self.tokenizer.vocab }, (data,));
                let pretrain = Pretrain { seed: self.seed, model: self.model, train: self.pretrain };
                (tokenizer, p.add("pretrain", pretrain, (data, tokenizer)))
            }
        })
    }
}
