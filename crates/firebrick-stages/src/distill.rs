//! Stages `teach` and `distill`: a prompt becomes part of a language model.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use burn::module::Module;
use firebrick_models::{Decoder, LoraConfig};
use firebrick_pipeline::{Artifact, BoxError, Output, Stage, StageContext};
use firebrick_stats::bootstrap_mean;
use firebrick_tensor::{ResponseBatch, kl};
use firebrick_text::Renderer;
use firebrick_train::distill::{Targets, distill, teach};
use firebrick_train::lm;
use firebrick_types::{Seed, TokenId};
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, Vocabulary, write_json};
use crate::language::{adapted, keep_decoder};
use crate::measurements::Measurements;
use crate::metrics::measured;
use crate::recipe::{DistilledRecipe, TrainRecipe};

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
                 at least {needed}, or lower `distill.max_tokens`, or take a shorter prompt",
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

/// Measures how near a student without the prompt is to the teacher behind it, on held-out text, before and after.
#[derive(Clone, Debug, Serialize)]
pub struct CompareDistilled {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Tokens that the models read at most.
    pub context: usize,
    /// Longest text, in tokens.
    pub max_tokens: usize,
    /// How it is measured.
    #[serde(flatten)]
    pub recipe: DistilledRecipe,
}

impl CompareDistilled {
    /// The divergence of the student from the teacher behind the prompt, the mean over the tokens of each text, in nats.
    fn divergences(
        &self,
        [teacher, student]: [&Decoder; 2],
        prompt: &[TokenId],
        texts: &[Vec<TokenId>],
        end: TokenId,
        env: &Env,
    ) -> Vec<f64> {
        let chunks = texts.chunks(self.recipe.micro_batch_size);
        let chunks = chunks.map(|chunk| (teacher.clone(), student.clone(), chunk)).collect();
        let behind = [&[end], prompt].concat();
        let means = env.workers.map(chunks, |(teacher, student, chunk): (Decoder, Decoder, &[Vec<TokenId>])| {
            let batch =
                |before: &[TokenId]| ResponseBatch::of(chunk.iter().map(|text| (before, &text[..])), &env.device);
            let (long, short) = (batch(&behind), batch(&behind[..1]));
            let divergence = kl(long.logits(&teacher, 1.0), short.logits(&student, 1.0));
            let mean = |text: &Vec<f32>| f64::from(text.iter().sum::<f32>()) / text.len() as f64;
            short.split_by_response(divergence).iter().map(mean).collect::<Vec<_>>()
        });
        means.into_iter().flatten().collect()
    }
}

impl Stage<Env> for CompareDistilled {
    const VERSION: u32 = 1;
    /// The last three are the teacher, the student as it began, and as it is.
    type Inputs =
        (Output<Corpus>, Output<Vocabulary>, Output<LanguageModel>, Output<LanguageModel>, Output<LanguageModel>);
    type Output = Measurements;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), teacher, before, after): (
            Corpus,
            Vocabulary,
            LanguageModel,
            LanguageModel,
            LanguageModel,
        ),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let prompt = renderer.passage(&corpus.prompt()?)?;
        let mut texts = corpus.held_out_text()?;
        texts.truncate(self.recipe.texts);
        let texts = texts.iter().map(|text| renderer.passage(text)).collect::<Result<Vec<_>, _>>()?;
        let cut = |mut text: Vec<TokenId>| {
            text.truncate(self.max_tokens);
            text
        };
        let texts = texts.into_iter().map(cut).filter(|text| !text.is_empty()).collect::<Vec<_>>();
        let load = |model: LanguageModel| model.load(&env.device);
        let (teacher, before, after) = (load(teacher)?, load(before)?, load(after)?);
        let mut metrics = Vec::new();
        for (name, student) in [("before", &before), ("after", &after)] {
            let values = self.divergences([&teacher, student], &prompt, &texts, renderer.end(), env);
            let mut rng = Seed::new(self.seed).derive("distill/bootstrap").rng();
            let interval = bootstrap_mean(&values, self.recipe.resamples, self.recipe.confidence, &mut rng)?;
            let divergence = measured(format!("distill/kl/{name}"), interval.estimate);
            metrics.push(divergence.interval(interval.low, interval.high));
        }
        for (name, student) in [("before", &before), ("after", &after)] {
            let by = self.recipe.micro_batch_size;
            let perplexity = lm::perplexity(student, &texts, renderer.end(), by, &env.workers);
            metrics.push(measured(format!("perplexity/{name}"), perplexity));
        }
        let [was, is] = [metrics[0].estimate, metrics[1].estimate];
        let verb = if is < was { "lowered" } else { "did NOT lower" };
        let remark = format!(
            "Distillation {verb} the divergence from the teacher behind the prompt: {was:.4} before, {is:.4} after, in nats a token \
             of held-out text."
        );
        let measurements = Measurements { metrics, remarks: vec![remark], ..Measurements::default() };
        write_json(&ctx.artifact().join(Measurements::FILE), &measurements)?;
        Ok(())
    }
}
