//! `/v1/chat/completions`: the next message of a conversation.

use firebrick_types::{Dialogue, Message, Role};
use serde_json::Value;

use crate::answer::{Asked, Form};
use crate::fields::{Fields, wrong};
use crate::refusal::Refusal;
use crate::settings::{Settings, TOP_LOG_PROBS, room};
use crate::{Job, Server};

/// Hands what a request asks for to the engine.
///
/// # Errors
/// If the request asks for something that cannot be, or the queue is full.
pub(crate) fn ask(server: &Server, body: &[u8]) -> Result<Asked, Refusal> {
    let mut fields = Fields::parse(body)?;
    let mut settings = Settings::take(&mut fields, server)?;
    let messages = messages(&mut fields)?;
    let max_tokens = max_tokens(&mut fields)?;
    let wanted = fields.flag("logprobs")?;
    let top = fields.count("top_logprobs", 0..=TOP_LOG_PROBS)?;
    if let Some(top) = top.filter(|_| !wanted) {
        return Err(wrong("top_logprobs", &top.into(), "nothing where `logprobs` is not true"));
    }
    fields.finish()?;
    let prompt = server.renderer.prompt(&Dialogue::new(messages));
    let prompt = prompt.map_err(|error| Refusal::invalid(Some("messages"), error.to_string()))?;
    let max_tokens = room(&prompt, max_tokens, usize::MAX, server.limits().context, "messages")?;
    settings.stops.extend(server.renderer.template().stops().iter().map(|&stop| stop.to_owned()));
    let prompts = vec![prompt];
    let samples = settings.samples;
    let updates = server.engine.submit(Job {
        prompts: prompts.clone(),
        samples,
        seed: settings.seed,
        sampler: settings.sampler,
        ends: server.renderer.turn_ends().tokens(),
        stops: settings.stops,
        max_tokens,
        top_log_probs: top.unwrap_or(0),
        score_prompts: false,
    });
    let updates = updates.map_err(|error| Refusal::of(&error, "messages"))?;
    let log_probs = wanted.then(|| top.unwrap_or(0));
    let (stream, stream_usage) = (settings.stream, settings.stream_usage);
    Ok(Asked { updates, prompts, samples, form: Form::Chat, log_probs, stream, stream_usage })
}

/// Either of the two names.
fn max_tokens(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let older = fields.count("max_tokens", 0..=usize::MAX)?;
    let newer = fields.count("max_completion_tokens", 0..=usize::MAX)?;
    match (older, newer) {
        (Some(older), Some(newer)) if older != newer => {
            let message = format!("`max_tokens` is {older} and `max_completion_tokens` {newer}; leave one of them out");
            Err(Refusal::invalid(Some("max_tokens"), message).with_code("invalid_value"))
        }
        _ => Ok(newer.or(older)),
    }
}

fn messages(fields: &mut Fields) -> Result<Vec<Message>, Refusal> {
    const KEY: &str = "messages";
    match fields.take(KEY) {
        None => Err(fields.absent(KEY)),
        Some(Value::Array(values)) if !values.is_empty() => {
            values.into_iter().enumerate().map(|(index, value)| message(value, &format!("{KEY}[{index}]"))).collect()
        }
        Some(other) => Err(fields.wrong(KEY, &other, "an array of at least one message")),
    }
}

fn message(value: Value, path: &str) -> Result<Message, Refusal> {
    let mut fields = Fields::inside(value, path)?;
    let role = fields.text("role")?.ok_or_else(|| fields.absent("role"))?;
    let role = Role::named(&role)
        .ok_or_else(|| fields.wrong("role", &role.into(), "system, developer, user, assistant or tool"))?;
    let text = match fields.take("content") {
        None => return Err(fields.absent("content")),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let texts = parts.into_iter().enumerate();
            texts.map(|(index, part)| part_text(part, &format!("{path}.content[{index}]"))).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(fields.wrong("content", &other, "a string or an array of parts")),
    };
    fields.finish()?;
    Ok(Message { role, text })
}

/// The text of a part of a message.
fn part_text(value: Value, path: &str) -> Result<String, Refusal> {
    let mut part = Fields::inside(value, path)?;
    let kind = part.text("type")?.ok_or_else(|| part.absent("type"))?;
    if kind != "text" {
        return Err(part.wrong("type", &kind.into(), "`text`, the only kind that this server reads"));
    }
    let text = part.text("text")?.ok_or_else(|| part.absent("text"))?;
    part.finish()?;
    Ok(text)
}
