//! Checkpoints in the folders of Hugging Face's `transformers`: GPT-2, GPT-NeoX, Llama, Mistral and Qwen2.
//!
//! A folder holds `config.json` and `model.safetensors`, or the shards that `model.safetensors.index.json` lists. Numbers of
//! 16 bits are widened. Missing, surplus or misshapen tensors are errors that name them as the folder does.

mod classifier;
pub(crate) mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use firebrick_tensor::{Parameters, ParametersError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{Architecture, Biases, FeedForward, Norm, Positions, RotaryConfig, RotaryScaling};
use crate::{Decoder, DecoderConfig, Error};

pub(crate) use classifier::{classifier, is_classifier, open_classifier};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The outputs over tokens, of GPT-NeoX the second.
const OUTPUTS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];

/// What is said of architectures that are none of these.
const KNOWN: &str = "gpt2, gpt_neox, llama, mistral, qwen2";

/// Reads a decoder from a folder of `transformers`.
///
/// # Errors
/// If a file is missing or damaged, the architecture is another one or has a part that is not built here, or a tensor is
/// missing, surplus or of another shape than the configuration says.
pub fn open_hugging_face(dir: &Path, device: &Device) -> Result<(Decoder, DecoderConfig), Error> {
    let (_, family, config) = described(dir)?;
    let path = dir.join(WEIGHTS);
    // Masks and the like come in many number formats, and are not read.
    let model = family
        .parameters(&config, weights(dir, |name| !family.is_derived(&config, name))?)
        .and_then(|parameters| parameters.load(config.blank(device)))
        .map_err(|source| Error::Parameters { path, source })?;
    Ok((model, config))
}

/// The shape of the decoder of a folder of `transformers`, without its weights.
///
/// # Errors
/// If the `config.json` is missing or damaged, the architecture is another one or has a part that is not built here, or its numbers do not
/// fit each other.
pub(crate) fn config(dir: &Path) -> Result<DecoderConfig, Error> {
    Ok(described(dir)?.2)
}

fn described(dir: &Path) -> Result<(Described, Family, DecoderConfig), Error> {
    let path = dir.join(CONFIG);
    let described: Described =
        serde_json::from_slice(&read(&path)?).map_err(|source| Error::Config { path: path.clone(), source })?;
    let config = described.config(&path)?;
    config.validate()?;
    let family = described.family(&path)?;
    Ok((described, family, config))
}

/// Writes a decoder into a folder that exists, as `transformers` reads it.
///
/// # Errors
/// If none of its architectures is this one, or a file cannot be written.
pub fn save_hugging_face(model: &Decoder, config: &DecoderConfig, dir: &Path) -> Result<(), Error> {
    let (family, described) = describe(config).ok_or(Error::NoSuchArchitecture { known: KNOWN })?;
    write(dir, &described, &family.checkpoint(config, &Parameters::of(model)))
}

/// Writes the `config.json` and the tensors of a folder.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn write(dir: &Path, described: &Value, checkpoint: &Parameters) -> Result<(), Error> {
    let described = serde_json::to_vec_pretty(described).expect("JSON can be written");
    for (name, bytes) in [(CONFIG, described), (WEIGHTS, checkpoint.to_bytes())] {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The wanted tensors of a folder, of one file or of several.
fn weights(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Parameters, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }

    let tensors = |path: PathBuf| {
        Parameters::from_bytes_where(&read(&path)?, &wanted)
            .map_err(|source| Error::Parameters { path: path.clone(), source })
    };
    let index = dir.join(INDEX);
    if dir.join(WEIGHTS).exists() || !index.exists() {
        return tensors(dir.join(WEIGHTS));
    }
    let Index { weight_map } =
        serde_json::from_slice(&read(&index)?).map_err(|source| Error::Config { path: index.clone(), source })?;
    let shards = weight_map.into_values().collect::<BTreeSet<_>>();
    let mut all = Parameters::default();
    for shard in shards {
        // A shard is a file of this folder: an index must not make us read another.
        if Path::new(&shard).file_name().is_none_or(|name| name != shard.as_str()) {
            return Err(Error::Shard { path: index, shard });
        }
        all = all.with("", tensors(dir.join(shard))?);
    }
    Ok(all)
}

