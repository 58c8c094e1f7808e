//! Stages `teach` and `distill`: a prompt becomes part of a language model.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use burn::module::Module;
use firebrick_models::LoraConfig;
use firebrick_pipeline::{Artifact, BoxError, Output, Stage, StageContext};
use firebrick_text::Renderer;
use firebrick_train::distill::{Targets, distill, teach};
use firebrick_types::{Seed, TokenId};
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, Vocabulary};
use crate::language::{adapted, keep_decoder};
use crate::recipe::TrainRecipe;

/// Texts, and what the teacher says of them behind the prompt.
pub struct Taught(Targets);

impl Taught {
    const FILE: &str = "targets.safetensors";
}

impl Artifact for Taught {
    const KIND: &'static str = "teacher targets";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        let path = folder.join(Self::FILE);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let targets = Targets::from_bytes(&bytes).map_err(|reason| anyhow!("{}: {reason}", path.display()))?;
        Ok(Self(targets))
    }
}

/// Reads texts behind the prompt, and keeps the teacher's likeliest tokens.
#[derive(Clone, Debug, Serialize)]
pub struct Teach {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Tokens that the models read at most.
    pub context: usize,
    /// Texts, half of them documents and half dialogues.
    pub texts: usize,
    /// Longest text, in tokens.
    pub max_tokens: usize,
    /// Tokens of the teacher's distribution that are kept.
    pub top_k: usize,
    /// Texts computed at a time.
    pub micro_batch_size: usize,
}

impl Teach {
    /// Half documents, half dialogues, each as many tokens as fit.
    fn texts(&self, corpus: &Corpus, renderer: &Renderer, seed: Seed) -> Result<Vec<Vec<TokenId>>> {
        let take = |mut texts: Vec<String>, count: usize, name: &str| {
            texts.shuffle(&mut seed.derive(name).rng());
            texts.truncate(count);
            texts
        };
        let dialogues = take(corpus.dialogues()?, self.texts / 2, "dialogues");
        let documents = take(corpus.train_text()?, self.texts - dialogues.len(), "documents");
        let cut = |mut tokens: Vec<TokenId>| {
            tokens.truncate(self.max_tokens);
            tokens
        };
        let dialogues = dialogues.iter().map(|text| Ok(cut(renderer.passage(text)?)));
        let documents = documents.iter().map(|text| Ok(cut(renderer.document(text)?)));
        dialogues.chain(documents).collect()
    }
}

impl Stage<Env> for Teach {
    const VERSION: u32 = 1;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<LanguageModel>);
    type Output = Taught;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), teacher): (Corpus, Vocabulary, LanguageModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/distill");
        let prompt = renderer.passage(&corpus.prompt()?)?;
        let needed = prompt.len() + 1 + self.max_tokens;
        if needed > self.context {
            return Err(anyhow!(
                "the prompt of {} tokens and a text of `distill.max_tokens` = {} do not fit `model.context` = {}; raise it to \
                 at least {needed}, or lower `distill.max_tokens`, or give a shorter prompt (`data.prompt_conversations`)",
                prompt.len(),
                self.max_tokens,
                self.context
            )
            .into());
        }
        let texts = self.texts(&corpus, &renderer, seed)?;
        let teacher = teacher.load(&env.device)?;
        let sizes = [self.top_k, self.micro_batch_size];
        let targets = teach(&teacher, &prompt, &texts, renderer.end(), sizes, env.run(ctx, seed))?;
        let path = ctx.artifact().join(Taught::FILE);
        fs::write(&path, targets.to_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}

/// Learns to say without the prompt what the teacher says behind it.
#[derive(Clone, Debug, Serialize)]
pub struct Distill {
    /// Where all randomness comes from.
    pub seed: u64,
    /// How the student is adapted, unless all of its weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The optimiser; samples are texts.
    pub train: TrainRecipe,
}

impl Stage<Env> for Distill {
    const VERSION: u32 = 4;
    type Inputs = (Output<Taught>, Output<Vocabulary>, Output<LanguageModel>);
    type Output = LanguageModel;

    fn run(
        &self,
        (Taught(targets), Vocabulary(renderer), student): (Taught, Vocabulary, LanguageModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("hh/distill");
        let config = self.train.passes(targets.texts().len());
        let (student, shape) = student.load_with_config(&env.device.clone().autodiff())?;
        let student = adapted(student, self.lora, seed);
        let model = distill(student, &targets, renderer.end(), &config, env.run(ctx, seed))?;
        keep_decoder(&model.valid().merged(), &shape, ctx)?;
        Ok(())
    }
}
