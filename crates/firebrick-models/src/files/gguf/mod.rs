//! Checkpoints in GGUF files: GPT-2's, Llama's and Qwen2's architectures, quantised or not; written as F32, F16 or BF16.
//!
//! A file holds metadata, then a list of tensors, then their bytes. Every count, length and offset is checked against the file
//! before it is trusted. Weights are widened to `f32`.

mod names;
pub(crate) mod text;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek, SeekFrom};
use std::path::Path;

use burn::tensor::Device;
use firebrick_tensor::Parameters;
use firebrick_types::TokenId;
use half::{bf16, f16};

use self::names::{Layout, Names};
use crate::config::{Architecture, Biases, FeedForward, Positions, RotaryConfig, RotaryScaling};
use crate::{Decoder, DecoderConfig, Error};

/// What each frequency of rotary positions is divided by.
const FACTORS: &str = "rope_freqs.weight";

/// That a model of GPT-2's shape has the exact GELU, of which other programs do not know.
const UNIT: &str = "firebrick.activation_function";

/// Reads a decoder from a GGUF file.
///
/// Numbers may be F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K or Q6_K.
///
/// # Errors
/// If the file cannot be read, is damaged, or holds another architecture or number format; or a tensor is missing, surplus or of
/// another shape than the metadata says.
pub fn open_gguf(path: &Path, device: &Device) -> Result<(Decoder, DecoderConfig), Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let damaged = |reason: String| Error::Gguf { path: path.to_owned(), reason };
    let file = File::parse(&bytes).map_err(damaged)?;
    let config = file.config().map_err(damaged)?;
    config.validate()?;
    let names = file.names().map_err(damaged)?;
    let checkpoint = file.checkpoint(names, &config).map_err(damaged)?;
    drop(bytes);
    let model = names
        .family
        .parameters(&config, checkpoint)
        .and_then(|parameters| parameters.load(config.blank(device)))
        .map_err(|source| Error::Parameters { path: path.to_owned(), source })?;
    Ok((model, config))
}

/// The shape of the decoder of a GGUF file, without its weights.
///
/// # Errors
/// If the file cannot be read, is damaged, or holds another architecture.
pub(crate) fn config(path: &Path) -> Result<DecoderConfig, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let config = File::parse(&bytes).and_then(|file| file.config());
    let config = config.map_err(|reason| Error::Gguf { path: path.to_owned(), reason })?;
    config.validate()?;
    Ok(config)
}