/// What a `config.json` says, as far as it is read.
#[derive(Debug, Deserialize)]
struct Described {
    model_type: String,
    vocab_size: usize,
    // GPT-2's names.
    n_positions: Option<usize>,
    n_embd: Option<usize>,
    n_layer: Option<usize>,
    n_head: Option<usize>,
    n_inner: Option<usize>,
    activation_function: Option<String>,
    layer_norm_epsilon: Option<f64>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    // The others'.
    max_position_embeddings: Option<usize>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    rms_norm_eps: Option<f64>,
    use_parallel_residual: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    // Rotary positions, in the older and the newer way.
    rope_theta: Option<f64>,
    rotary_emb_base: Option<f64>,
    rotary_pct: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    // Of classifiers.
    num_labels: Option<Value>,
    id2label: Option<Value>,
}

/// How queries and keys are turned, as a `config.json` says it.
#[derive(Clone, Debug, Default, Deserialize)]
struct Rope {
    rope_type: Option<String>,
    /// The older name of `rope_type`; some versions of `transformers` write both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
}

impl Described {
    /// What a classifier tells apart, as `transformers` counts it.
    fn labels(&self) -> usize {
        let counted = self.num_labels.as_ref().and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        let named = self.id2label.as_ref().and_then(Value::as_object).map(serde_json::Map::len);
        counted.or(named).unwrap_or(2)
    }

    fn family(&self, path: &Path) -> Result<Family, Error> {
        match self.model_type.as_str() {
            "gpt2" => Ok(Family::Gpt2),
            "gpt_neox" => Ok(Family::GptNeox),
            "llama" | "mistral" | "qwen2" => Ok(Family::Llama),
            other => Err(Error::Architecture { path: path.to_owned(), found: other.to_owned(), known: KNOWN }),
        }
    }

