//! A checkpoint with everything that comes with it: weights, tokenizer, chat template, generation settings.
//!
//! [`open`] takes a folder of `transformers`, a stage of a pipeline of Firebrick, or a `.gguf` file. What the files say is held against each
//! other: a tokenizer that learnt more tokens than the network has, an end of text that is no token, or a template that is not Jinja is an
//! error that names the file and the key. [`Checkpoint`] looks at a checkpoint before its weights are read, and opens one that has no
//! tokenizer.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use burn::tensor::Device;
//! use firebrick_models::checkpoint::open;
//! use firebrick_types::{Dialogue, Message};
//!
//! let checkpoint = open(Path::new("SmolLM2-135M-Instruct.Q4_1.gguf"), &Device::flex())?;
//! let question = Dialogue::new(vec![Message::human("What is the capital of France?")]);
//! let tokens = checkpoint.renderer.prompt(&question)?;
//! println!("{}: {} tokens; answers end with {:?}", checkpoint.name, tokens.len(), checkpoint.renderer.turn_ends().tokens());
//! checkpoint.save(Path::new("smollm2"))?;
//! # Ok::<(), firebrick_models::Error>(())
//! ```
//!
//! | part | where it comes from |
//! | --- | --- |
//! | tokenizer | `tokenizer.json`; `vocab.json` with `merges.txt`, as GPT-2's; `tokenizer.ggml.*` of a GGUF file (byte-level, or SentencePiece's pairs with bytes to fall back on); that of a stage's run |
//! | template | `chat_template.jinja`; `chat_template` of `tokenizer_config.json`; `tokenizer.chat_template` of a GGUF file; that of a stage's run; else Firebrick's dialogue form |
//! | ends of turns | all together: what the template writes behind an answer; `eos_token_id` of `generation_config.json` and `config.json`, one or several; `eos_token`; `eos_token_id` and `eot_token_id` of a GGUF file; control tokens of known names, such as `<\|im_end\|>`; the end of a text |
//! | generation | `generation_config.json` |

mod generation;
mod reward;
mod save;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use firebrick_text::Renderer;
use serde_json::Value;

pub use generation::GenerationConfig;
pub use reward::save_reward_model;
pub use save::save;

pub use crate::files::gguf::write::save_gguf;

use crate::files::{gguf, hugging_face, json as files};
use crate::{Decoder, DecoderConfig, Error, FeedForward, Positions, ScoredDecoder};
use crate::{open_decoder, open_gguf, open_hugging_face, open_scored, read_gguf_formats};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The longest description at the head of a safetensors file, in bytes.
const LONGEST_HEADER: u64 = 100 << 20;

/// A checkpoint that was found, before its weights are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    name: String,
    path: PathBuf,
    kind: Kind,
}

/// How a checkpoint is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder of `transformers`.
    HuggingFace,
    /// A folder that a stage of a pipeline of Firebrick wrote.
    Firebrick,
    /// A GGUF file.
    Gguf,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::HuggingFace => "folder of transformers",
            Self::Firebrick => "folder of Firebrick",
            Self::Gguf => "GGUF file",
        })
    }
}

/// What a checkpoint holds beside its weights.
#[derive(Clone, Debug)]
pub struct Text {
    /// Conversations to tokens.
    pub renderer: Renderer,
    /// What the checkpoint says about generation.
    pub generation: GenerationConfig,
}

/// A checkpoint with everything that comes with it.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// What it is called: its folder, or its file without the ending.
    pub name: String,
    /// The network.
    pub model: Decoder,
    /// Its shape.
    pub config: DecoderConfig,
    /// Conversations to tokens.
    pub renderer: Renderer,
    /// What the checkpoint says about generation.
    pub generation: GenerationConfig,
}

impl Pretrained {
    /// Writes a folder of `transformers` with weights, tokenizer, template and generation settings; the folder is made, or empty.
    ///
    /// # Errors
    /// If the folder is not empty, a file cannot be written, or no architecture of `transformers` has this shape.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let text = Text { renderer: self.renderer.clone(), generation: self.generation.clone() };
        save(&self.model, &self.config, Some(&text), dir)
    }
}

