//! A language model as a GGUF file, which llama.cpp loads.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use firebrick_tensor::Parameters;
use firebrick_types::TokenId;
use half::{bf16, f16};
use serde_json::Value;

use super::names::{Layout, Names};
use super::text::{GPT2, LLAMA3, QWEN2, kind};
use super::{FACTORS, Format, UNIT, transposed};
use crate::checkpoint::Text;
use crate::config::{FeedForward, Positions, RotaryConfig, RotaryScaling};
use crate::files::hugging_face::describe;
use crate::{Decoder, DecoderConfig, Error};

/// The least number that offsets of tensors are multiples of.
const ALIGNMENT: usize = 32;

/// What the numbers of a GGUF file's matrices are written as; vectors and learned positions are F32 in all of them, as llama.cpp has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GgufFormat {
    /// As they are.
    #[default]
    F32,
    /// IEEE 754's 16 bits, rounded to nearest, ties to even.
    F16,
    /// The upper 16 bits of F32, rounded to nearest, ties to even.
    Bf16,
}

/// Writes a language model with its tokenizer and chat template as a GGUF file of version 3, as llama.cpp's converter does.
///
/// The shape is GPT-2's, Llama's or Qwen2's, the tokenizer a byte-level byte-pair encoding that cuts text as one that llama.cpp knows. Of the
/// tokens that end a turn a file names two, `eos_token` and the one behind an answer; programs know others by their names. Tokens of the
/// network that the tokenizer does not have are called `[PAD…]`, and those that the network does not have are left out. The file is written
/// beside its place and renamed.
///
/// llama.cpp computes GELU by tanh: a model of GPT-2's shape with the exact GELU, [`Architecture::gpt`](crate::Architecture::gpt), gives
/// slightly other numbers there (the unit's output differs by at most 5e-4). [`open_gguf`](crate::open_gguf) reads it as it was.
///
/// # Errors
/// If the file is there already or cannot be written, the shape or the tokenizer is of another kind, or a number is beyond those of the
/// format.
pub fn save_gguf(
    model: &Decoder,
    config: &DecoderConfig,
    text: &Text,
    format: GgufFormat,
    path: &Path,
) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::Exists { path: path.to_owned() });
    }
    let refused = |reason: String| Error::Gguf { path: path.to_owned(), reason };
    let described =
        describe(config).and_then(|(family, described)| Some((family, Names::of(described["model_type"].as_str()?)?)));
    let (family, names) = described.ok_or_else(|| {
        refused("no architecture of gpt2, llama, qwen2 has this shape; write a folder of transformers".to_owned())
    })?;
    let mut metadata = Metadata::default();
    metadata.text("general.architecture", names.architecture);
    metadata.text("general.type", "model");
    metadata.text("general.name", &path.file_stem().unwrap_or_default().to_string_lossy());
    metadata.number("general.file_type", format.file_type());
    describe_shape(&mut metadata, names, config);
    describe_text(&mut metadata, text, config.vocab)
        .map_err(|reason| Error::Tokenizer { path: path.to_owned(), reason })?;
    let mut tensors = Vec::new();
    if let Some(factors) = factors(config) {
        if names.architecture != "llama" {
            return Err(refused(format!(
                "llama.cpp knows Llama 3's scaling of rotary positions of llama alone, not of {}",
                names.architecture
            )));
        }
        tensors.push(Tensor {
            name: FACTORS.to_owned(),
            shape: vec![factors.len()],
            format: Format::F32,
            values: factors,
        });
    }
    let mut checkpoint = family.checkpoint(config, &Parameters::of(model));
    let listed = checkpoint.iter().map(|(name, shape, _)| (name.to_owned(), shape.to_vec())).collect::<Vec<_>>();
    for (theirs, shape) in listed {
        let name = names.ours(&theirs).expect("every tensor of the family has a name in GGUF files");
        let values = checkpoint.remove(&theirs).expect("it was listed");
        let (shape, values) = match (names.layout(&name, config), shape.as_slice()) {
            (Layout::Pairs { heads }, &[rows, ..]) => {
                let values = pairs_together(&values, heads, rows);
                (shape, values)
            }
            (Layout::Transposed, &[rows, columns]) => (vec![columns, rows], transposed(&values, rows)),
            _ => (shape, values),
        };
        let format =
            if shape.len() == 1 || name == "position_embd.weight" { Format::F32 } else { format.of_matrices() };
        let tensor = Tensor { name, shape, format, values };
        if let Some(value) = tensor.beyond() {
            let (name, format) = (&tensor.name, tensor.format.name());
            return Err(refused(format!(
                "tensor `{name}` holds {value}, which {format} cannot hold; write BF16 or F32"
            )));
        }
        tensors.push(tensor);
    }
    in_place(path, |file| write(file, &metadata, &tensors))
        .map_err(|source| Error::Write { path: path.to_owned(), source })
}

