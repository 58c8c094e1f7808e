//! Stage `sft`: supervised finetuning on conversations, completions or text, and what it changed.

use anyhow::{Result, anyhow};
use burn::module::Module;
use firebrick_models::{Decoder, LoraConfig};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_sampling::{Sampler, Stop, generate};
use firebrick_stats::bootstrap_weighted_mean;
use firebrick_tensor::{CausalLm, Incremental};
use firebrick_text::{Counted, Masked, Renderer, dialogue};
use firebrick_train::sft::{HeldOut, Sample, held_out, train};
use firebrick_types::{Example, Measured, Seed};
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, Vocabulary, write_json};
use crate::language::{adapted, keep_decoder};
use crate::measurements::{Answer, Exchange, Measurements, Table};
use crate::metrics::measured;
use crate::recipe::{ProbeRecipe, SftEvaluateRecipe, SftRecipe};

/// What was lost while rows became samples.
#[derive(Default)]
struct Lost {
    /// Rows that were cut to the context.
    cut: usize,
    /// Turns of the assistant that the template changes.
    turns: usize,
}

/// Rows as tokens with the marks of those that are learnt.
///
/// A conversation is cut at its beginning, so that the last answer stays (T-12), a text at its end.
fn samples(rows: &[Example], counted: Counted, renderer: &Renderer, context: usize) -> Result<(Vec<Sample>, Lost)> {
    let mut lost = Lost::default();
    let mut sample = |row: &Example| {
        let Masked { mut tokens, mut counted, left_out } = renderer.example(row, counted)?;
        let surplus = tokens.len().saturating_sub(context);
        lost.cut += usize::from(surplus > 0);
        lost.turns += left_out;
        if let Example::Conversation(_) = row {
            tokens.drain(..surplus);
            counted.drain(..surplus);
        }
        Ok(Sample::new(tokens, counted).cut(context))
    };
    let samples = rows.iter().map(&mut sample).collect::<Result<_>>()?;
    Ok((samples, lost))
}

/// Finetunes a language model on the tokens that count.
#[derive(Clone, Debug, Serialize)]
pub struct Sft {
    /// Where all randomness comes from.
    pub seed: u64,
    /// How it is adapted, unless all of its weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How it learns.
    #[serde(flatten)]
    pub recipe: SftRecipe,
}

impl Stage<Env> for Sft {
    const VERSION: u32 = 1;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<LanguageModel>);
    type Output = LanguageModel;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), base): (Corpus, Vocabulary, LanguageModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let seed = Seed::new(self.seed).derive("sft");
        let counted = self.recipe.counted();
        let (model, shape) = base.load_with_config(&env.device.clone().autodiff())?;
        let (rows, Lost { cut, turns }) = samples(&corpus.train_examples()?, counted, &renderer, shape.context)?;
        let (mut held_out_rows, _) = samples(&corpus.held_out_examples()?, counted, &renderer, shape.context)?;
        if cut > 0 {
            tracing::warn!(
                "{cut} of {} rows are longer than `model.context` = {} and are cut, conversations at their beginning",
                rows.len(),
                shape.context
            );
        }
        if turns > 0 {
            tracing::warn!(
                "{turns} earlier turns of the assistant are not learnt: the chat template does not leave them as they were said"
            );
        }
        let passes = self.recipe.train.passes(rows.len());
        let (ProbeRecipe { every, samples }, micro_batch_size) = (self.recipe.probe, passes.micro_batch_size);
        held_out_rows.truncate(samples);
        let run = env.run(ctx, seed);
        let run = match (every, &held_out_rows[..]) {
            (0, _) | (_, []) => run,
            (every, rows) => run.probe(every, move |model: &Decoder| {
                let found = held_out(&model.valid(), rows, micro_batch_size, &env.workers);
                let values = [("eval_loss", found.loss()), ("eval_mean_token_accuracy", found.accuracy())];
                Ok(values.map(|(name, value)| (name.to_owned(), value)).into())
            }),
        };
        let model = train(adapted(model, self.lora, seed), &rows, &passes, run)?;
        keep_decoder(&model.valid().merged(), &shape, ctx)?;
        Ok(())
    }
}

/// Measures a language model before and after finetuning: the loss on held-out rows, and what it answers.
#[derive(Clone, Debug, Serialize)]
pub struct CompareSft {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Which tokens count.
    pub all_tokens: bool,
    /// How it is measured.
    #[serde(flatten)]
    pub recipe: SftEvaluateRecipe,
}