    fn config(&self, path: &Path) -> Result<DecoderConfig, Error> {
        let required = |key: &'static str, value: Option<usize>| {
            value.ok_or_else(|| Error::MissingKey { path: path.to_owned(), key })
        };
        let unsupported = |key: &'static str, found: String| Error::Unsupported { path: path.to_owned(), key, found };
        let unit = |key: &'static str, name: Option<&str>, standard: &str| match name.unwrap_or(standard) {
            "gelu" => Ok(FeedForward::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(FeedForward::GeluTanh),
            "silu" => Ok(FeedForward::Swiglu),
            other => Err(unsupported(key, other.to_owned())),
        };
        if self.family(path)? == Family::Gpt2 {
            if self.scale_attn_by_inverse_layer_idx == Some(true) {
                return Err(unsupported("scale_attn_by_inverse_layer_idx", "true".to_owned()));
            }
            let d_model = required("n_embd", self.n_embd)?;
            let feed_forward = unit("activation_function", self.activation_function.as_deref(), "gelu_new")?;
            if feed_forward == FeedForward::Swiglu {
                return Err(unsupported("activation_function", "silu".to_owned()));
            }
            return Ok(DecoderConfig {
                vocab: self.vocab_size,
                context: required("n_positions", self.n_positions)?,
                n_layer: required("n_layer", self.n_layer)?,
                d_model,
                heads: required("n_head", self.n_head)?,
                d_ff: self.n_inner.unwrap_or(4 * d_model),
                architecture: Architecture {
                    norm_epsilon: self.layer_norm_epsilon.unwrap_or(1e-5),
                    feed_forward,
                    tied: self.tie_word_embeddings.unwrap_or(true),
                    ..Architecture::gpt()
                },
            });
        }
        let (d_model, heads) =
            (required("hidden_size", self.hidden_size)?, required("num_attention_heads", self.num_attention_heads)?);
        if heads == 0 || !d_model.is_multiple_of(heads) {
            return Err(Error::Heads { heads, d_model });
        }
        let d_head = d_model / heads;
        if let Some(found) = self.head_dim.filter(|&found| found != d_head) {
            return Err(unsupported("head_dim", found.to_string()));
        }
        let context = required("max_position_embeddings", self.max_position_embeddings)?;
        if let Some(window) = self.sliding_window.filter(|&window| window < context)
            && self.use_sliding_window != Some(false)
        {
            return Err(unsupported("sliding_window", window.to_string()));
        }
        let architecture = match self.family(path)? {
            Family::GptNeox => {
                let feed_forward = unit("hidden_act", self.hidden_act.as_deref(), "gelu")?;
                if feed_forward == FeedForward::Swiglu {
                    return Err(unsupported("hidden_act", "silu".to_owned()));
                }
                let bias = self.attention_bias.unwrap_or(true);
                Architecture {
                    norm_epsilon: self.layer_norm_eps.unwrap_or(1e-5),
                    feed_forward,
                    parallel_residual: self.use_parallel_residual.unwrap_or(true),
                    biases: Biases { qkv: bias, attention: bias, feed_forward: true },
                    tied: self.tie_word_embeddings.unwrap_or(false),
                    positions: Positions::Rotary(self.rotary(path, d_head, self.rotary_pct.unwrap_or(0.25))?),
                    ..Architecture::gpt()
                }
            }
            _ => {
                if unit("hidden_act", self.hidden_act.as_deref(), "silu")? != FeedForward::Swiglu {
                    return Err(unsupported("hidden_act", self.hidden_act.clone().unwrap_or_default()));
                }
                let qwen = self.model_type == "qwen2";
                let bias = self.attention_bias.unwrap_or(false);
                Architecture {
                    key_value_heads: self.num_key_value_heads,
                    norm_epsilon: self.rms_norm_eps.unwrap_or(1e-6),
                    biases: Biases {
                        qkv: qwen || bias,
                        attention: !qwen && bias,
                        feed_forward: self.mlp_bias.unwrap_or(false),
                    },
                    tied: self.tie_word_embeddings.unwrap_or(false),
                    positions: Positions::Rotary(self.rotary(path, d_head, 1.0)?),
                    ..Architecture::llama(d_head)
                }
            }
        };
        Ok(DecoderConfig {
            vocab: self.vocab_size,
            context,
            n_layer: required("num_hidden_layers", self.num_hidden_layers)?,
            d_model,
            heads,
            d_ff: required("intermediate_size", self.intermediate_size)?,
            architecture,
        })
    }

    fn rotary(&self, path: &Path, d_head: usize, share: f64) -> Result<RotaryConfig, Error> {
        let rope = self.rope_parameters.clone().or_else(|| self.rope_scaling.clone()).unwrap_or_default();
        let rope_type = match (&rope.rope_type, &rope.older_type) {
            (Some(newer), Some(older)) if newer != older => {
                let values = [("rope_type", newer.clone()), ("type", older.clone())];
                return Err(Error::Contradiction { path: path.to_owned(), values });
            }
            (newer, older) => newer.as_ref().or(older.as_ref()),
        };
        let number = |key: &'static str, value: Option<f64>| {
            value.ok_or_else(|| Error::MissingKey { path: path.to_owned(), key })
        };
        let scaling = match rope_type.map_or("default", String::as_str) {
            "default" => RotaryScaling::None,
            "linear" => RotaryScaling::Linear { factor: number("factor", rope.factor)? },
            "llama3" => RotaryScaling::Llama3 {
                factor: number("factor", rope.factor)?,
                low: number("low_freq_factor", rope.low_freq_factor)?,
                high: number("high_freq_factor", rope.high_freq_factor)?,
                original_context: rope.original_max_position_embeddings.ok_or_else(|| Error::MissingKey {
                    path: path.to_owned(),
                    key: "original_max_position_embeddings",
                })?,
            },
            other => {
                return Err(Error::Unsupported { path: path.to_owned(), key: "rope_type", found: other.to_owned() });
            }
        };
        let theta = rope.rope_theta.or(self.rope_theta).or(self.rotary_emb_base).unwrap_or(10_000.0);
        let dims = (d_head as f64 * rope.partial_rotary_factor.unwrap_or(share)) as usize;
        Ok(RotaryConfig { theta, dims, scaling })
    }
}

