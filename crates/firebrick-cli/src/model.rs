//! `firebrick model …`

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use clap::{Args, Subcommand, ValueEnum};
use firebrick_models::checkpoint::{Checkpoint, Text, save, save_gguf, save_reward_model};
use firebrick_models::{Architecture, Decoder, DecoderConfig, FeedForward, GgufFormat, Norm, Positions, RotaryScaling};
use firebrick_stages::checkpoint::located;
use firebrick_tensor::{ParameterVisitor, Parameters, TokenBatch, visit_parameters};
use firebrick_text::{Renderer, Tokenizer, TurnEnd};
use firebrick_train::lm::token_losses;
use firebrick_types::TokenId;
use serde::Serialize;

use crate::device::On;
use crate::say::{remark, say};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Say what a checkpoint holds and how much memory it takes to use and to train.
    #[command(after_help = INFO)]
    Info(Info),
    /// Write a checkpoint for other programs, with its tokenizer and chat template: a folder that transformers loads, or a .gguf file that
    /// llama.cpp loads.
    #[command(after_help = CONVERT)]
    Convert(Convert),
    /// Print the log-probability of each token of a text, in nats, as JSON.
    #[command(after_help = LOGPROBS)]
    Logprobs(Logprobs),
}

const INFO: &str = "Examples:
  firebrick model info SmolLM2-135M-Instruct.Q4_1.gguf       a GGUF file
  firebrick model info runs/rlhf-world/09-ppo                  what a stage of a run has made
  firebrick model info hub:HuggingFaceTB/SmolLM2-135M        from the Hugging Face Hub
  firebrick model info ./gpt2 --lora-rank 64                 memory with adapters of another rank";

const CONVERT: &str = "Examples:
  firebrick model convert SmolLM2-135M-Instruct.Q4_1.gguf smollm2    from GGUF, its numbers widened to 32 bits
  firebrick model convert runs/rlhf-world/09-ppo aligned                what a run has made
  firebrick model convert hub:openai-community/gpt2 gpt2             from the Hugging Face Hub
  firebrick model convert runs/rlhf-world/07-pm-train judge          a reward model, for sequence classification
  firebrick model convert aligned aligned.gguf --format bf16         one file, for llama.cpp
