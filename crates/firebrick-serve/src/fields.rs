//! What a request says, key by key, so that nothing it says is overlooked.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// Keys that say who asks or how it is kept, and change no answer.
const LABELS: &[&str] = &["user", "metadata", "safety_identifier", "prompt_cache_key", "store", "service_tier"];

/// Keys of OpenAI's that are not supported, with the values that ask for nothing.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("audio", &[]),
    ("frequency_penalty", &["0", "0.0"]),
    ("function_call", &["\"none\""]),
    ("functions", &["[]"]),
    ("logit_bias", &["{}"]),
    ("modalities", &["[\"text\"]"]),
    ("parallel_tool_calls", &["true", "false"]),
    ("prediction", &[]),
    ("presence_penalty", &["0", "0.0"]),
    ("reasoning_effort", &[]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("suffix", &["\"\""]),
    ("tool_choice", &["\"none\""]),
    ("tools", &["[]"]),
    ("verbosity", &[]),
    ("web_search_options", &[]),
];

/// The keys of a request that were not looked at yet.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// What stands before a key in errors.
    path: String,
}

impl Fields {
    /// The keys of a JSON object.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let value = serde_json::from_slice(body)
            .map_err(|error| Refusal::invalid(None, format!("the body is not JSON: {error}")))?;
        let refused = || Refusal::invalid(None, "the body is not a JSON object");
        match value {
            Value::Object(map) => Ok(Self { map, path: String::new() }),
            _ => Err(refused()),
        }
    }

    /// The keys of an object inside of a request.
    ///
    /// # Errors
    /// If the value is something else.
    pub(crate) fn inside(value: Value, path: &str) -> Result<Self, Refusal> {
        match value {
            Value::Object(map) => Ok(Self { map, path: format!("{path}.") }),
            other => Err(wrong(path, &other, "an object")),
        }
    }

    /// What stands at a key, unless that is nothing or null.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// An error about what stood at a key.
    pub(crate) fn wrong(&self, key: &str, value: &Value, expected: &str) -> Refusal {
        wrong(&format!("{}{key}", self.path), value, expected)
    }

    /// An error about a key that must be there.
    pub(crate) fn absent(&self, key: &str) -> Refusal {
        let key = format!("{}{key}", self.path);
        Refusal::invalid(Some(&key), format!("`{key}` is missing")).with_code("missing_required_parameter")
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, Refusal> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, &other, "a string")),
        }
    }

    pub(crate) fn flag(&mut self, key: &str) -> Result<bool, Refusal> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(key, &other, "true or false")),
        }
    }

    pub(crate) fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Refusal> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| range.contains(number));
        let expected = || format!("a number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| self.wrong(key, &value, &expected()))
    }

    pub(crate) fn count(&mut self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Refusal> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| range.contains(count));
        let expected = || match *range.end() {
            usize::MAX => format!("a whole number of at least {}", range.start()),
            end => format!("a whole number from {} to {end}", range.start()),
        };
        count.map(Some).ok_or_else(|| self.wrong(key, &value, &expected()))
    }

    /// Makes sure that nothing was asked for that is not done.
    ///
    /// # Errors
    /// If a key is left that is not known, or asks for something.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        for (key, value) in self.map.iter().filter(|(_, value)| !value.is_null()) {
            let at = format!("{}{key}", self.path);
            if self.path.is_empty() && LABELS.contains(&key.as_str()) {
                continue;
            }
            match UNSUPPORTED.iter().find(|(name, _)| self.path.is_empty() && name == key) {
                Some((_, neutral)) if neutral.contains(&value.to_string().as_str()) => {}
                Some(_) => {
                    let message =
                        format!("`{at}` is {}, which this server does not support; leave it out", short(value));
                    return Err(Refusal::invalid(Some(&at), message).with_code("unsupported_parameter"));
                }
                None => {
                    let message = format!("`{at}` is no parameter that this server knows; leave it out");
                    return Err(Refusal::invalid(Some(&at), message).with_code("unknown_parameter"));
                }
            }
        }
        Ok(())
    }
}

/// An error about what stands at a place.
pub(crate) fn wrong(at: &str, value: &Value, expected: &str) -> Refusal {
    Refusal::invalid(Some(at), format!("`{at}` is {}, expected {expected}", short(value))).with_code("invalid_value")
}

/// JSON that is not too long for a message.
fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(60) {
        text.truncate(end);
        text.push('…');
    }
    text
}