/// The `config.json` of this shape, if an architecture has it.
pub(crate) fn describe(config: &DecoderConfig) -> Option<(Family, Value)> {
    let DecoderConfig { vocab, context, n_layer, d_model, heads, d_ff, architecture } = *config;
    let Architecture { positions, norm, norm_epsilon, feed_forward, parallel_residual, biases, tied, .. } =
        architecture;
    let unit = match feed_forward {
        FeedForward::Gelu => "gelu",
        FeedForward::GeluTanh => "gelu_new",
        FeedForward::Swiglu => "silu",
    };
    let same_heads = config.heads().key_value == heads;
    let everywhere = biases == Biases { qkv: true, attention: true, feed_forward: true };
    match (positions, norm) {
        (Positions::Learned, Norm::Layer) => {
            let fits = same_heads && everywhere && !parallel_residual && feed_forward != FeedForward::Swiglu;
            fits.then(|| {
                let described = json!({
                    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": vocab,
                    "n_positions": context, "n_embd": d_model, "n_layer": n_layer, "n_head": heads, "n_inner": d_ff,
                    "activation_function": unit, "layer_norm_epsilon": norm_epsilon, "tie_word_embeddings": tied,
                    "bos_token_id": null, "eos_token_id": null,
                });
                (Family::Gpt2, described)
            })
        }
        (Positions::Rotary(rotary), Norm::Layer) => {
            let fits = same_heads
                && biases.qkv == biases.attention
                && biases.feed_forward
                && feed_forward != FeedForward::Swiglu;
            fits.then(|| {
                let share = rotary.dims as f64 / config.d_head() as f64;
                let described = json!({
                    "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": vocab,
                    "max_position_embeddings": context, "hidden_size": d_model, "num_hidden_layers": n_layer,
                    "num_attention_heads": heads, "intermediate_size": d_ff, "hidden_act": unit,
                    "layer_norm_eps": norm_epsilon, "use_parallel_residual": parallel_residual,
                    "attention_bias": biases.qkv, "tie_word_embeddings": tied, "rotary_pct": share,
                    "rotary_emb_base": rotary.theta, "rope_parameters": rope(&rotary, Some(share)),
                    "bos_token_id": null, "eos_token_id": null,
                });
                (Family::GptNeox, described)
            })
        }
        (Positions::Rotary(rotary), Norm::Rms) => {
            let qwen = biases.qkv && !biases.attention;
            let fits = rotary.dims == config.d_head()
                && !parallel_residual
                && feed_forward == FeedForward::Swiglu
                && (if qwen { !biases.feed_forward } else { biases.qkv == biases.attention });
            fits.then(|| {
                let (class, name) = if qwen { ("Qwen2ForCausalLM", "qwen2") } else { ("LlamaForCausalLM", "llama") };
                let described = json!({
                    "architectures": [class], "model_type": name, "vocab_size": vocab,
                    "max_position_embeddings": context, "hidden_size": d_model, "num_hidden_layers": n_layer,
                    "num_attention_heads": heads, "num_key_value_heads": config.heads().key_value,
                    "intermediate_size": d_ff, "hidden_act": unit, "rms_norm_eps": norm_epsilon,
                    "attention_bias": biases.qkv, "mlp_bias": biases.feed_forward, "tie_word_embeddings": tied,
                    "rope_theta": rotary.theta, "rope_parameters": rope(&rotary, None),
                    "bos_token_id": null, "eos_token_id": null,
                });
                (Family::Llama, described)
            })
        }
        (Positions::Learned, Norm::Rms) => None,
    }
}

fn rope(rotary: &RotaryConfig, share: Option<f64>) -> Value {
    let mut rope = match rotary.scaling {
        RotaryScaling::None => json!({"rope_type": "default"}),
        RotaryScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RotaryScaling::Llama3 { factor, low, high, original_context } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": original_context,
        }),
    };
    rope["rope_theta"] = json!(rotary.theta);
    if let Some(share) = share {
        rope["partial_rotary_factor"] = json!(share);
    }
    rope
}

/// How a family of checkpoints names and lays out its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Gpt2,
    GptNeox,
    Llama,
}