/// The checkpoint of a folder of `transformers`, of a stage of Firebrick's pipelines, or of a `.gguf` file.
///
/// A folder of `transformers` holds `config.json`, `model.safetensors` or its shards, and `tokenizer.json` or `vocab.json` with
/// `merges.txt`; `tokenizer_config.json`, `special_tokens_map.json`, `chat_template.jinja` and `generation_config.json` are read where
/// they are. A stage of a pipeline takes the tokenizer beside it, or else that of its run. See [`Checkpoint`] for a checkpoint without a
/// tokenizer.
///
/// # Errors
/// If there is no checkpoint, a file is damaged, the architecture or the tokenizer is of a kind that is not built here, files
/// contradict each other, or there is no tokenizer.
pub fn open(path: &Path, device: &Device) -> Result<Pretrained, Error> {
    Checkpoint::at(path)?.open(device)
}

impl Checkpoint {
    /// The checkpoint of a folder or file as [`open`] takes it.
    ///
    /// # Errors
    /// If there is none.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let there = fs::metadata(path)
            .map_err(|error| Error::NoCheckpoint { path: path.to_owned(), found: format!("nothing ({error})") })?;
        if there.is_file() {
            return Self::file(path);
        }
        for dir in [path.to_owned(), path.join("artifact")] {
            if dir.join(CONFIG).exists() && (dir.join(WEIGHTS).exists() || dir.join(INDEX).exists()) {
                return Self::folder(&dir);
            }
        }
        let names = names(path)?;
        let mut files = names.iter().filter(|name| name.ends_with(".gguf"));
        match (files.next(), files.next()) {
            (Some(file), None) => Self::file(&path.join(file)),
            _ => Err(Error::NoCheckpoint { path: path.to_owned(), found: listed(&names) }),
        }
    }

    fn file(path: &Path) -> Result<Self, Error> {
        let mut magic = Vec::new();
        let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
        read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let is_named = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
        if !is_named && magic != b"GGUF" {
            return Err(Error::NoCheckpoint { path: path.to_owned(), found: "a file that is no GGUF".to_owned() });
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, path: path.to_owned(), kind: Kind::Gguf })
    }

    fn folder(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(CONFIG);
        let config = files::json(&path)?;
        let kind = if config.get("model_type").is_none() && config.get("architecture").is_some() {
            Kind::Firebrick
        } else if config.get("model_type").is_some_and(Value::is_string) {
            Kind::HuggingFace
        } else {
            return Err(config.wrong("model_type", "the name of an architecture, for instance `llama`"));
        };
        // `.` and `..` have no name of their own, and each stage calls its result `artifact`.
        let whole = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let named = if whole.ends_with("artifact") { whole.parent().unwrap_or(&whole) } else { &whole };
        let name = named.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, path: dir.to_owned(), kind })
    }

    /// The same under another name, for instance that of the hub.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Everything of it.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(&self, device: &Device) -> Result<Pretrained, Error> {
        let (model, config) = self.model(device)?;
        let Some(Text { renderer, generation }) = self.text(config.vocab)? else {
            return Err(Error::NoTokenizer { path: self.path.clone() });
        };
        Ok(Pretrained { name: self.name.clone(), model, config, renderer, generation })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is kept.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether its head gives a score instead of tokens, without reading the weights: a folder of a class for sequence classification of
    /// `transformers`, or a preference model or critic of ours. A GGUF file holds a language model.
    ///
    /// # Errors
    /// If the `config.json`, or the description of the tensors where it is needed, is damaged.
    pub fn is_reward_model(&self) -> Result<bool, Error> {
        match self.kind {
            Kind::Gguf => Ok(false),
            Kind::Firebrick => {
                let tensors = header(&self.path.join(WEIGHTS))?;
                Ok(!tensors.contains_key("wte.weight") && tensors.contains_key("body.wte.weight"))
            }
            Kind::HuggingFace => match hugging_face::is_classifier(&self.path)? {
                Some(named) => Ok(named),
                None => {
                    let headers = self.weights()?.iter().map(|path| header(path)).collect::<Result<Vec<_>, _>>()?;
                    Ok(headers.iter().any(|tensors| tensors.contains_key("score.weight")))
                }
            },
        }
    }

    /// A reward model and its shape: the folder of a class for sequence classification with one label, ours or somebody else's, or what a
    /// stage that learns preferences has made.
    ///
    /// The score is read at the last token of a sequence. A class of `transformers` has no output over tokens; the shape says `tied` then.
    ///
    /// # Errors
    /// If it is a language model, has another number of labels than one, or as [`model`](Self::model).
    pub fn reward_model(&self, device: &Device) -> Result<(ScoredDecoder, DecoderConfig), Error> {
        if !self.is_reward_model()? {
            return Err(Error::LanguageModel { path: self.path.clone() });
        }
        if self.kind == Kind::HuggingFace {
            return hugging_face::open_classifier(&self.path, device);
        }
        self.check("body.")?;
        open_scored(&self.path, device)
    }

    /// The network and its shape.
    ///
    /// # Errors
    /// If it is a reward model, a file is damaged, its architecture is not built here, or shapes and tensors contradict each other.
    pub fn model(&self, device: &Device) -> Result<(Decoder, DecoderConfig), Error> {
        if self.is_reward_model()? {
            return Err(Error::RewardModel { path: self.path.clone() });
        }
        Ok(match self.kind {
            Kind::HuggingFace => open_hugging_face(&self.path, device)?,
            Kind::Gguf => open_gguf(&self.path, device)?,
            Kind::Firebrick => {
                self.check("")?;
                open_decoder(&self.path, device)?
            }
        })
    }

    /// The shape of the network, without its weights.
    ///
    /// # Errors
    /// If a file is damaged, its architecture is not built here, or its numbers do not fit each other.
    pub fn config(&self) -> Result<DecoderConfig, Error> {
        match self.kind {
            Kind::HuggingFace => hugging_face::config(&self.path),
            Kind::Gguf => gguf::config(&self.path),
            Kind::Firebrick => self.own_config(),
        }
    }

    /// Tokenizer, template and generation settings for a network of so many tokens, or none where there is no tokenizer.
    ///
    /// Tokens that were added to the tokenizer may lie beyond the network's: the renderer refuses a text that holds one.
    ///
    /// # Errors
    /// If a file is damaged, of a kind that is not built here, a key holds something else than it should, or the tokenizer has more tokens
    /// than the network that were not added.
    pub fn text(&self, vocab: usize) -> Result<Option<Text>, Error> {
        let text = match self.kind {
            Kind::Gguf => gguf::text::text(&self.path)?,
            Kind::HuggingFace | Kind::Firebrick => hugging_face::text::text(&self.path)?,
        };
        let Some(Text { renderer, generation }) = text else { return Ok(None) };
        let tokenizer = renderer.tokenizer();
        if tokenizer.learned_size() > vocab {
            return Err(Error::Vocabulary { path: self.path.clone(), tokens: tokenizer.vocab_size(), vocab });
        }
        Ok(Some(Text { renderer: renderer.within(vocab), generation }))
    }

    /// How many numbers the files hold of each format, for instance `BF16`, without reading them.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn formats(&self) -> Result<BTreeMap<String, usize>, Error> {
        if self.kind == Kind::Gguf {
            return read_gguf_formats(&self.path);
        }
        let mut formats = BTreeMap::new();
        for path in self.weights()? {
            for (_, tensor) in header(&path)? {
                let sum = formats.entry(tensor.format).or_insert(0_usize);
                *sum = tensor
                    .shape
                    .iter()
                    .fold(1_usize, |product, &size| product.saturating_mul(size))
                    .saturating_add(*sum);
            }
        }
        Ok(formats)
    }

    /// The files of a folder's weights.
    fn weights(&self) -> Result<Vec<PathBuf>, Error> {
        let whole = self.path.join(WEIGHTS);
        if whole.exists() {
            return Ok(vec![whole]);
        }
        let path = self.path.join(INDEX);
        let index = files::json(&path)?;
        let wrong = || index.wrong("weight_map", "an object of files of this folder by the names of tensors");
        let map = index.get("weight_map").and_then(Value::as_object).ok_or_else(wrong)?;
        let mut shards = Vec::new();
        for shard in map.values() {
            let name = shard.as_str().filter(|name| Path::new(name).file_name().is_some_and(|file| file == *name));
            shards.push(self.path.join(name.ok_or_else(wrong)?));
        }
        shards.sort();
        shards.dedup();
        Ok(shards)
    }

    /// The shape of a network of ours.
    fn own_config(&self) -> Result<DecoderConfig, Error> {
        let path = self.path.join(CONFIG);
        let value = files::json(&path)?.value;
        serde_json::from_value(value).map_err(|source| Error::Json { path, source })
    }

    /// Holds the numbers of a configuration of ours against the tensors, those of the decoder under this name, before a network of that shape is made.
    fn check(&self, body: &str) -> Result<(), Error> {
        let path = self.path.join(CONFIG);
        let settings = files::json(&path)?;
        let config = self.own_config()?;
        let tensors = header(&self.path.join(WEIGHTS))?;
        let size = |name: &str, axis: usize| {
            tensors.get(&format!("{body}{name}")).and_then(|tensor| tensor.shape.get(axis)).copied()
        };
        let layers =
            (0..).take_while(|layer| tensors.contains_key(&format!("{body}blocks.{layer}.mlp.fc.weight"))).count();
        let gates = if config.architecture.feed_forward == FeedForward::Swiglu { 2 } else { 1 };
        let inside = size("blocks.0.mlp.fc.weight", 1).map(|width| width / gates);
        let mut claims = vec![
            ("vocab", config.vocab, size("wte.weight", 0)),
            ("d_model", config.d_model, size("wte.weight", 1)),
            ("n_layer", config.n_layer, Some(layers)),
            ("d_ff", config.d_ff, inside),
        ];
        if config.architecture.positions == Positions::Learned {
            claims.push(("context", config.context, size("wpe.weight", 0)));
        }
        for (key, claimed, found) in claims {
            if let Some(found) = found.filter(|&found| found != claimed) {
                return Err(settings.wrong(key, format!("{found}, as the tensors of {WEIGHTS} say")));
            }
        }
        // A head of its own width comes from the same numbers; more heads of keys than of queries are refused when the shape is.
        Ok(())
    }
}

