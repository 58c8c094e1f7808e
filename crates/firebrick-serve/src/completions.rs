//! `/v1/completions`: text after a prompt.

use firebrick_types::TokenId;
use serde_json::Value;

use crate::answer::{Asked, Form};
use crate::fields::{Fields, wrong};
use crate::refusal::Refusal;
use crate::settings::{SAMPLES, Settings, TOP_LOG_PROBS, room};
use crate::{Job, Server};

/// The tokens of a completion where nothing is said, as OpenAI has it.
const MAX_TOKENS: usize = 16;

/// Hands what a request asks for to the engine.
///
/// # Errors
/// If the request asks for something that cannot be, or the queue is full.
pub(crate) fn ask(server: &Server, body: &[u8]) -> Result<Asked, Refusal> {
    let mut fields = Fields::parse(body)?;
    let settings = Settings::take(&mut fields, server)?;
    let prompts = prompts(&mut fields, server)?;
    let max_tokens = fields.count("max_tokens", 0..=usize::MAX)?;
    let log_probs = match fields.take("logprobs") {
        None | Some(Value::Bool(false)) => None,
        Some(value) => {
            let count = value.as_u64().filter(|&count| count <= TOP_LOG_PROBS as u64);
            let expected = || fields.wrong("logprobs", &value, &format!("a whole number from 0 to {TOP_LOG_PROBS}"));
            Some(count.ok_or_else(expected)? as usize)
        }
    };
    let echo = fields.flag("echo")?;
    let samples = settings.samples;
    if let Some(best_of) = fields.count("best_of", 1..=usize::MAX)?.filter(|&best_of| best_of != samples) {
        return Err(wrong("best_of", &best_of.into(), "as many as `n`: all samples are returned"));
    }
    fields.finish()?;
    if prompts.len() * samples > SAMPLES {
        let message = format!(
            "{} prompts with {samples} samples each are more than {SAMPLES}; send several requests",
            prompts.len()
        );
        return Err(Refusal::invalid(Some("n"), message).with_code("invalid_value"));
    }
    for prompt in &prompts {
        room(prompt, max_tokens, MAX_TOKENS, server.limits().context, "prompt")?;
    }
    let updates = server.engine.submit(Job {
        prompts: prompts.clone(),
        samples,
        seed: settings.seed,
        sampler: settings.sampler,
        ends: server.renderer.turn_ends().tokens(),
        stops: settings.stops,
        max_tokens: max_tokens.unwrap_or(MAX_TOKENS),
        top_log_probs: log_probs.unwrap_or(0),
        score_prompts: echo && log_probs.is_some(),
    });
    let updates = updates.map_err(|error| Refusal::of(&error, "prompt"))?;
    let form = Form::Completion { echo };
    let (stream, stream_usage) = (settings.stream, settings.stream_usage);
    Ok(Asked { updates, prompts, samples, form, log_probs, stream, stream_usage })
}

/// A text, several, the tokens of one, or those of several.
fn prompts(fields: &mut Fields, server: &Server) -> Result<Vec<Vec<TokenId>>, Refusal> {
    let value = fields.take("prompt").ok_or_else(|| fields.absent("prompt"))?;
    let encode =
        |text: &str| server.renderer.text(text).map_err(|error| Refusal::invalid(Some("prompt"), error.to_string()));
    let id = |value: &Value| value.as_u64().and_then(|id| TokenId::try_from(id).ok()).map(Ok);
    let ids = |value: &Value| value.as_array()?.iter().map(id).collect::<Option<Result<Vec<_>, _>>>();
    let several = |values: &Vec<Value>| match values.first()? {
        Value::String(_) => values.iter().map(|text| text.as_str().map(encode)).collect::<Option<Result<_, _>>>(),
        Value::Array(_) => values.iter().map(ids).collect(),
        _ => Some(values.iter().map(id).collect::<Option<Result<_, _>>>()?.map(|ids| vec![ids])),
    };
    let found = match &value {
        Value::String(text) => Some(encode(text).map(|ids| vec![ids])),
        Value::Array(values) => several(values),
        _ => None,
    };
    let expected = "a string, an array of strings, an array of token ids, or an array of such arrays, and not empty";
    found.ok_or_else(|| fields.wrong("prompt", &value, expected))?
}
