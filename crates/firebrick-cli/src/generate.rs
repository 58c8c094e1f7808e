//! `firebrick generate …`

use std::fs;
use std::io::{self, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use firebrick_models::Precision;
use firebrick_models::checkpoint::{GenerationConfig, Pretrained};
use firebrick_sampling::{Finish, Sampler};
use firebrick_serve::{Engine, Job, Limits, Piece, Update, random_seed, sampler};
use firebrick_stages::checkpoint::located;
use firebrick_tensor::Incremental;
use firebrick_types::{Dialogue, Message, Seed, TokenId};
use serde::Serialize;

use crate::device::On;
use crate::say::say;

pub(crate) const EXAMPLES: &str = "Examples:
  firebrick generate ./gpt2 --prompt 'The capital of France is' --max-tokens 8 --temperature 0
  firebrick generate model.gguf --chat --prompt 'Name three colours.' --stream
  firebrick generate runs/rlhf-world/09-ppo --prompt-file question.txt -n 4 --seed 7 --json
  firebrick generate model.gguf --ids 504,3575,282 --stop '.' --stop '?'
What is not set is as the checkpoint's generation settings say, then the model's own distribution; with --chat, where they say nothing,
temperature 0.7 and top-p 0.9. Temperature 0 and top-p 0 both take
the likeliest token. A sample ends with a token of the checkpoint that ends a text, before a stop string, with --max-tokens, or when the
context is full; a stop string that never comes ends nothing. Names of special tokens in a prompt count as these tokens. A prompt begins
as the tokenizer has it, for instance with <s>.";

/// Samples that grow side by side.
const SLOTS: usize = 64;

#[derive(Args)]
pub(crate) struct Generate {
    /// A folder of transformers, a stage of a pipeline's run, a .gguf file, or hub:OWNER/NAME.
    model: String,
    #[command(flatten)]
    prompt: Prompt,
    /// Take the prompt as a message to the model, in the checkpoint's chat template.
    #[arg(long, conflicts_with = "ids")]
    chat: bool,
    /// How many samples.
    #[arg(short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    n: u16,
    #[command(flatten)]
    settings: Settings,
    /// Print the text as it grows.
    #[arg(long, conflicts_with_all = ["json", "n"])]
    stream: bool,
    /// Print the samples' ids, texts, ends and log-probabilities under the model as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    way: Way,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Prompt {
    /// The text to continue.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the text to continue, in UTF-8.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// The token ids to continue, with commas between.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    ids: Option<Vec<TokenId>>,
}

/// How samples are drawn and when they end.
#[derive(Args)]
pub(crate) struct Settings {
    /// The longest sample, in tokens.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_tokens: usize,
    /// What logits are divided by; 0 takes the likeliest token.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draw only from so many of the likeliest tokens; 0 draws from all.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw only from the likeliest tokens that together reach this probability; 0 takes the likeliest token.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Draw only from tokens at least this fraction as likely as the likeliest.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f64>,
    /// What positive logits of tokens that were there before are divided by, and negative ones multiplied by.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    repetition_penalty: Option<f64>,
    /// A text that ends a sample and is none of it; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// The same number gives the same text; a random one where it is left out.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

/// What the command is executed with.
#[derive(Args)]
pub(crate) struct Way {
    #[command(flatten)]
    on: On,
    /// Cores that compute; all of them where it is left out. Texts do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Keep matrices once and as BF16 in memory, a quarter of what they take otherwise; rounded where the checkpoint's numbers
    /// are finer.
    #[arg(long)]
    half: bool,
    /// Round matrices and what they multiply to BF16: half the memory, and faster on processors with AMX or AVX-512's BF16.
    #[arg(long, conflicts_with = "half")]
    bf16: bool,
}

impl Way {
    /// Opens a checkpoint, and sets how many cores compute.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(&self, source: &str) -> Result<Pretrained> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads.map_or(0, usize::from));
        pool.build_global().context("the threads cannot be started; give fewer with --threads")?;
        let opened = located(source).and_then(|checkpoint| Ok(checkpoint.open(&self.on.device)?));
        let opened = opened.with_context(|| format!("`{source}` cannot be opened as a model with its tokenizer"))?;
        let model = match self {
            Self { half: true, .. } => opened.model.half_width(),
            Self { bf16: true, .. } => opened.model.half_width().in_precision(Precision::Bf16).prepacked(),
            _ => opened.model.prepacked(),
        };
        Ok(Pretrained { model, ..opened })
    }
}

impl Settings {
    /// The sampler that was asked for over that of the checkpoint.
    ///
    /// # Errors
    /// If a number is impossible.
    pub(crate) fn sampler(&self, generation: &GenerationConfig) -> Result<Sampler> {
        let defaults = sampler(generation);
        let sampler = Sampler {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            ..defaults
        };
        sampler.validate().context("the samples cannot be drawn")?;
        if self.stop.iter().any(String::is_empty) {
            bail!("--stop: the text is empty, so it would end nothing; leave it out");
        }
        Ok(sampler)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(random_seed)
    }
}

/// What a checkpoint says about its answers in a conversation; where it says nothing, the likelier part of its distribution: the
/// rest makes a small model lose the thread.
pub(crate) fn of_answers(generation: GenerationConfig) -> GenerationConfig {
    match generation {
        GenerationConfig { temperature: None, top_p: None, top_k: None, .. } => {
            GenerationConfig { temperature: Some(0.7), top_p: Some(0.9), ..generation }
        }
        said => said,
    }
}

/// Writes text without an end of line, at once.
///
/// # Errors
/// If nobody reads it any more.
pub(crate) fn show(text: &str) -> io::Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listed {
    model: String,
    seed: u64,
    prompt_ids: Vec<TokenId>,
    samples: Vec<Sample>,
}

/// A sample; what ended it is neither among its ids nor in its text.
#[derive(Serialize)]
struct Sample {
    text: String,
    ids: Vec<TokenId>,
    log_probs: Vec<Option<f32>>,
    finish: Option<Finish>,
}

/// # Errors
/// If the command cannot be carried out.
pub(crate) fn execute(command: &Generate) -> Result<ExitCode> {
    let Pretrained { name, model, config, renderer, generation } = command.way.open(&command.model)?;
    let generation = if command.chat { of_answers(generation) } else { generation };
    let sampler = command.settings.sampler(&generation)?;
    let prompt = command.prompt.text()?;
    let ids = match (prompt, &command.prompt.ids) {
        (Some(asked), _) if command.chat => renderer.prompt(&Dialogue::new(vec![Message::human(asked)]))?,
        (Some(begun), _) => renderer.text(&begun)?,
        (None, ids) => ids.clone().unwrap_or_default(),
    };
    let context = config.context;
    if ids.len() >= context {
        bail!("the prompt has {} tokens, and the context of {context} must hold an answer too; shorten it", ids.len());
    }
    let mut stops = command.settings.stop.clone();
    if command.chat {
        stops.extend(renderer.template().stops().iter().map(|&stop| stop.to_owned()));
    }
    let (samples, seed, max_tokens) = (usize::from(command.n), command.settings.seed(), command.settings.max_tokens);
    let context = context.min(ids.len().saturating_add(max_tokens));
    let limits = Limits { slots: samples.min(SLOTS), context, queue: 1 };
    let (device, ends) = (model.device(), renderer.turn_ends().tokens());
    let engine = Engine::start(model, device, renderer.tokenizer().clone(), limits);
    let mut updates = engine.submit(Job {
        prompts: vec![ids.clone()],
        samples,
        seed: Seed::new(seed),
        sampler,
        ends,
        stops,
        max_tokens,
        top_log_probs: 0,
        score_prompts: false,
    })?;
    let mut pieces = vec![Piece::default(); samples];
    while let Some(update) = updates.wait() {
        let Update::Piece { choice, piece: Piece { text, tokens, finish, .. } } = update else { continue };
        if command.stream && show(&text).is_err() {
            return Ok(ExitCode::SUCCESS);
        }
        pieces[choice].text.push_str(&text);
        pieces[choice].tokens.extend(tokens);
        pieces[choice].finish = finish;
    }
    if updates.failed() {
        bail!("the model failed while it answered; its weights may be damaged");
    }
    if command.json {
        let samples = pieces.into_iter().map(|Piece { text, tokens, finish, .. }| Sample {
            text,
            ids: tokens.iter().map(|token| token.id).collect(),
            log_probs: tokens.iter().map(|token| token.log_prob).collect(),
            finish,
        });
        let listed = Listed { model: name, seed, prompt_ids: ids, samples: samples.collect() };
        say(serde_json::to_string_pretty(&listed)?);
    } else if command.stream {
        say("");
    } else {
        for (index, piece) in pieces.iter().enumerate() {
            if samples > 1 {
                say(format_args!("--- sample {} of {samples}", index + 1));
            }
            say(&piece.text);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Prompt {
    /// The text to continue, where it is a text.
    fn text(&self) -> Result<Option<String>> {
        match &self.prompt_file {
            Some(file) => {
                let text = fs::read_to_string(file);
                Ok(Some(text.with_context(|| format!("cannot read {} as text", file.display()))?))
            }
            None => Ok(self.prompt.clone()),
        }
    }
}