impl CompareSft {
    /// The mean loss a token, with the interval that resampling rows gives.
    fn loss(&self, name: &str, found: &HeldOut) -> Result<Measured> {
        let mut rng = Seed::new(self.seed).derive("sft/bootstrap").rng();
        let CompareSft { recipe: SftEvaluateRecipe { resamples, confidence, .. }, .. } = *self;
        let weights = found.tokens.iter().map(|&tokens| tokens as f64).collect::<Vec<_>>();
        let interval = bootstrap_weighted_mean(&found.losses, &weights, resamples, confidence, &mut rng)?;
        Ok(measured(name, interval.estimate).interval(interval.low, interval.high))
    }

    /// What the models answer to the beginnings of held-out conversations.
    fn exchanges(&self, rows: &[Example], renderer: &Renderer, models: &[(&str, &Decoder)]) -> Result<Vec<Exchange>> {
        let format = renderer.response_format();
        let stop = Stop::of(&format, self.recipe.max_response_tokens);
        let sampler = Sampler { temperature: self.recipe.temperature, ..Sampler::default() };
        let asked = rows.iter().filter_map(|row| match row {
            Example::Conversation(dialogue) => {
                let mut asked = dialogue.clone();
                asked.messages.pop().map(|_| asked)
            }
            Example::Text(_) => None,
        });
        let asked = asked.take(self.recipe.shown).map(|asked| Ok((renderer.prompt(&asked)?, asked)));
        let asked = asked.collect::<Result<Vec<_>>>()?;
        let room = models.iter().map(|(_, model)| model.context()).min().unwrap_or(0);
        let asked = asked.into_iter().filter(|(tokens, _)| tokens.len() + self.recipe.max_response_tokens < room);
        let (prompts, dialogues): (Vec<_>, Vec<_>) = asked.unzip();
        let seed = Seed::new(self.seed).derive("sft/shown");
        let seeds = (0..prompts.len() as u64).map(|index| seed.at(&[index])).collect::<Vec<_>>();
        let mut exchanges = dialogues
            .iter()
            .map(|asked| Exchange { prompt: dialogue::render(asked).trim().to_owned(), answers: Vec::new() })
            .collect::<Vec<_>>();
        for (name, model) in models {
            let model = (*model).clone().prepacked();
            for (exchange, sample) in exchanges.iter_mut().zip(generate(&model, &prompts, &seeds, &sampler, &stop)) {
                let text = format.text(&sample.tokens).trim().to_owned();
                exchange.answers.push(Answer { model: (*name).to_owned(), text, scores: Vec::new() });
            }
        }
        Ok(exchanges)
    }
}

impl Stage<Env> for CompareSft {
    const VERSION: u32 = 1;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<LanguageModel>, Output<LanguageModel>);
    type Output = Measurements;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), before, after): (Corpus, Vocabulary, LanguageModel, LanguageModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let counted = if self.all_tokens { Counted::All } else { Counted::Assistant };
        let rows = corpus.held_out_examples()?;
        let (before, after) = (before.load(&env.device)?, after.load(&env.device)?);
        let (samples, _) = samples(&rows, counted, &renderer, before.context().min(after.context()))?;
        let measure = |model: &Decoder| held_out(model, &samples, self.recipe.micro_batch_size, &env.workers);
        let found = [measure(&before), measure(&after)];
        if found[0].tokens.is_empty() {
            return Err(anyhow!("of no held-out row anything counts within the context; raise `model.context`").into());
        }
        let mut metrics = Vec::new();
        for (name, found) in ["before", "after"].into_iter().zip(&found) {
            metrics.push(self.loss(&format!("eval_loss/{name}"), found)?);
            metrics.push(measured(format!("eval_perplexity/{name}"), found.loss().exp()));
            metrics.push(measured(format!("eval_mean_token_accuracy/{name}"), found.accuracy()));
        }
        let counts = [("rows", found[0].losses.len()), ("tokens that count", found[0].tokens.iter().sum())];
        let row = |(name, count): (&str, usize)| vec![name.to_owned(), count.to_string()];
        let tables = vec![Table {
            caption: "Held out".to_owned(),
            columns: ["", "count"].map(str::to_owned).into(),
            rows: counts.map(row).into(),
        }];
        let [before_loss, after_loss] = [0, 1].map(|index: usize| found[index].loss());
        let remark = if after_loss < before_loss {
            format!("Finetuning lowered the held-out loss from {before_loss:.3} to {after_loss:.3} nats a token.")
        } else {
            format!(
                "Finetuning did NOT lower the held-out loss: {before_loss:.3} before, {after_loss:.3} after, in nats a token; \
                 take fewer passes, a lower `sft.train.learning_rate`, or more data."
            )
        };
        let exchanges = self.exchanges(&rows, &renderer, &[("before", &before), ("after", &after)])?;
        let measurements = Measurements { metrics, tables, exchanges, remarks: vec![remark], plots: Vec::new() };
        write_json(&ctx.artifact().join(Measurements::FILE), &measurements)?;
        Ok(())
    }
}