impl GgufFormat {
    fn of_matrices(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::F16 => Format::F16,
            Self::Bf16 => Format::Bf16,
        }
    }

    /// What `general.file_type` says.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 32,
        }
    }
}

/// Keys with their values, as they stand in a file.
#[derive(Default)]
struct Metadata {
    count: u64,
    bytes: Vec<u8>,
}

impl Metadata {
    fn value(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.count += 1;
        self.bytes.extend(length_and_text(key));
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(value);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.value(key, 8, &length_and_text(value));
    }

    fn number(&mut self, key: &str, value: u32) {
        self.value(key, 4, &value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f64) {
        self.value(key, 6, &(value as f32).to_le_bytes());
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.value(key, 7, &[u8::from(value)]);
    }

    fn list(&mut self, key: &str, kind: u32, values: impl ExactSizeIterator<Item = Vec<u8>>) {
        let mut bytes = [&kind.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        values.for_each(|value| bytes.extend(value));
        self.value(key, 9, &bytes);
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.list(key, 8, values.iter().map(|value| length_and_text(value)));
    }

    fn integers(&mut self, key: &str, values: &[u64]) {
        self.list(key, 5, values.iter().map(|&value| (value as i32).to_le_bytes().to_vec()));
    }
}

fn length_and_text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn describe_shape(metadata: &mut Metadata, names: &Names, config: &DecoderConfig) {
    let name = names.architecture;
    let of = |key: &str| format!("{name}.{key}");
    let heads = config.heads();
    for (key, number) in [
        ("vocab_size", config.vocab),
        ("context_length", config.context),
        ("embedding_length", config.d_model),
        ("block_count", config.n_layer),
        ("feed_forward_length", config.d_ff),
        ("attention.head_count", heads.query),
        ("attention.head_count_kv", heads.key_value),
    ] {
        metadata.number(&of(key), number as u32);
    }
    let epsilon = config.architecture.norm_epsilon;
    let Positions::Rotary(rotary) = config.architecture.positions else {
        metadata.float(&of("attention.layer_norm_epsilon"), epsilon);
        if config.architecture.feed_forward == FeedForward::Gelu {
            metadata.text(UNIT, "gelu");
        }
        return;
    };
    metadata.float(&of("attention.layer_norm_rms_epsilon"), epsilon);
    metadata.number(&of("rope.dimension_count"), rotary.dims as u32);
    metadata.float(&of("rope.freq_base"), rotary.theta);
    if let RotaryScaling::Linear { factor } = rotary.scaling {
        metadata.text(&of("rope.scaling.type"), "linear");
        metadata.float(&of("rope.scaling.factor"), factor);
    }
}

/// What Llama 3's scaling divides each frequency by.
fn factors(config: &DecoderConfig) -> Option<Vec<f32>> {
    let Positions::Rotary(rotary @ RotaryConfig { scaling: RotaryScaling::Llama3 { .. }, .. }) =
        config.architecture.positions
    else {
        return None;
    };
    let plain = RotaryConfig { scaling: RotaryScaling::None, ..rotary }.frequencies();
    Some(plain.iter().zip(rotary.frequencies()).map(|(plain, scaled)| (plain / scaled) as f32).collect())
}

fn describe_text(metadata: &mut Metadata, Text { renderer, .. }: &Text, vocab: usize) -> Result<(), String> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let (tokenizer, template) = (renderer.tokenizer(), renderer.template());
    let json: Value = serde_json::from_str(&tokenizer.to_json()).expect("a tokenizer is written as JSON");
    if json["decoder"]["type"] != "ByteLevel" {
        return Err("`decoder` is not ByteLevel; byte-level encodings alone can be written into a GGUF file".to_owned());
    }
    let pre = pre(&json)?;
    let mut tokens = (0..vocab).map(|id| (format!("[PAD{id}]"), kind::UNUSED)).collect::<Vec<_>>();
    let mut set = |id: &Value, name: &str, kind: u64| {
        // A token that was added may lie beyond the network's.
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok()).and_then(|id| tokens.get_mut(id));
        if let Some(place) = place {
            *place = (name.to_owned(), kind);
        }
    };
    for (name, id) in json["model"]["vocab"].as_object().into_iter().flatten() {
        set(id, name, kind::NORMAL);
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if token["special"] == true { kind::CONTROL } else { kind::USER };
        set(&token["id"], token["content"].as_str().unwrap_or_default(), kind);
    }
    let (tokens, kinds) = tokens.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
    let merges = json["model"]["merges"].as_array().into_iter().flatten().map(|merge| match merge {
        Value::String(both) => both.clone(),
        halves => [&halves[0], &halves[1]].map(|half| half.as_str().unwrap_or_default()).join(" "),
    });
    metadata.text(&key("model"), "gpt2");
    metadata.text(&key("pre"), pre);
    metadata.texts(&key("tokens"), &tokens);
    metadata.integers(&key("token_type"), &kinds);
    metadata.texts(&key("merges"), &merges.collect::<Vec<_>>());

