#![doc = include_str!("../README.md")]

mod checkpoint;
mod ends;
mod error;
mod files;
mod folder;
mod generation;
mod gguf;
mod save;
mod template;
mod text;

use burn::tensor::Device;
use firebrick_models::{Decoder, DecoderConfig};

pub use checkpoint::{Checkpoint, Kind};
pub use ends::{Source, TurnEnd, TurnEnds};
pub use error::Error;
pub use generation::GenerationConfig;
pub use save::save;
pub use template::{ChatTemplate, Message};
pub use text::Text;

/// A checkpoint with everything that comes with it.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// What it is called: its folder, its file without the ending, or `owner/name` on the hub.
    pub name: String,
    /// The network.
    pub model: Decoder,
    /// Its shape.
    pub config: DecoderConfig,
    /// Tokenizer, template and generation settings.
    pub text: Text,
}

/// The checkpoint of a folder of `transformers`, of a stage of Firebrick's pipelines, of a `.gguf` file, or of `hub:owner/name`.
///
/// A folder of `transformers` holds `config.json`, `model.safetensors` or its shards, and `tokenizer.json` or `vocab.json` with
/// `merges.txt`; `tokenizer_config.json`, `special_tokens_map.json`, `chat_template.jinja` and `generation_config.json` are read where
/// they are. A stage of a pipeline takes the tokenizer beside it, or else that of its run. See [`Checkpoint`] for a checkpoint without a
/// tokenizer.
///
/// # Errors
/// If there is no checkpoint, a file is damaged, the architecture or the tokenizer is of a kind that is not built here, files
/// contradict each other, there is no tokenizer, or the hub fails and its cache does not hold the model.
pub fn open(source: &str, device: &Device) -> Result<Pretrained, Error> {
    let checkpoint = Checkpoint::locate(source)?;
    let (model, config) = checkpoint.model(device)?;
    let Some(text) = checkpoint.text(config.vocab)? else {
        return Err(Error::NoTokenizer { path: checkpoint.path().to_owned() });
    };
    Ok(Pretrained { name: checkpoint.name().to_owned(), model, config, text })
}