/// One tensor of ours and those of a checkpoint that it is made of.
struct Rule {
    ours: String,
    /// Names and shapes; rows of several stand below each other.
    theirs: Vec<(String, Vec<usize>)>,
    /// Whether theirs are `[d_output, d_input]`.
    transposed: bool,
    /// Heads whose queries, keys and values stand together in theirs.
    interleaved: Option<usize>,
}

impl Rule {
    /// One tensor as it is.
    fn same(ours: impl Into<String>, theirs: impl Into<String>, shape: &[usize]) -> Self {
        let theirs = vec![(theirs.into(), shape.to_vec())];
        Self { ours: ours.into(), theirs, transposed: false, interleaved: None }
    }

    /// Matrices `[d_output, d_input]`, or vectors of outputs, below each other.
    fn stacked(ours: String, theirs: &[(String, usize)], d_input: Option<usize>) -> Self {
        let shape = |outputs: usize| [Some(outputs), d_input].into_iter().flatten().collect();
        let theirs = theirs.iter().map(|(name, outputs)| (name.clone(), shape(*outputs))).collect();
        Self { ours, theirs, transposed: d_input.is_some(), interleaved: None }
    }

    /// Where row `row` of ours, before it is transposed, stands in theirs.
    fn place(&self, row: usize, rows: usize) -> usize {
        match self.interleaved {
            None => row,
            Some(heads) => {
                let d_head = rows / (3 * heads);
                let (part, head, number) = (row / (heads * d_head), row / d_head % heads, row % d_head);
                (head * 3 + part) * d_head + number
            }
        }
    }

    /// Rows and columns of theirs.
    fn dims(&self) -> (usize, usize) {
        let columns = self.theirs[0].1.get(1).copied().unwrap_or(1);
        (self.theirs.iter().map(|(_, shape)| shape[0]).sum(), columns)
    }

    /// Our tensor of theirs, which are gone then: two copies of a whole checkpoint need not fit.
    fn take(&self, theirs: &mut Parameters) -> (Vec<usize>, Vec<f32>) {
        let (rows, columns) = self.dims();
        let mut values = Vec::new();
        for (name, _) in &self.theirs {
            let more = theirs.remove(name).expect("checked to be there");
            if values.is_empty() { values = more } else { values.extend(more) }
        }
        if self.transposed || (0..rows).any(|row| self.place(row, rows) != row) {
            let stacked = std::mem::replace(&mut values, vec![0.0; rows * columns]);
            for row in 0..rows {
                let from = &stacked[self.place(row, rows) * columns..][..columns];
                if self.transposed {
                    (0..columns).for_each(|column| values[column * rows + row] = from[column]);
                } else {
                    values[row * columns..][..columns].copy_from_slice(from);
                }
            }
        }
        let shape = match self.theirs[0].1.len() {
            1 => vec![rows],
            _ if self.transposed => vec![columns, rows],
            _ => vec![rows, columns],
        };
        (shape, values)
    }

    /// Their tensors of ours.
    fn write(&self, ours: &[f32], checkpoint: &mut Parameters) {
        let (rows, columns) = self.dims();
        let mut stacked = vec![0.0; rows * columns];
        for row in 0..rows {
            let to = &mut stacked[self.place(row, rows) * columns..][..columns];
            if self.transposed {
                (0..columns).for_each(|column| to[column] = ours[column * rows + row]);
            } else {
                to.copy_from_slice(&ours[row * columns..][..columns]);
            }
        }
        let mut rest = stacked.as_slice();
        for (name, shape) in &self.theirs {
            let (values, after) = rest.split_at(shape.iter().product());
            checkpoint.insert(name, shape.clone(), values.to_vec());
            rest = after;
        }
    }
}