    let named = |key: &str| template.tokens().get(key).and_then(|name| tokenizer.token(name));
    let end = renderer.end();
    let eos = named("eos_token").unwrap_or(end);
    let (bos, begins) = match *tokenizer.beginning() {
        [] => (named("bos_token"), false),
        [bos] => (Some(bos), true),
        ref several => {
            return Err(format!("texts begin with {} tokens; a GGUF file names one", several.len()));
        }
    };
    for (name, id) in [
        ("bos_token_id", bos),
        ("eos_token_id", Some(eos)),
        ("eot_token_id", (end != eos).then_some(end)),
        ("unknown_token_id", named("unk_token")),
        ("padding_token_id", named("pad_token")),
    ] {
        if let Some(id) = id.filter(|&id: &TokenId| (id as usize) < vocab) {
            metadata.number(&key(name), id);
        }
    }
    metadata.flag(&key("add_bos_token"), begins);
    let bytes = parts(&json["pre_tokenizer"]).last().is_some_and(|last| last["add_prefix_space"] == true);
    metadata.flag(&key("add_space_prefix"), bytes);
    metadata.text("tokenizer.chat_template", template.source());
    Ok(())
}

/// A step, or those of a sequence.
fn parts(steps: &Value) -> &[Value] {
    match steps["pretokenizers"].as_array() {
        Some(several) => several,
        None => std::slice::from_ref(steps),
    }
}

/// What llama.cpp calls the way in which text is cut before pairs are merged.
fn pre(json: &Value) -> Result<&'static str, String> {
    let steps = &json["pre_tokenizer"];
    let parts = parts(steps);
    let described = parts.split_last().filter(|(bytes, _)| bytes["type"] == "ByteLevel").and_then(|(bytes, before)| {
        let by_itself = bytes["use_regex"] != false;
        let split = |step: &Value| match step["behavior"].as_str() {
            Some("Isolated") if step["type"] == "Split" && step["invert"] != true => {
                step["pattern"]["Regex"].as_str().map(str::to_owned)
            }
            _ => None,
        };
        match before {
            [] if by_itself => Some(Cut::Gpt2),
            [digits] if by_itself && digits["type"] == "Digits" && digits["individual_digits"] == true => {
                Some(Cut::Digits)
            }
            [step] if !by_itself => match split(step)?.as_str() {
                LLAMA3 => Some(Cut::Llama3),
                QWEN2 => Some(Cut::Qwen2),
                pattern => GPT2.contains(&pattern).then_some(Cut::Gpt2),
            },
            _ => None,
        }
    });
    let normalizer = json["normalizer"]["type"].as_str();
    let whole_words = json["model"]["ignore_merges"] == true;
    match (described, normalizer, whole_words) {
        (Some(Cut::Gpt2), None, false) => Ok("gpt-2"),
        (Some(Cut::Gpt2), Some("NFC"), false) => Ok("olmo"),
        (Some(Cut::Digits), None, false) => Ok("smollm"),
        (Some(Cut::Llama3), None, true) => Ok("llama-bpe"),
        (Some(Cut::Qwen2), Some("NFC"), false) => Ok("qwen2"),
        _ => Err(format!(
            "llama.cpp has no name for this way to cut text: `pre_tokenizer` {steps}, `normalizer` {}, `ignore_merges` \
             {whole_words}; known are those of gpt-2, olmo, smollm, llama-bpe, qwen2; write a folder of transformers",
            json["normalizer"]
        )),
    }
}