Then, in Python:
  AutoModelForCausalLM.from_pretrained(\"smollm2\"), AutoTokenizer.from_pretrained(\"smollm2\")
  AutoModelForSequenceClassification.from_pretrained(\"judge\")      scores what apply_chat_template renders
and in a shell:
  llama-cli --model aligned.gguf";

const LOGPROBS: &str = "Examples:
  firebrick model logprobs ./gpt2 --text 'The capital of France is Paris'
  firebrick model logprobs model.gguf --ids 504,3575,282,4649,314
  firebrick model logprobs runs/rlhf-world/09-ppo --file answer.txt
The first token has no log-probability: nothing stands before it.
Names of special tokens in a text count as these tokens. A text begins as the tokenizer has it, for instance with <s>.";

#[derive(Args)]
pub(crate) struct Info {
    /// A folder of transformers, a stage of a pipeline's run, a .gguf file, or hub:OWNER/NAME.
    source: String,
    /// The rank of the adapters that memory with LoRA is told for.
    #[arg(long, value_name = "RANK", default_value_t = 16)]
    lora_rank: usize,
}

#[derive(Args)]
pub(crate) struct Convert {
    /// A folder of transformers, a stage of a pipeline's run, a .gguf file, or hub:OWNER/NAME.
    source: String,
    /// The folder to write, which must not exist, or be empty; or a file that ends in .gguf, which must not exist.
    out: PathBuf,
    /// What the numbers of a .gguf file's matrices are rounded to [default: f32].
    #[arg(long)]
    format: Option<Format>,
}

/// Number formats of a .gguf file.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    F32,
    F16,
    Bf16,
}

#[derive(Args)]
pub(crate) struct Logprobs {
    /// A folder of transformers, a stage of a pipeline's run, a .gguf file, or hub:OWNER/NAME.
    source: String,
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    on: On,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Given {
    /// A text.
    #[arg(long, allow_hyphen_values = true)]
    text: Option<String>,
    /// Token ids, with commas between.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    ids: Option<Vec<TokenId>>,
    /// A file of text in UTF-8.
    #[arg(long)]
    file: Option<PathBuf>,
}

/// # Errors
/// If the command cannot be carried out.
pub(crate) fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Info(Info { source, lora_rank }) => info(&source, lora_rank)?,
        Command::Convert(given) => convert(&given)?,
        Command::Logprobs(Logprobs { source, given, on }) => {
            let listed = log_probs(&source, &given, &on.device)?;
            say(serde_json::to_string_pretty(&listed)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A checkpoint, with a tokenizer or without.
struct Opened {
    checkpoint: Checkpoint,
    model: Decoder,
    config: DecoderConfig,
    text: Option<Text>,
}

fn open(source: &str, device: &Device) -> Result<Opened> {
    let checkpoint = located(source)?;
    let (model, config) = checkpoint.model(device)?;
    let text = checkpoint.text(config.vocab)?;
    Ok(Opened { checkpoint, model, config, text })
}

fn convert(Convert { source, out, format }: &Convert) -> Result<()> {
    let checkpoint = located(source)?;
    let is_gguf = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
    if let (Some(_), false) = (format, is_gguf) {
        bail!("--format is of .gguf files, and {} is a folder, whose numbers are F32; leave it out", out.display());
    }
    let text = if checkpoint.is_reward_model()? {
        if is_gguf {
            bail!(
                "{} is a reward model, and a .gguf file holds a language model; name a folder to write",
                checkpoint.path().display()
            );
        }
        let (model, config) = checkpoint.reward_model(&Device::flex())?;
        let text = checkpoint.text(config.vocab)?;
        let parameters = Parameters::of(&model);
        let bias = parameters.get("head.bias").map_or(0.0, |(_, values)| values[0]);
        save_reward_model(&model.without_bias(), &config, text.as_ref(), out)?;
        if bias != 0.0 {
            remark(format_args!(
                "note: each score is {bias} less there, what the head adds to all: classes of transformers have no such number, and \
                 preferences do not depend on it"
            ));
        }
        text
    } else {
        let Opened { model, config, text, .. } = open(source, &Device::flex())?;
        match (is_gguf, &text) {
            (false, text) => save(&model, &config, text.as_ref(), out)?,
            (true, None) => bail!(
                "{} has no tokenizer, which a .gguf file carries; put `tokenizer.json` beside its weights, or write a folder",
                checkpoint.path().display()
            ),
            (true, Some(text)) => {
                let format = match format.unwrap_or(Format::F32) {
                    Format::F32 => GgufFormat::F32,
                    Format::F16 => GgufFormat::F16,
                    Format::Bf16 => GgufFormat::Bf16,
                };
                save_gguf(&model, &config, text, format, out)?;
                if config.architecture.feed_forward == FeedForward::Gelu {
                    remark(
                        "warning: llama.cpp computes GELU by tanh, so its numbers differ a little from those of this model",
                    );
                }
            }
        }
        text
    };
    if text.is_none() {
        remark(format_args!("warning: {source} has no tokenizer, so {} has none either", out.display()));
    }
    say(out.display());
    Ok(())
}

/// A text's tokens with their log-probabilities.
#[derive(Serialize)]
struct Listed {
    model: String,
    tokens: Vec<Token>,
    /// The sum over all tokens but the first.
    log_prob: f64,
}

#[derive(Serialize)]
struct Token {
    id: TokenId,
    /// None where the checkpoint has no tokenizer.
    text: Option<String>,
    /// None of the first token.
    log_prob: Option<f32>,
}

fn log_probs(source: &str, given: &Given, device: &Device) -> Result<Listed> {
    let Opened { checkpoint, model, config, text } = open(source, device)?;
    let renderer = text.as_ref().map(|text| &text.renderer);
    let tokenizer = renderer.map(Renderer::tokenizer);
    let encode = |given: &str| {
        // What every text begins with is not worth a score by itself.
        if given.is_empty() {
            return Ok(Vec::new());
        }
        let none = || format!("{} has no tokenizer; give token ids by --ids", checkpoint.path().display());
        Ok::<_, anyhow::Error>(renderer.with_context(none)?.text(given)?)
    };
    let ids = match given {
        Given { ids: Some(ids), .. } => ids.clone(),
        Given { text: Some(text), .. } => encode(text)?,
        Given { file: Some(file), .. } => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {} as text", file.display()))?;
            encode(&text)?
        }
        Given { .. } => unreachable!("one of the three is required"),
    };
    if ids.is_empty() {
        bail!("there is no token to score; give a text or ids that are not empty");
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab) {
        bail!("--ids: {id} is no token; the vocabulary has {}, counted from 0", config.vocab);
    }
    if ids.len() > config.context {
        bail!("{} tokens do not fit the context of {}; give less", ids.len(), config.context);
    }
    let found = score(&model, &ids);
    let tokens = ids.iter().enumerate().map(|(position, &id)| Token {
        id,
        text: tokenizer.map(|tokenizer| tokenizer.token_text(id)),
        log_prob: position.checked_sub(1).map(|before| found[before]),
    });
    Ok(Listed {
        model: checkpoint.name().to_owned(),
        tokens: tokens.collect(),
        log_prob: found.iter().map(|&log_prob| f64::from(log_prob)).sum(),
    })
}

/// The log-probability of each token but the first.
fn score(model: &Decoder, ids: &[TokenId]) -> Vec<f32> {
    if ids.len() < 2 {
        return Vec::new();
    }
    let losses = token_losses(model, &TokenBatch::of(&[ids], &model.device()));
    losses.neg().into_data().try_to_vec().expect("log-probabilities are f32")
}

fn info(source: &str, rank: usize) -> Result<()> {
    let checkpoint = located(source)?;
    let is_reward_model = checkpoint.is_reward_model()?;
    let (model, config) = if is_reward_model {
        let (model, config) = checkpoint.reward_model(&Device::flex())?;
        (model.body().clone(), config)
    } else {
        checkpoint.model(&Device::flex())?
    };
    let text = checkpoint.text(config.vocab)?;
    let formats = checkpoint.formats()?;
    let line = |name: &str, what: &str| say(format_args!("{name:<14}{what}"));
    line("name", checkpoint.name());
    line("source", &format!("{} ({})", checkpoint.path().display(), checkpoint.kind()));
    line("architecture", &architecture(&config));
    line("shape", &shape(&config));
    if is_reward_model {
        line(
            "head",
            &format!("a score, of {} numbers and a bias, which are not counted below", grouped(config.d_model)),
        );
    }
    let counts = Counts::of(&model);
    line("parameters", &grouped(counts.all()));
    for (part, count) in &counts.parts {
        line("", &format!("{part:<14}{:>16}", grouped(*count)));
    }
    let widened = if formats.keys().all(|format| format == "F32") { "" } else { "; read as F32" };
    let formats = formats.iter().map(|(format, count)| format!("{} {format}", grouped(*count)));
    line("precision", &format!("{}{widened}", formats.collect::<Vec<_>>().join(", ")));
    match &text {
        None => line("tokenizer", "none: put tokenizer.json beside the weights, or give token ids"),
        Some(text) => tell(text, &line),
    }
    say("");
    memory(&config, &counts, rank);
    Ok(())
}

/// The lines about a tokenizer and what comes with it.
fn tell(Text { renderer, generation }: &Text, line: &dyn Fn(&str, &str)) {
    let (tokenizer, template, turn_ends) = (renderer.tokenizer(), renderer.template(), renderer.turn_ends());
    line(
        "tokenizer",
        &format!("{} tokens, end of context {}", grouped(tokenizer.vocab_size()), named(tokenizer, tokenizer.eoc())),
    );
    line("chat template", if template.is_dialogue() { "Firebrick's dialogue form" } else { "the checkpoint's own" });
    let ends = turn_ends.tokens().iter().map(|&id| named(tokenizer, id)).collect::<Vec<_>>().join(", ");
    let numbers = [
        ("temperature", generation.temperature),
        ("top_p", generation.top_p),
        ("top_k", generation.top_k.map(|count| count as f64)),
        ("repetition_penalty", generation.repetition_penalty),
    ];
    let numbers = numbers.iter().filter_map(|(key, number)| Some(format!("; {key} {}", (*number)?)));
    line("generation", &format!("ends with {ends}{}", numbers.collect::<String>()));
    for (index, TurnEnd { token, sources }) in turn_ends.iter().enumerate() {
        let sources = sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let written = if index == 0 { ", written behind answers" } else { "" };
        line(if index == 0 { "turn ends" } else { "" }, &format!("{}{written}: {sources}", named(tokenizer, *token)));
    }
}

fn named(tokenizer: &Tokenizer, id: TokenId) -> String {
    format!("{} ({id})", tokenizer.token_text(id))
}

/// What the blocks are made of, in words.
fn architecture(config: &DecoderConfig) -> String {
    let Architecture { positions, norm, norm_epsilon, feed_forward, parallel_residual, biases, tied, .. } =
        config.architecture;
    let positions = match positions {
        Positions::Learned => "learned positions".to_owned(),
        Positions::Rotary(rotary) => {
            let scaling = match rotary.scaling {
                RotaryScaling::None => String::new(),
                RotaryScaling::Linear { factor } => format!(", stretched by {factor}"),
                RotaryScaling::Llama3 { factor, .. } => format!(", stretched by {factor} as Llama 3's"),
            };
            format!("rotary positions of base {} over {} of {}{scaling}", rotary.theta, rotary.dims, config.d_head())
        }
    };
    let norm = match norm {
        Norm::Layer => "layer norm",
        Norm::Rms => "RMS norm",
    };
    let unit = match feed_forward {
        FeedForward::Gelu => "GELU",
        FeedForward::GeluTanh => "GELU by tanh",
        FeedForward::Swiglu => "SwiGLU",
    };
    let biases = [
        (biases.qkv, "queries, keys and values"),
        (biases.attention, "attention"),
        (biases.feed_forward, "feed-forward"),
    ];
    let biases = biases.iter().filter_map(|(there, part)| there.then_some(*part)).collect::<Vec<_>>();
    let biases = if biases.is_empty() { "no biases".to_owned() } else { format!("biases of {}", biases.join(", ")) };
    let order = if parallel_residual { "parallel blocks" } else { "serial blocks" };
    let output = if tied { "tied output" } else { "output of its own" };
    format!("{positions}; {norm} (ε {:e}); {unit}; {order}; {biases}; {output}", norm_epsilon as f32)
}

fn shape(config: &DecoderConfig) -> String {
    let heads = config.heads();
    let kept = if heads.key_value == heads.query {
        String::new()
    } else {
        format!(", {} of keys and values", heads.key_value)
    };
    format!(
        "{} layers of width {}, {} heads of {}{kept}, feed-forward {}, context {}, vocabulary {}",
        config.n_layer,
        config.d_model,
        heads.query,
        config.d_head(),
        config.d_ff,
        config.context,
        config.vocab
    )
}

/// Parameters by part, and the inputs and outputs of the maps that adapters stand beside.
#[derive(Default)]
struct Counts {
    parts: BTreeMap<&'static str, usize>,
    /// Of every linear map inside a block, inputs plus outputs.
    sides: usize,
}

impl Counts {
    fn of(model: &Decoder) -> Self {
        let mut counts = Self::default();
        visit_parameters(model, &mut counts);
        counts
    }

    fn all(&self) -> usize {
        self.parts.values().sum()
    }
}

impl ParameterVisitor for Counts {
    fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
        let dims = parameter.val().dims();
        let within = |wanted: &str| name.split('.').any(|part| part == wanted);
        let part = match () {
            () if within("wte") => "embedding",
            () if within("wpe") => "positions",
            () if within("attn") => "attention",
            () if within("mlp") => "feed-forward",
            () if within("lm_head") => "output",
            () => "norms",
        };
        if D == 2 && within("blocks") {
            self.sides += dims.iter().sum::<usize>();
        }
        *self.parts.entry(part).or_default() += dims.iter().product::<usize>();
    }
}

/// The memory of weights, gradients and moments; what a pass keeps for its gradients depends on the batch and comes on top.
fn memory(config: &DecoderConfig, counts: &Counts, rank: usize) {
    let (all, adapters) = (counts.all() as f64, (rank * counts.sides) as f64);
    let trained =
        |parameters: f64| Parts { weights: 4.0 * parameters, gradients: 4.0 * parameters, moments: 8.0 * parameters };
    let frozen = |parameters: f64| Parts { weights: 4.0 * parameters, ..Parts::default() };
    let with_adapters = frozen(all) + trained(adapters);
    let cache = 2 * config.n_layer * config.heads().key_value * config.d_head() * 4;
    say(format_args!(
        "weights       {} as F32, {} as BF16; a conversation's cache {} a token, {} at {} tokens",
        bytes(4.0 * all),
        bytes(2.0 * all),
        bytes(cache as f64),
        bytes((cache * config.context) as f64),
        config.context
    ));
    say(format_args!(
        "adapters      {} parameters of rank {rank} beside every map of every block",
        grouped(adapters as usize)
    ));
    say("");
    say("memory as F32, without what a pass keeps for its gradients, which grows with the batch:");
    say(format_args!("{:<34}{:>10}{:>11}{:>10}{:>10}", "", "weights", "gradients", "moments", "in all"));
    let row = |name: &str, parts: Parts| {
        say(format_args!(
            "{name:<34}{:>10}{:>11}{:>10}{:>10}",
            bytes(parts.weights),
            bytes(parts.gradients),
            bytes(parts.moments),
            bytes(parts.weights + parts.gradients + parts.moments)
        ));
    };
    row("inference", frozen(all));
    row("language modeling, preferences", trained(all));
    row("  with LoRA", with_adapters);
    row("PPO: policy, critic, reward, ref.", trained(all) + trained(all) + frozen(all) + frozen(all));
    row("  with LoRA, whose base refers", with_adapters + with_adapters + frozen(all));
}

/// Bytes of what a stage holds.
#[derive(Clone, Copy, Default)]
struct Parts {
    weights: f64,
    gradients: f64,
    moments: f64,
}

impl std::ops::Add for Parts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            weights: self.weights + other.weights,
            gradients: self.gradients + other.gradients,
            moments: self.moments + other.moments,
        }
    }
}