impl Family {
    /// Our parameters of a checkpoint.
    pub(crate) fn parameters(
        self,
        config: &DecoderConfig,
        mut checkpoint: Parameters,
    ) -> Result<Parameters, ParametersError> {
        // GPT-2's body alone has no prefix.
        let prefix = match self {
            Self::Gpt2 if checkpoint.get("transformer.wte.weight").is_none() => "",
            _ => self.prefix(),
        };
        // As many layers as there are tensors cannot all be there, so a file that claims more is found out by fewer.
        let n_layer = config.n_layer.min(checkpoint.iter().count());
        let rules = self.rules(&DecoderConfig { n_layer, ..*config }, prefix);
        let expected = rules.iter().flat_map(|rule| &rule.theirs).map(|(name, shape)| (name.as_str(), shape));
        let expected = expected.collect::<BTreeMap<_, _>>();
        let missing = expected.keys().filter(|name| checkpoint.get(name).is_none()).map(|name| (*name).to_owned());
        let missing = missing.collect::<Vec<_>>();
        if !missing.is_empty() {
            return Err(ParametersError::Missing(missing));
        }
        let surplus = checkpoint.iter().map(|(name, ..)| name);
        let surplus = surplus.filter(|name| !expected.contains_key(name));
        let surplus = surplus.map(str::to_owned).collect::<Vec<_>>();
        if !surplus.is_empty() {
            return Err(ParametersError::Surplus(surplus));
        }
        for (&name, &shape) in &expected {
            let (found, _) = checkpoint.get(name).expect("none is missing");
            if found != shape.as_slice() {
                let (found, expected) = (found.to_vec(), shape.clone());
                return Err(ParametersError::Shape { name: name.to_owned(), found, expected });
            }
        }
        let mut parameters = Parameters::default();
        for rule in &rules {
            let (shape, values) = rule.take(&mut checkpoint);
            parameters.insert(&rule.ours, shape, values);
        }
        Ok(parameters)
    }