/// The tokenizer that a GGUF file carries, as its metadata says it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GgufTokenizer {
    /// `general.name`.
    pub name: Option<String>,
    /// `tokenizer.ggml.model`: `gpt2` is a byte-level byte-pair encoding, `llama` one of SentencePiece with bytes to fall back on.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is cut before pairs are merged.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, the token of each id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`, none or one a token.
    pub scores: Vec<f64>,
    /// `tokenizer.ggml.token_type`, none or one a token: 1 normal, 2 unknown, 3 control, 4 the user's, 5 unused, 6 a byte.
    pub kinds: Vec<u64>,
    /// `tokenizer.ggml.merges`, best first, the two halves with a space between.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<TokenId>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<TokenId>,
    /// `tokenizer.ggml.eot_token_id`: the end of a turn.
    pub eot: Option<TokenId>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<TokenId>,
    /// `tokenizer.ggml.padding_token_id`.
    pub padding: Option<TokenId>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`, in Jinja.
    pub chat_template: Option<String>,
}

/// Reads the tokenizer of a GGUF file, and not its tensors; none, where it has none.
///
/// # Errors
/// If the file cannot be read or is damaged, a key is of another kind than expected, there are not as many scores or kinds as tokens,
/// or an id lies outside of the tokens.
pub fn read_gguf_tokenizer(path: &Path) -> Result<Option<GgufTokenizer>, Error> {
    let bytes = head(path)?;
    let damaged = |reason: String| Error::Gguf { path: path.to_owned(), reason };
    File::parse(&bytes).and_then(|file| file.tokenizer()).map_err(damaged)
}

/// Counts the numbers of a GGUF file by their format, without reading them.
///
/// # Errors
/// If the file cannot be read, is damaged, or holds a format that is not built here.
pub fn read_gguf_formats(path: &Path) -> Result<BTreeMap<String, usize>, Error> {
    let bytes = head(path)?;
    let file = File::parse(&bytes).map_err(|reason| Error::Gguf { path: path.to_owned(), reason })?;
    let mut formats = BTreeMap::new();
    for entry in file.tensors.values() {
        let count = entry.shape.iter().fold(1_usize, |count, &size| count.saturating_mul(size));
        let sum = formats.entry(entry.format.name().to_owned()).or_insert(0_usize);
        *sum = sum.saturating_add(count);
    }
    Ok(formats)
}

/// The beginning of a file, metadata and list of tensors at least, or all of it where it is damaged.
fn head(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(failed)?;
    let whole = file.metadata().map_err(failed)?.len();
    let mut size = 16 << 20;
    loop {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        (&mut file).take(size).read_to_end(&mut bytes).map_err(failed)?;
        if size >= whole || File::parse(&bytes).is_ok() {
            return Ok(bytes);
        }
        size *= 4;
    }
}

/// What is read of a file; reasons name what is wrong.
type Read<T> = Result<T, String>;

/// A value of the metadata, as far as it is needed.
#[derive(Debug)]
enum Value {
    Integer(u64),
    Float(f64),
    Text(String),
    Integers(Vec<u64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

/// A tensor of the list.
struct Entry {
    /// The slowest dimension first.
    shape: Vec<usize>,
    format: Format,
    offset: usize,
}

struct File<'a> {
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Entry>,
    data: &'a [u8],
}

/// Bytes read one after the other.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("it ends too soon")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were taken"))
    }

    fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `least` bytes each.
    fn count(&mut self, least: usize) -> Read<usize> {
        let count = usize::try_from(self.u64()?).map_err(|_| "a count is too large")?;
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(format!("a count of {count} is more than the file holds")),
        }
    }

    fn text(&mut self) -> Read<String> {
        let length = self.count(1)?;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn value(&mut self, kind: u32) -> Read<Value> {
        Ok(match kind {
            0 | 1 | 7 => Value::Integer(u64::from(self.array::<1>()?[0])),
            2 | 3 => Value::Integer(u64::from(u16::from_le_bytes(self.array()?))),
            4 | 5 => Value::Integer(u64::from(self.u32()?)),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            8 => Value::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                let count = self.count(1)?;
                match kind {
                    6 | 12 => Value::Floats(self.list(count, kind, Value::float)?),
                    8 => Value::Texts(self.list(count, kind, Value::text)?),
                    9 => return Err("a list of lists".to_owned()),
                    _ => Value::Integers(self.list(count, kind, Value::integer)?),
                }
            }
            10 | 11 => Value::Integer(self.u64()?),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("metadata of the unknown kind {other}")),
        })
    }
}

impl Cursor<'_> {
    /// A list of values of one kind.
    fn list<T>(&mut self, count: usize, kind: u32, of: impl Fn(Value) -> Option<T>) -> Read<Vec<T>> {
        (0..count).map(|_| Ok(of(self.value(kind)?).expect("the kind was looked at"))).collect()
    }
}

impl Value {
    fn integer(self) -> Option<u64> {
        if let Self::Integer(number) = self { Some(number) } else { None }
    }

    fn float(self) -> Option<f64> {
        if let Self::Float(number) = self { Some(number) } else { None }
    }

    fn text(self) -> Option<String> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// What kind of value it is, for errors: a list may be long.
    fn kind(&self) -> &'static str {
        match self {
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Integers(_) => "a list of whole numbers",
            Self::Floats(_) => "a list of numbers",
            Self::Texts(_) => "a list of texts",
        }
    }
}

impl<'a> File<'a> {
    fn parse(bytes: &'a [u8]) -> Read<Self> {
        let mut cursor = Cursor { rest: bytes };
        if cursor.take(4) != Ok(b"GGUF") {
            return Err("it does not begin with GGUF".to_owned());
        }
        let version = cursor.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("its version is {version}; 2 and 3 can be read"));
        }
        // A tensor's entry has at least a name's length, a dimension, a format and an offset; a value has a name and a kind.
        let (tensor_count, value_count) = (cursor.count(24)?, cursor.count(13)?);
        let mut metadata = BTreeMap::new();
        for _ in 0..value_count {
            let name = cursor.text()?;
            let kind = cursor.u32()?;
            metadata.insert(name, cursor.value(kind)?);
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = cursor.text()?;
            let dimensions = cursor.u32()?;
            if !(1..=4).contains(&dimensions) {
                return Err(format!("tensor `{name}` has {dimensions} dimensions"));
            }
            let mut shape = Vec::new();
            for _ in 0..dimensions {
                shape.push(usize::try_from(cursor.u64()?).map_err(|_| format!("tensor `{name}` is too large"))?);
            }
            shape.reverse();
            let format = Format::of(cursor.u32()?).ok_or_else(|| {
                format!("tensor `{name}` has another number format than F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K")
            })?;
            let offset = usize::try_from(cursor.u64()?).map_err(|_| format!("tensor `{name}` lies too far"))?;
            tensors.insert(name, Entry { shape, format, offset });
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Integer(alignment)) if (1..=65_536).contains(alignment) => *alignment as usize,
            Some(_) => return Err("`general.alignment` is no whole number from 1 to 65536".to_owned()),
        };
        let read = bytes.len() - cursor.rest.len();
        let data = bytes.get(read.next_multiple_of(alignment)..).ok_or("it ends before its tensors")?;
        Ok(Self { metadata, tensors, data })
    }

    fn text(&self, key: &str) -> Read<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(format!("`{key}` is missing")),
        }
    }

    fn integer(&self, key: &str) -> Read<usize> {
        match self.metadata.get(key) {
            Some(Value::Integer(number)) => usize::try_from(*number).map_err(|_| format!("`{key}` is too large")),
            _ => Err(format!("`{key}` is missing")),
        }
    }

    fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key) {
            Some(Value::Float(number)) => Some(*number),
            _ => None,
        }
    }

    /// What stands at a key, if anything does, by a look at its kind.
    fn optional<'b, T>(&'b self, key: &str, expected: &str, of: impl Fn(&'b Value) -> Option<T>) -> Read<Option<T>> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        of(value).map(Some).ok_or_else(|| format!("`{key}` is {}, expected {expected}", value.kind()))
    }

    fn tokenizer(&self) -> Read<Option<GgufTokenizer>> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let text = |key: &str| {
            self.optional(key, "a text", |value| if let Value::Text(text) = value { Some(text.clone()) } else { None })
        };
        let texts = |name: &str| {
            let of = |value: &Value| if let Value::Texts(texts) = value { Some(texts.clone()) } else { None };
            self.optional(&key(name), "a list of texts", of)
        };
        let Some(model) = text(&key("model"))? else { return Ok(None) };
        let tokens = texts("tokens")?.ok_or_else(|| format!("`{}` is missing", key("tokens")))?;
        let scores = |value: &Value| if let Value::Floats(scores) = value { Some(scores.clone()) } else { None };
        let scores = self.optional(&key("scores"), "a list of numbers", scores)?.unwrap_or_default();
        let kinds = |value: &Value| if let Value::Integers(kinds) = value { Some(kinds.clone()) } else { None };
        let kinds = self.optional(&key("token_type"), "a list of whole numbers", kinds)?.unwrap_or_default();
        for (name, count) in [("scores", scores.len()), ("token_type", kinds.len())] {
            if ![0, tokens.len()].contains(&count) {
                return Err(format!("`{}` has {count} entries for {} tokens", key(name), tokens.len()));
            }
        }
        let integer = |name: &str| {
            let of = |value: &Value| if let Value::Integer(number) = value { Some(*number) } else { None };
            self.optional(&key(name), "a whole number", of)
        };
        let id = |name: &str| match integer(name)? {
            Some(id) if id >= tokens.len() as u64 => {
                Err(format!("`{}` is {id}, but there are {} tokens", key(name), tokens.len()))
            }
            id => Ok(id.map(|id| id as TokenId)),
        };
        let flag = |name: &str| Ok::<_, String>(integer(name)?.map(|flag| flag != 0));
        Ok(Some(GgufTokenizer {
            name: text("general.name")?,
            model,
            pre: text(&key("pre"))?,
            scores,
            kinds,
            merges: texts("merges")?.unwrap_or_default(),
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            unknown: id("unknown_token_id")?,
            padding: id("padding_token_id")?,
            add_bos: flag("add_bos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
            chat_template: text("tokenizer.chat_template")?,
            tokens,
        }))
    }

    /// How the tensors of its architecture are named.
    fn names(&self) -> Read<&'static Names> {
        let name = self.text("general.architecture")?;
        Names::of(name).ok_or_else(|| format!("`general.architecture` is `{name}`; known are gpt2, llama, qwen2"))
    }

    fn config(&self) -> Read<DecoderConfig> {
        let name = self.names()?.architecture;
        let of = |key: &str| format!("{name}.{key}");
        let integer = |key: &str| self.integer(&of(key));
        let (d_model, heads) = (integer("embedding_length")?, integer("attention.head_count")?);
        if heads == 0 || !d_model.is_multiple_of(heads) {
            return Err(format!("{heads} heads do not divide a width of {d_model}"));
        }
        let d_head = d_model / heads;
        let embedding = self.tensors.get("token_embd.weight").ok_or("tensor `token_embd.weight` is missing")?;
        let has = |end: &str| self.tensors.keys().any(|name| name.ends_with(end));
        let positive = |key: &str| self.float(&of(key)).ok_or_else(|| format!("`{}` is missing", of(key)));
        let architecture = if name == "gpt2" {
            let exact = matches!(self.metadata.get(UNIT), Some(Value::Text(unit)) if unit == "gelu");
            Architecture {
                norm_epsilon: positive("attention.layer_norm_epsilon")?,
                feed_forward: if exact { FeedForward::Gelu } else { FeedForward::GeluTanh },
                ..Architecture::gpt()
            }
        } else {
            let theta = self.float(&of("rope.freq_base")).unwrap_or(10_000.0);
            let dims = integer("rope.dimension_count").unwrap_or(d_head);
            let rotary = RotaryConfig { theta, dims, scaling: self.rotary_scaling(name, theta, dims)? };
            Architecture {
                key_value_heads: Some(integer("attention.head_count_kv").unwrap_or(heads)),
                norm_epsilon: positive("attention.layer_norm_rms_epsilon")?,
                positions: Positions::Rotary(rotary),
                biases: Biases {
                    qkv: has("attn_q.bias"),
                    attention: has("attn_output.bias"),
                    feed_forward: has("ffn_down.bias"),
                },
                ..Architecture::llama(d_head)
            }
        };
        Ok(DecoderConfig {
            vocab: embedding.shape[0],
            context: integer("context_length")?,
            n_layer: integer("block_count")?,
            d_model,
            heads,
            d_ff: integer("feed_forward_length")?,
            architecture: Architecture { tied: !self.tensors.contains_key("output.weight"), ..architecture },
        })
    }

    /// A scaling by one factor stands in the metadata, Llama 3.1's in a tensor: what each frequency is divided by.
    fn rotary_scaling(&self, name: &str, theta: f64, dims: usize) -> Read<RotaryScaling> {
        let of = |key: &str| format!("{name}.rope.scaling.{key}");
        match self.metadata.get(&of("type")) {
            None => {}
            Some(Value::Text(kind)) if kind == "none" => {}
            Some(Value::Text(kind)) if kind == "linear" => {
                let factor = self.float(&of("factor")).ok_or_else(|| format!("`{}` is missing", of("factor")))?;
                return Ok(RotaryScaling::Linear { factor });
            }
            Some(Value::Text(kind)) => return Err(format!("`{}` is `{kind}`, which is not supported", of("type"))),
            Some(other) => return Err(format!("`{}` is {}, expected a text", of("type"), other.kind())),
        }
        let Some(entry) = self.tensors.get(FACTORS) else { return Ok(RotaryScaling::None) };
        let factors = entry.values(FACTORS, self.data)?;
        if factors.len() != dims / 2 {
            return Err(format!("tensor `{FACTORS}` has {} numbers for {} pairs", factors.len(), dims / 2));
        }
        let factors = factors.into_iter().map(f64::from).collect::<Vec<_>>();
        RotaryScaling::of_factors(theta, &factors).ok_or_else(|| {
            format!("tensor `{FACTORS}` holds factors that no scaling of Llama 3's kind gives, which is not supported")
        })
    }

    /// The tensors under the names and in the order of `transformers`.
    fn checkpoint(&self, names: &Names, config: &DecoderConfig) -> Read<Parameters> {
        let mut checkpoint = Parameters::default();
        for (name, entry) in self.tensors.iter().filter(|(name, _)| *name != FACTORS) {
            let values = entry.values(name, self.data)?;
            let (shape, values) = match (names.layout(name, config), entry.shape.as_slice()) {
                (Layout::Pairs { heads }, &[rows, ..]) => (entry.shape.clone(), halves_apart(&values, heads, rows)),
                (Layout::Transposed, &[rows, columns]) => (vec![columns, rows], transposed(&values, rows)),
                _ => (entry.shape.clone(), values),
            };
            let renamed = names.theirs(name).unwrap_or_else(|| name.clone());
            checkpoint.insert(renamed, shape, values);
        }
        Ok(checkpoint)
    }
}

/// Rows of heads whose turned pairs are neighbours, with the pairs' halves apart, as `transformers` has them.
fn halves_apart(values: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    if heads == 0 || rows == 0 || !rows.is_multiple_of(2 * heads) {
        return values.to_vec(); // The shape is wrong, which is told when it is checked.
    }
    let (d_head, columns) = (rows / heads, values.len() / rows);
    let row = |row: usize| {
        let (head, number) = (row / d_head, row % d_head);
        let (half, pair) = (number / (d_head / 2), number % (d_head / 2));
        &values[(head * d_head + 2 * pair + half) * columns..][..columns]
    };
    (0..rows).flat_map(row).copied().collect()
}

/// A matrix of so many rows with its columns as rows.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len().checked_div(rows).unwrap_or(0);
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// How numbers are stored: blocks of so many numbers in so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q4K,
    Q6K,
}

impl Format {
    const ALL: [Self; 8] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q4K, Self::Q6K];

    fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.number() == number)
    }

    /// The number that files call it by.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// Its name in the format's documentation.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Numbers and bytes of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }

    /// The numbers of one block.
    fn widen(self, block: &[u8], out: &mut [f32]) {
        let scale = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        match self {
            Self::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Self::F16 => out[0] = scale(0),
            Self::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            Self::Q8_0 => {
                let d = scale(0);
                out.iter_mut().zip(&block[2..]).for_each(|(out, &q)| *out = d * f32::from(q.cast_signed()));
            }
            Self::Q4_0 | Self::Q4_1 => {
                let (d, offset, first) = match self {
                    Self::Q4_0 => (scale(0), -8.0 * scale(0), 2),
                    _ => (scale(0), scale(2), 4),
                };
                let (low, high) = out.split_at_mut(16);
                for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[first..]) {
                    *low = d * f32::from(q & 15) + offset;
                    *high = d * f32::from(q >> 4) + offset;
                }
            }
            Self::Q4K => {
                let (d, d_min, scales, quants) = (scale(0), scale(2), &block[4..16], &block[16..]);
                // Eight scales and eight offsets of 6 bits: four as they are, of the others the upper two bits stand with the first.
                let part = |index: usize| {
                    if index < 4 {
                        (scales[index] & 63, scales[index + 4] & 63)
                    } else {
                        let both = scales[index + 4];
                        let upper = |byte: u8| (byte >> 6) << 4;
                        ((both & 15) | upper(scales[index - 4]), (both >> 4) | upper(scales[index]))
                    }
                };
                for (index, out) in out.chunks_exact_mut(32).enumerate() {
                    let (factor, offset) = part(index);
                    let (factor, offset) = (d * f32::from(factor), d_min * f32::from(offset));
                    let shift = 4 * (index % 2);
                    for (out, &q) in out.iter_mut().zip(&quants[index / 2 * 32..]) {
                        *out = factor * f32::from((q >> shift) & 15) - offset;
                    }
                }
            }
            Self::Q6K => {
                let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], scale(208));
                for (index, out) in out.iter_mut().enumerate() {
                    // Halves of 128 numbers, each of four rows of 32.
                    let (half, row, place) = (index / 128, index % 128 / 32, index % 32);
                    let nibble = low[64 * half + 32 * (row % 2) + place] >> (4 * (row / 2)) & 15;
                    let upper = high[32 * half + place] >> (2 * row) & 3;
                    let q = f32::from(nibble | (upper << 4)) - 32.0;
                    let factor = scales[8 * half + 2 * row + place / 16].cast_signed();
                    *out = d * f32::from(factor) * q;
                }
            }
        }
    }
}

impl Entry {
    fn values(&self, name: &str, data: &[u8]) -> Read<Vec<f32>> {
        let (numbers, bytes) = self.format.block();
        let count = self.shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size));
        let count = count.ok_or_else(|| format!("tensor `{name}` is too large"))?;
        if !self.shape[self.shape.len() - 1].is_multiple_of(numbers) {
            return Err(format!("rows of tensor `{name}` are not whole blocks of {numbers}"));
        }
        let end = (count / numbers).checked_mul(bytes).and_then(|size| size.checked_add(self.offset));
        let blocks = end.and_then(|end| data.get(self.offset..end));
        let blocks = blocks.ok_or_else(|| format!("tensor `{name}` reaches beyond the end of the file"))?;
        let mut values = vec![0.0; count];
        for (block, out) in blocks.chunks_exact(bytes).zip(values.chunks_exact_mut(numbers)) {
            self.format.widen(block, out);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        kind: u32,
        bytes: Vec<u8>,
        values: Vec<f32>,
    }

    /// Blocks of random bytes and what the `gguf` package of Python reads in them (tests/checkpoints/make_gguf.py).
    #[test]
    fn every_format_is_read_as_its_reference_reads_it() {
        let goldens = include_str!("../../../tests/checkpoints/gguf_blocks.json");
        let goldens: BTreeMap<String, Golden> = serde_json::from_str(goldens).unwrap();
        assert_eq!(goldens.len(), 8);
        for (name, Golden { kind, bytes, values }) in goldens {
            let format = Format::of(kind).unwrap();
            assert_eq!(format.block(), (values.len(), bytes.len()), "{name}");
            let mut found = vec![0.0; values.len()];
            format.widen(&bytes, &mut found);
            for (index, (found, expected)) in found.iter().zip(&values).enumerate() {
                assert!(
                    (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                    "{name} {index}: {found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn pairs_side_by_side_become_halves() {
        // One head of four rows: pairs (0, 1) and (2, 3) side by side are (0, 2) and (1, 3) with their halves apart.
        assert_eq!(halves_apart(&[0.0, 1.0, 2.0, 3.0], 1, 4), [0.0, 2.0, 1.0, 3.0]);
        // A tensor of no rows has none to move.
        assert_eq!(halves_apart(&[], 1, 0), [0.0; 0]);
    }
}