/// Ways to cut text before pairs are merged.
enum Cut {
    Gpt2,
    /// As GPT-2, digits one by one.
    Digits,
    Llama3,
    Qwen2,
}

/// Rows of heads with the two numbers of every turned pair beside each other, which lie half a head apart.
fn pairs_together(values: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let (d_head, columns) = (rows / heads, values.len() / rows);
    let row = |row: usize| {
        let (head, number) = (row / d_head, row % d_head);
        let (pair, half) = (number / 2, number % 2);
        &values[(head * d_head + half * (d_head / 2) + pair) * columns..][..columns]
    };
    (0..rows).flat_map(row).copied().collect()
}

/// A tensor to be written.
struct Tensor {
    name: String,
    /// The slowest dimension first.
    shape: Vec<usize>,
    format: Format,
    values: Vec<f32>,
}

impl Tensor {
    /// A number that rounding makes infinite.
    fn beyond(&self) -> Option<f32> {
        let is_kept = |value: f32| match self.format {
            Format::F16 => f16::from_f32(value).is_finite(),
            Format::Bf16 => bf16::from_f32(value).is_finite(),
            _ => true,
        };
        self.values.iter().copied().find(|&value| value.is_finite() && !is_kept(value))
    }

    fn bytes(&self) -> Vec<u8> {
        let values = self.values.iter();
        match self.format {
            Format::F16 => values.flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            Format::Bf16 => values.flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
            _ => values.flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    fn size(&self) -> usize {
        self.values.len() * self.format.block().1
    }
}

fn write(file: &mut impl io::Write, metadata: &Metadata, tensors: &[Tensor]) -> io::Result<()> {
    let mut head = b"GGUF".to_vec();
    head.extend(3_u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend(metadata.count.to_le_bytes());
    head.extend(&metadata.bytes);
    let mut offset = 0;
    for tensor in tensors {
        head.extend(length_and_text(&tensor.name));
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        head.extend(tensor.shape.iter().rev().flat_map(|&size| (size as u64).to_le_bytes()));
        head.extend(tensor.format.number().to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        offset = (offset + tensor.size()).next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    file.write_all(&head)?;
    for tensor in tensors {
        let mut bytes = tensor.bytes();
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes a file beside its place, `….partial`, and renames it when it is on the disk.
fn in_place(path: &Path, contents: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut partial = OsString::from(path);
    partial.push(".partial");
    let written = File::create(&partial).and_then(|file| {
        let mut file = BufWriter::new(file);
        contents(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&partial, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2⁻¹¹ and 2⁻⁸ are half of the last place of F16 and BF16 at 1: ties go to the even neighbour.
    #[test]
    fn numbers_are_rounded_to_nearest_and_ties_to_even() {
        for (format, half, largest) in
            [(Format::F16, 2_f32.powi(-11), 65_504.0), (Format::Bf16, 2_f32.powi(-8), 3.389_531_4e38)]
        {
            let values = [1.0 + half, 1.0 + 3.0 * half, 1.0 + half * 1.001, -1.0 - half, 0.0, -0.0, largest];
            let expected = [1.0, 1.0 + 4.0 * half, 1.0 + 2.0 * half, -1.0, 0.0, -0.0, largest];
            let tensor = Tensor { name: "x".to_owned(), shape: vec![7], format, values: values.to_vec() };
            let mut found = [0.0_f32];
            for (bytes, expected) in tensor.bytes().chunks_exact(2).zip(expected) {
                format.widen(bytes, &mut found);
                assert_eq!(found[0].to_bits(), f32::to_bits(expected), "{} for {expected}", found[0]);
            }
            assert_eq!(tensor.beyond(), None);
            let beyond = Tensor { values: vec![f32::INFINITY, f32::MAX], ..tensor };
            assert_eq!(beyond.beyond(), Some(f32::MAX));
        }
    }

    #[test]
    fn halves_become_pairs_side_by_side() {
        // One head of four rows: pairs (0, 2) and (1, 3) with their halves apart are (0, 1) and (2, 3) side by side.
        assert_eq!(pairs_together(&[0.0, 1.0, 2.0, 3.0], 1, 4), [0.0, 2.0, 1.0, 3.0]);
        // Two heads of four rows of one number.
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        assert_eq!(pairs_together(&values, 2, 8), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    }
}
