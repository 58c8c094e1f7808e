//! A checkpoint as a folder that `transformers` reads.

use std::fs;
use std::path::{Path, PathBuf};

use firebrick_types::TokenId;
use serde_json::{Map, Value, json};

use super::Text;
use crate::files::hugging_face::text::{GENERATION, SETTINGS, TEMPLATE, TOKENIZER};
use crate::{Decoder, DecoderConfig, Error, save_hugging_face};

/// Writes a network, and what comes with it where there is something, into a folder that is made, or empty.
///
/// # Errors
/// If the folder is not empty, a file cannot be written, or no architecture of `transformers` has this shape.
pub fn save(model: &Decoder, config: &DecoderConfig, text: Option<&Text>, dir: &Path) -> Result<(), Error> {
    let failed = |path: PathBuf| move |source| Error::Write { path, source };
    if dir.exists() && fs::read_dir(dir).map_err(failed(dir.to_owned()))?.next().is_some() {
        return Err(Error::NotEmpty { path: dir.to_owned() });
    }
    fs::create_dir_all(dir).map_err(failed(dir.to_owned()))?;
    save_hugging_face(model, config, dir)?;
    let Some(Text { renderer, generation }) = text else { return Ok(()) };
    let (tokenizer, template, turn_ends) = (renderer.tokenizer(), renderer.template(), renderer.turn_ends());
    tokenizer.save(&dir.join(TOKENIZER))?;
    let mut settings = Map::new();
    settings.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    settings.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    settings.insert("model_max_length".to_owned(), config.context.into());
    settings.extend(template.tokens().iter().map(|(key, name)| (key.clone(), name.as_str().into())));
    settings.entry("eos_token").or_insert_with(|| tokenizer.token_text(turn_ends.written()).into());
    let eos = match turn_ends.tokens().as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    // Programs look for the embedding of each of them.
    let within = |id: &TokenId| (*id as usize) < config.vocab;
    let id = |key: &str| template.tokens().get(key).and_then(|name| tokenizer.token(name)).filter(within);
    let (bos, pad) = (id("bos_token"), id("pad_token"));
    let mut described = Map::new();
    // A temperature of 0 has a word of its own there.
    let temperature = generation.temperature.filter(|&temperature| temperature > 0.0);
    let numbers = [
        ("temperature", json!(temperature)),
        ("top_p", json!(generation.top_p)),
        ("top_k", json!(generation.top_k)),
        ("repetition_penalty", json!(generation.repetition_penalty)),
        ("bos_token_id", json!(bos)),
        ("eos_token_id", eos.clone()),
        ("pad_token_id", json!(pad)),
    ];
    if generation.temperature == Some(0.0) {
        described.insert("do_sample".to_owned(), false.into());
    } else if numbers[..3].iter().any(|(_, number)| !number.is_null()) {
        described.insert("do_sample".to_owned(), true.into());
    }
    described
        .extend(numbers.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.to_owned(), value)));
    let path = dir.join("config.json");
    let config = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let mut config: Value = serde_json::from_slice(&config).map_err(|source| Error::Json { path, source })?;
    config["bos_token_id"] = json!(bos);
    config["eos_token_id"] = eos;
    let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("JSON can be written");
    for (name, bytes) in [
        (SETTINGS, pretty(&Value::Object(settings))),
        (GENERATION, pretty(&Value::Object(described))),
        ("config.json", pretty(&config)),
        (TEMPLATE, template.source().to_owned()),
    ] {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(failed(path))?;
    }
    Ok(())
}