    /// A checkpoint of our parameters.
    pub(crate) fn checkpoint(self, config: &DecoderConfig, parameters: &Parameters) -> Parameters {
        let mut checkpoint = Parameters::default();
        for rule in self.rules(config, self.prefix()) {
            let (_, values) = parameters.get(&rule.ours).expect("the rules name every parameter");
            rule.write(values, &mut checkpoint);
        }
        checkpoint
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Gpt2 => "transformer.",
            Self::GptNeox => "gpt_neox.",
            Self::Llama => "model.",
        }
    }

    /// Whether a tensor says nothing that the others and the configuration do not: masks, frequencies, a tied output.
    fn is_derived(self, config: &DecoderConfig, name: &str) -> bool {
        let buffers = [
            ".attn.bias",
            ".attn.masked_bias",
            ".attention.bias",
            ".attention.masked_bias",
            ".rotary_emb.inv_freq",
            ".rotary_emb.cos_cached",
            ".rotary_emb.sin_cached",
        ];
        buffers.iter().any(|end| name.ends_with(end)) || (config.architecture.tied && OUTPUTS.contains(&name))
    }

    fn rules(self, config: &DecoderConfig, prefix: &str) -> Vec<Rule> {
        let DecoderConfig { vocab, context, n_layer, d_model, d_ff, .. } = *config;
        let Biases { qkv, attention, feed_forward } = config.architecture.biases;
        let (d_head, heads) = (config.d_head(), config.heads());
        let width = heads.all() * d_head;
        let layer_norm = |ours: String, theirs: String| {
            let part = |part: &str| Rule::same(format!("{ours}.{part}"), format!("{theirs}.{part}"), &[d_model]);
            [part("weight"), part("bias")]
        };
        let mut rules = Vec::new();
        match self {
            Self::Gpt2 => {
                rules.push(Rule::same("wte.weight", format!("{prefix}wte.weight"), &[vocab, d_model]));
                rules.push(Rule::same("wpe.weight", format!("{prefix}wpe.weight"), &[context, d_model]));
                for layer in 0..n_layer {
                    let (ours, theirs) = (format!("blocks.{layer}"), format!("{prefix}h.{layer}"));
                    rules.extend(layer_norm(format!("{ours}.ln_1"), format!("{theirs}.ln_1")));
                    rules.extend(layer_norm(format!("{ours}.ln_2"), format!("{theirs}.ln_2")));
                    for (part, other, shape) in [
                        ("attn.qkv", "attn.c_attn", [d_model, width]),
                        ("attn.proj", "attn.c_proj", [d_model, d_model]),
                        ("mlp.fc", "mlp.c_fc", [d_model, d_ff]),
                        ("mlp.proj", "mlp.c_proj", [d_ff, d_model]),
                    ] {
                        let names = |kind: &str| (format!("{ours}.{part}.{kind}"), format!("{theirs}.{other}.{kind}"));
                        let ((weight, their_weight), (bias, their_bias)) = (names("weight"), names("bias"));
                        rules.push(Rule::same(weight, their_weight, &shape));
                        rules.push(Rule::same(bias, their_bias, &shape[1..]));
                    }
                }
                rules.extend(layer_norm("ln_f".to_owned(), format!("{prefix}ln_f")));
            }
            Self::GptNeox => {
                rules.push(Rule::same("wte.weight", format!("{prefix}embed_in.weight"), &[vocab, d_model]));
                for layer in 0..n_layer {
                    let (ours, theirs) = (format!("blocks.{layer}"), format!("{prefix}layers.{layer}"));
                    rules.extend(layer_norm(format!("{ours}.ln_1"), format!("{theirs}.input_layernorm")));
                    rules.extend(layer_norm(format!("{ours}.ln_2"), format!("{theirs}.post_attention_layernorm")));
                    for (part, other, [d_input, d_output], bias, interleaved) in [
                        ("attn.qkv", "attention.query_key_value", [d_model, width], qkv, Some(heads.query)),
                        ("attn.proj", "attention.dense", [d_model, d_model], attention, None),
                        ("mlp.fc", "mlp.dense_h_to_4h", [d_model, d_ff], feed_forward, None),
                        ("mlp.proj", "mlp.dense_4h_to_h", [d_ff, d_model], feed_forward, None),
                    ] {
                        let rule = |kind: &str, d_input| {
                            let theirs = [(format!("{theirs}.{other}.{kind}"), d_output)];
                            Rule { interleaved, ..Rule::stacked(format!("{ours}.{part}.{kind}"), &theirs, d_input) }
                        };
                        rules.push(rule("weight", Some(d_input)));
                        rules.extend(bias.then(|| rule("bias", None)));
                    }
                }
                rules.extend(layer_norm("ln_f".to_owned(), format!("{prefix}final_layer_norm")));
            }
            Self::Llama => {
                rules.push(Rule::same("wte.weight", format!("{prefix}embed_tokens.weight"), &[vocab, d_model]));
                let (asked, kept) = (heads.query * d_head, heads.key_value * d_head);
                for layer in 0..n_layer {
                    let (ours, theirs) = (format!("blocks.{layer}"), format!("{prefix}layers.{layer}"));
                    for (part, other) in [("ln_1", "input_layernorm"), ("ln_2", "post_attention_layernorm")] {
                        let names = (format!("{ours}.{part}.weight"), format!("{theirs}.{other}.weight"));
                        rules.push(Rule::same(names.0, names.1, &[d_model]));
                    }
                    let attend = [("self_attn.q_proj", asked), ("self_attn.k_proj", kept), ("self_attn.v_proj", kept)];
                    for (part, others, d_input, bias) in [
                        ("attn.qkv", &attend[..], d_model, qkv),
                        ("attn.proj", &[("self_attn.o_proj", d_model)], asked, attention),
                        ("mlp.fc", &[("mlp.gate_proj", d_ff), ("mlp.up_proj", d_ff)], d_model, feed_forward),
                        ("mlp.proj", &[("mlp.down_proj", d_model)], d_ff, feed_forward),
                    ] {
                        let rule = |kind: &str, d_input| {
                            let named =
                                |&(other, outputs): &(&str, usize)| (format!("{theirs}.{other}.{kind}"), outputs);
                            let theirs = others.iter().map(named).collect::<Vec<_>>();
                            Rule::stacked(format!("{ours}.{part}.{kind}"), &theirs, d_input)
                        };
                        rules.push(rule("weight", Some(d_input)));
                        rules.extend(bias.then(|| rule("bias", None)));
                    }
                }
                rules.push(Rule::same("ln_f.weight", format!("{prefix}norm.weight"), &[d_model]));
            }
        }
        if !config.architecture.tied {
            let name = if self == Self::GptNeox { OUTPUTS[1] } else { OUTPUTS[0] };
            rules.push(Rule::stacked("lm_head.weight".to_owned(), &[(name.to_owned(), vocab)], Some(d_model)));
        }
        rules
    }
}