/// A tensor as the head of a file describes it.
struct Described {
    format: String,
    shape: Vec<usize>,
}

/// The tensors of a safetensors file.
fn header(path: &Path) -> Result<BTreeMap<String, Described>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let (length, whole) = (u64::from_le_bytes(length), file.metadata().map_err(failed)?.len());
    if length > whole || length > LONGEST_HEADER {
        let reason = format!("its description claims {length} bytes, and the file has {whole}; fetch it anew");
        return Err(Error::Damaged { path: path.to_owned(), reason });
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).map_err(failed)?;
    let described: Value =
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in described.as_object().into_iter().flatten().filter(|(name, _)| *name != "__metadata__") {
        let shape = tensor["shape"].as_array().and_then(|shape| {
            shape
                .iter()
                .map(|size| size.as_u64().and_then(|size| usize::try_from(size).ok()))
                .collect::<Option<Vec<_>>>()
        });
        let (Some(format), Some(shape)) = (tensor["dtype"].as_str(), shape) else {
            let reason = format!("its description of the tensor `{name}` has no `dtype` and `shape`; fetch it anew");
            return Err(Error::Damaged { path: path.to_owned(), reason });
        };
        tensors.insert(name.clone(), Described { format: format.to_owned(), shape });
    }
    Ok(tensors)
}

/// The names in a folder, in their order.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The first names, for an error.
fn listed(names: &[String]) -> String {
    match names {
        [] => "an empty folder".to_owned(),
        _ if names.len() > 8 => format!("{} and {} more", names[..8].join(", "), names.len() - 8),
        _ => names.join(", "),
    }
}
