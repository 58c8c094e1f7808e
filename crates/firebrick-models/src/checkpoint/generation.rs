//! What a checkpoint says about generation.

use crate::Error;
use crate::files::json::Settings;

/// What a checkpoint says about generation; where it says nothing, the choice is the caller's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// What logits are divided by; 0, the likeliest token, where a folder says that nothing is to be drawn (`do_sample` false).
    pub temperature: Option<f64>,
    /// Only the likeliest tokens whose probabilities sum to this.
    pub top_p: Option<f64>,
    /// Only so many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// What a positive logit of a token that was there before is divided by, and a negative one multiplied by.
    pub repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// Of `generation_config.json`.
    ///
    /// # Errors
    /// If a key holds something else than it should.
    pub(crate) fn of(generation: &Settings<'_>) -> Result<Self, Error> {
        let temperature = number(generation, "temperature", "a number of at least 0", |value| value >= 0.0)?;
        let drawn = generation.flag("do_sample")?.unwrap_or(true);
        Ok(Self {
            temperature: if drawn { temperature } else { Some(0.0) },
            top_p: number(generation, "top_p", "a number from 0 to 1", |value| (0.0..=1.0).contains(&value))?,
            top_k: count(generation, "top_k")?,
            repetition_penalty: number(generation, "repetition_penalty", "a number above 0", |value| value > 0.0)?,
        })
    }
}

fn number(
    settings: &Settings<'_>,
    key: &str,
    expected: &str,
    fits: impl Fn(f64) -> bool,
) -> Result<Option<f64>, Error> {
    let Some(value) = settings.get(key) else { return Ok(None) };
    let number = value.as_f64().filter(|&number| number.is_finite() && fits(number));
    number.map(Some).ok_or_else(|| settings.wrong(key, expected))
}

/// 0 is no limit.
fn count(settings: &Settings<'_>, key: &str) -> Result<Option<usize>, Error> {
    let Some(value) = settings.get(key) else { return Ok(None) };
    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or_else(|| settings.wrong(key, "a whole number"))?;
    Ok((count > 0).then_some(count))
}
