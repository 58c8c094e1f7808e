//! A checkpoint as a folder that `transformers` reads.

use std::fs;
use std::path::Path;

use firebrick_text::Renderer;
use firebrick_types::TokenId;
use serde_json::{Map, Value, json};

use super::{CONFIG, GenerationConfig, Text};
use crate::files::hugging_face::text::{GENERATION, SETTINGS, TEMPLATE, TOKENIZER};
use crate::{Decoder, DecoderConfig, Error, save_hugging_face};

/// Writes a network, and what comes with it where there is something, into a folder that is made, or empty.
///
/// # Errors
/// If the folder is not empty, a file cannot be written, or no architecture of `transformers` has this shape.
pub fn save(model: &Decoder, config: &DecoderConfig, text: Option<&Text>, dir: &Path) -> Result<(), Error> {
    make(dir)?;
    save_hugging_face(model, config, dir)?;
    let Some(Text { renderer, generation }) = text else { return Ok(()) };
    let ids = Ids::of(renderer, config.vocab);
    amend_config(dir, &[("bos_token_id", json!(ids.bos)), ("eos_token_id", ids.eos.clone())])?;
    for (name, text) in [
        (TOKENIZER, renderer.tokenizer().to_json()),
        (SETTINGS, pretty(&tokenizer_settings(renderer, config).into())),
        (GENERATION, pretty(&generation_settings(generation, ids).into())),
        (TEMPLATE, renderer.template().source().to_owned()),
    ] {
        write(dir, name, &text)?;
    }
    Ok(())
}

/// Makes a folder, unless it is there and empty.
pub(super) fn make(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: dir.to_owned(), source };
    if dir.exists() && fs::read_dir(dir).map_err(failed)?.next().is_some() {
        return Err(Error::NotEmpty { path: dir.to_owned() });
    }
    fs::create_dir_all(dir).map_err(failed)
}

pub(super) fn write(dir: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = dir.join(name);
    fs::write(&path, text).map_err(|source| Error::Write { path, source })
}

pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON can be written")
}

/// Sets keys of the `config.json` of a folder.
fn amend_config(dir: &Path, keys: &[(&str, Value)]) -> Result<(), Error> {
    let path = dir.join(CONFIG);
    let config = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let mut config: Value = serde_json::from_slice(&config).map_err(|source| Error::Json { path, source })?;
    for (key, value) in keys {
        config[key] = value.clone();
    }
    write(dir, CONFIG, &pretty(&config))
}

/// The ids that a `config.json` names.
pub(super) struct Ids {
    pub(super) bos: Option<TokenId>,
    pub(super) pad: Option<TokenId>,
    /// One, or a list of several.
    pub(super) eos: Value,
}

impl Ids {
    pub(super) fn of(renderer: &Renderer, vocab: usize) -> Self {
        let (tokenizer, template) = (renderer.tokenizer(), renderer.template());
        // Programs look for the embedding of each of them.
        let within = |id: &TokenId| (*id as usize) < vocab;
        let id = |key: &str| template.tokens().get(key).and_then(|name| tokenizer.token(name)).filter(within);
        let eos = match renderer.turn_ends().tokens().as_slice() {
            [one] => json!(one),
            several => json!(several),
        };
        Self { bos: id("bos_token"), pad: id("pad_token"), eos }
    }
}

/// The keys of a `tokenizer_config.json`.
pub(super) fn tokenizer_settings(renderer: &Renderer, config: &DecoderConfig) -> Map<String, Value> {
    let mut settings = Map::new();
    settings.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    settings.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    settings.insert("model_max_length".to_owned(), config.context.into());
    let names = renderer.template().tokens().iter();
    settings.extend(names.map(|(key, name)| (key.clone(), name.as_str().into())));
    settings
        .entry("eos_token")
        .or_insert_with(|| renderer.tokenizer().token_text(renderer.turn_ends().written()).into());
    settings
}

/// The keys of a `generation_config.json`.
fn generation_settings(generation: &GenerationConfig, ids: Ids) -> Map<String, Value> {
    let mut described = Map::new();
    // A temperature of 0 has a word of its own there.
    let temperature = generation.temperature.filter(|&temperature| temperature > 0.0);
    let numbers = [
        ("temperature", json!(temperature)),
        ("top_p", json!(generation.top_p)),
        ("top_k", json!(generation.top_k)),
        ("repetition_penalty", json!(generation.repetition_penalty)),
        ("bos_token_id", json!(ids.bos)),
        ("eos_token_id", ids.eos),
        ("pad_token_id", json!(ids.pad)),
    ];
    if generation.temperature == Some(0.0) {
        described.insert("do_sample".to_owned(), false.into());
    } else if numbers[..3].iter().any(|(_, number)| !number.is_null()) {
        described.insert("do_sample".to_owned(), true.into());
    }
    described
        .extend(numbers.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.to_owned(), value)));
    described
}
