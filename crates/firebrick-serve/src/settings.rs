//! What both kinds of completions can be asked for.

use std::hash::{BuildHasher, RandomState};

use firebrick_models::checkpoint::GenerationConfig;
use firebrick_sampling::Sampler;
use firebrick_types::{Seed, TokenId};
use serde_json::Value;

use crate::Server;
use crate::fields::{Fields, wrong};
use crate::refusal::Refusal;

/// Samples of one request, over all its prompts.
pub(crate) const SAMPLES: usize = 128;

/// The most alternatives of a token that are told.
pub(crate) const TOP_LOG_PROBS: usize = 20;

/// Stop strings of one request, and the characters of each.
const STOPS: (usize, usize) = (4, 1000);

/// What both kinds of completions can be asked for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) sampler: Sampler,
    pub(crate) seed: Seed,
    pub(crate) samples: usize,
    pub(crate) stops: Vec<String>,
    pub(crate) stream: bool,
    pub(crate) stream_usage: bool,
}

/// The sampler that a checkpoint asks for; the model's own distribution where it says nothing.
pub fn sampler(generation: &GenerationConfig) -> Sampler {
    let plain = Sampler::default();
    Sampler {
        temperature: generation.temperature.unwrap_or(plain.temperature),
        top_p: generation.top_p.unwrap_or(plain.top_p),
        top_k: generation.top_k.unwrap_or(plain.top_k),
        repetition_penalty: generation.repetition_penalty.unwrap_or(plain.repetition_penalty),
        ..plain
    }
}

/// A seed for who wants another answer each time.
pub fn random_seed() -> u64 {
    // The standard library's tables have random keys.
    RandomState::new().hash_one(())
}

impl Settings {
    /// Reads them, and checks that the request is for this model.
    ///
    /// # Errors
    /// If a value is impossible, or the model is another.
    pub(crate) fn take(fields: &mut Fields, server: &Server) -> Result<Self, Refusal> {
        let model = fields.text("model")?.ok_or_else(|| fields.absent("model"))?;
        server.check_model(&model)?;
        let mut sampler = sampler(&server.generation);
        if let Some(temperature) = fields.number("temperature", 0.0..=2.0)? {
            sampler.temperature = temperature;
        }
        if let Some(top_p) = fields.number("top_p", 0.0..=1.0)? {
            sampler.top_p = top_p;
        }
        if let Some(top_k) = fields.count("top_k", 0..=usize::MAX)? {
            sampler.top_k = top_k;
        }
        if let Some(min_p) = fields.number("min_p", 0.0..=1.0)? {
            sampler.min_p = min_p;
        }
        if let Some(penalty) = fields.number("repetition_penalty", 0.01..=100.0)? {
            sampler.repetition_penalty = penalty;
        }
        let samples = fields.count("n", 1..=SAMPLES)?.unwrap_or(1);
        let stream = fields.flag("stream")?;
        Ok(Self {
            sampler,
            seed: seed(fields)?,
            samples,
            stops: stops(fields)?,
            stream,
            stream_usage: stream_usage(fields, stream)?,
        })
    }
}

/// Any whole number of 64 bits; a random one where there is none.
fn seed(fields: &mut Fields) -> Result<Seed, Refusal> {
    let Some(value) = fields.take("seed") else { return Ok(Seed::new(random_seed())) };
    let number = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    number.map(Seed::new).ok_or_else(|| fields.wrong("seed", &value, "a whole number of 64 bits"))
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let Some(value) = fields.take("stop") else { return Ok(Vec::new()) };
    let (most, longest) = STOPS;
    let fits = |stop: &Value| {
        let stop = stop.as_str().filter(|stop| !stop.is_empty() && stop.chars().count() <= longest)?;
        Some(stop.to_owned())
    };
    let stops = match &value {
        Value::Array(stops) if stops.len() <= most => stops.iter().map(fits).collect::<Option<Vec<_>>>(),
        Value::String(_) => fits(&value).map(|stop| vec![stop]),
        _ => None,
    };
    let expected = format!("a string, or up to {most}, of 1 to {longest} characters each");
    stops.ok_or_else(|| fields.wrong("stop", &value, &expected))
}

fn stream_usage(fields: &mut Fields, stream: bool) -> Result<bool, Refusal> {
    let Some(options) = fields.take("stream_options") else { return Ok(false) };
    if !stream {
        return Err(fields.wrong("stream_options", &options, "nothing where `stream` is not true"));
    }
    let mut options = Fields::inside(options, "stream_options")?;
    let usage = options.flag("include_usage")?;
    // Padding against who measures the length of packets: there is none.
    if options.flag("include_obfuscation")? {
        return Err(wrong("stream_options.include_obfuscation", &Value::Bool(true), "false"));
    }
    options.finish()?;
    Ok(usage)
}

/// How many tokens may be drawn after a prompt.
///
/// # Errors
/// If the context has no room for them.
pub(crate) fn room(
    prompt: &[TokenId],
    asked: Option<usize>,
    otherwise: usize,
    context: usize,
    param: &str,
) -> Result<usize, Refusal> {
    let tokens = prompt.len();
    let left = context.saturating_sub(tokens);
    let whole = format!("this model's maximum context length is {context} tokens");
    let message = match asked {
        _ if tokens > context => format!("{whole}, but the prompt has {tokens}; shorten it"),
        Some(asked) if asked > left => format!(
            "{whole}, but {} are requested: {tokens} in the prompt and {asked} for the completion; shorten the prompt or \
             ask for at most {left}",
            tokens.saturating_add(asked)
        ),
        None if left == 0 => format!("{whole}, and the prompt takes all of them; shorten it"),
        Some(asked) => return Ok(asked),
        None => return Ok(otherwise.min(left)),
    };
    Err(Refusal::invalid(Some(param), message).with_code("context_length_exceeded"))
}