/// A size in the largest unit of which there is at least one.
fn bytes(count: f64) -> String {
    let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match units.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", count / size),
        None => format!("{count} B"),
    }
}

/// A number with a space between groups of three digits.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits are text"));
    groups.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(["0", "999", "1 000", "134 515 008"], [0, 999, 1000, 134_515_008].map(grouped)[..]);
        assert_eq!(["12 B", "1.5 kB", "538.1 MB"], [12.0, 1500.0, 538_060_032.0].map(bytes)[..]);
    }

    #[test]
    fn parameters_are_counted_by_part() {
        let config = DecoderConfig { heads: 4, d_model: 32, d_ff: 64, ..DecoderConfig::family(2, 16, 20) };
        let counts = Counts::of(&config.init(firebrick_types::Seed::new(1), &Device::flex()));
        // Attention: 32 · 96 + 96 + 32 · 32 + 32; feed-forward: 32 · 64 + 64 + 64 · 32 + 32; norms: two of 64 a block, one at the end.
        let expected = [
            ("attention", 2 * 4224),
            ("embedding", 640),
            ("feed-forward", 2 * 4192),
            ("norms", 5 * 64),
            ("positions", 512),
        ];
        assert_eq!(counts.parts, BTreeMap::from(expected));
        assert_eq!(counts.sides, 2 * (32 + 96 + 32 + 32 + 32 + 64 + 64 + 32));
    }
}
