//! The tokenizer inside a GGUF file, as the `tokenizer.json` that it was made of.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use firebrick_text::{ChatTemplate, Renderer, Source, Tokenizer, TurnEnds};
use firebrick_types::TokenId;
use serde_json::{Value, json};

use super::{GgufTokenizer, read_gguf_tokenizer};
use crate::Error;
use crate::checkpoint::{GenerationConfig, Text};

/// Kinds of tokens, as `tokenizer.ggml.token_type` numbers them.
pub(super) mod kind {
    pub(in crate::files::gguf) const NORMAL: u64 = 1;
    pub(in crate::files::gguf) const UNKNOWN: u64 = 2;
    pub(in crate::files::gguf) const CONTROL: u64 = 3;
    pub(in crate::files::gguf) const USER: u64 = 4;
    pub(in crate::files::gguf) const UNUSED: u64 = 5;
    pub(in crate::files::gguf) const BYTE: u64 = 6;
}

/// The longest token of SentencePiece that is taken apart, in bytes: a damaged file must not make us try every cut of megabytes.
const LONGEST: usize = 256;

/// What cuts text of GPT-2, where it is spelt out.
pub(super) const GPT2: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];

/// What cuts text of Llama 3, and of Qwen 2, which takes digits one by one.
pub(super) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub(super) const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The tokenizer, template and generation settings of a file, or none where it has no tokenizer.
///
/// # Errors
/// If the file is damaged, or the tokenizer of a kind that is not built here.
pub(crate) fn text(path: &Path) -> Result<Option<Text>, Error> {
    let Some(found) = read_gguf_tokenizer(path)? else { return Ok(None) };
    let refused = |reason: String| Error::Tokenizer { path: path.to_owned(), reason };
    let json = match found.model.as_str() {
        "gpt2" => byte_level(&found),
        "llama" => sentence_piece(&found),
        other => Err(format!("`tokenizer.ggml.model` is `{other}`; known are gpt2, llama")),
    };
    let json = json.map_err(refused)?;
    let name = |id: Option<TokenId>| id.map(|id| found.tokens[id as usize].clone());
    let tokenizer = Tokenizer::parse(&json.to_string(), path, name(found.eos).as_deref())?;
    let tokens = [
        ("bos_token", found.bos),
        ("eos_token", found.eos),
        ("unk_token", found.unknown),
        ("pad_token", found.padding),
    ];
    let tokens = tokens.into_iter().filter_map(|(key, id)| Some((key.to_owned(), name(id)?)));
    let tokens = tokens.collect::<BTreeMap<_, _>>();
    let template = match found.chat_template.as_deref() {
        None | Some("") => ChatTemplate::dialogue().with_tokens(tokens),
        Some(source) => ChatTemplate::jinja(source, format!("{}, `tokenizer.chat_template`", path.display()), tokens)?,
    };
    let keys = [(found.eos, "tokenizer.ggml.eos_token_id"), (found.eot, "tokenizer.ggml.eot_token_id")];
    let keys = keys.into_iter().filter_map(|(id, key)| Some((id?, Source::Key(key)))).collect::<Vec<_>>();
    let turn_ends = TurnEnds::find(&keys, &tokenizer, &template);
    let renderer = Renderer::new(tokenizer, template, turn_ends);
    Ok(Some(Text { renderer, generation: GenerationConfig::default() }))
}

/// The ids by name.
fn vocabulary(found: &GgufTokenizer) -> Result<HashMap<&str, usize>, String> {
    let mut vocabulary = HashMap::new();
    for (id, token) in found.tokens.iter().enumerate() {
        if let Some(other) = vocabulary.insert(token.as_str(), id) {
            return Err(format!("`tokenizer.ggml.tokens` holds {token:?} twice, as {other} and as {id}"));
        }
    }
    Ok(vocabulary)
}

/// Tokens that are recognised as a whole: control tokens, and those that its user added.
fn added(found: &GgufTokenizer) -> Value {
    let ends = [found.bos, found.eos, found.eot];
    let added = found.tokens.iter().enumerate().filter_map(|(id, token)| {
        let kind = found.kinds.get(id).copied();
        let special = kind == Some(kind::CONTROL) || ends.contains(&Some(id as TokenId));
        (special || kind == Some(kind::USER)).then(|| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special})
        })
    });
    added.collect()
}

/// What puts the beginning of a text before it, for programs that ask for that.
fn beginning(found: &GgufTokenizer, standard: bool) -> Value {
    let Some(bos) = found.bos.filter(|_| found.add_bos.unwrap_or(standard)) else { return Value::Null };
    let name = &found.tokens[bos as usize];
    let special = json!({"SpecialToken": {"id": name, "type_id": 0}});
    let of = |part: &str, kind: u32| json!({"Sequence": {"id": part, "type_id": kind}});
    json!({
        "type": "TemplateProcessing",
        "single": [special, of("A", 0)],
        "pair": [special, of("A", 0), of("B", 1)],
        "special_tokens": {name: {"id": name, "ids": [bos], "tokens": [name]}},
    })
}

fn byte_level(found: &GgufTokenizer) -> Result<Value, String> {
    let vocabulary = vocabulary(found)?;
    let mut merges = Vec::with_capacity(found.merges.len());
    for (index, merge) in found.merges.iter().enumerate() {
        let halves = merge.split_once(' ').filter(|(left, right)| {
            [left, right].iter().all(|half| vocabulary.contains_key(*half))
                && vocabulary.contains_key(format!("{left}{right}").as_str())
        });
        let Some((left, right)) = halves else {
            return Err(format!(
                "`tokenizer.ggml.merges`, entry {index}: {merge:?} is not two tokens of `tokenizer.ggml.tokens` that make \
                 a third"
            ));
        };
        merges.push(json!([left, right]));
    }
    let bytes = |cuts: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": found.add_space_prefix == Some(true), "trim_offsets": true,
            "use_regex": cuts})
    };
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let sequence = |first: Value, cuts: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(cuts)]});
    let mut normalizer = Value::Null;
    // Llama 3's kind puts the beginning before a text where the file does not say.
    let mut of_llama3 = false;
    // Files that were made before this key was, or by programs that did not know it, say nothing or `default`.
    let pre_tokenizer = match found.pre.as_deref().unwrap_or("default") {
        "default" | "gpt-2" | "gpt2" | "phi-2" | "olmo" => bytes(true),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            sequence(json!({"type": "Digits", "individual_digits": true}), true)
        }
        "llama-bpe" | "llama3" | "llama-v3" => {
            of_llama3 = true;
            sequence(split(LLAMA3), false)
        }
        "qwen2" | "deepseek-r1-qwen" => {
            normalizer = json!({"type": "NFC"});
            sequence(split(QWEN2), false)
        }
        other => {
            return Err(format!(
                "`tokenizer.ggml.pre` is `{other}`; known are gpt-2, phi-2, olmo, smollm, starcoder, refact, command-r, \
                 codeshell, llama-bpe, qwen2, deepseek-r1-qwen, default"
            ));
        }
    };
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(found),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": beginning(found, of_llama3),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": of_llama3,
            "vocab": vocabulary, "merges": merges,
        },
    }))
}

/// SentencePiece joins the two neighbours whose joint token has the best score. As a list of merges: the tokens from the best score
/// to the worst, each by every cut into two tokens.
fn sentence_piece(found: &GgufTokenizer) -> Result<Value, String> {
    let vocabulary = vocabulary(found)?;
    if found.scores.is_empty() && !found.tokens.is_empty() {
        return Err("`tokenizer.ggml.scores` is missing".to_owned());
    }
    let is_normal = |id: usize| found.kinds.get(id).is_none_or(|&kind| kind == kind::NORMAL);
    let mut order = (0..found.tokens.len()).filter(|&id| is_normal(id)).collect::<Vec<_>>();
    order.sort_by(|&a, &b| found.scores[b].total_cmp(&found.scores[a]).then(a.cmp(&b)));
    let is_part = |part: &str| vocabulary.get(part).is_some_and(|&id| is_normal(id));
    let mut merges = Vec::new();
    for id in order {
        let token = &found.tokens[id];
        if token.len() > LONGEST {
            return Err(format!("`tokenizer.ggml.tokens`, entry {id}: longer than {LONGEST} bytes"));
        }
        let cuts = token.char_indices().skip(1).map(|(cut, _)| token.split_at(cut));
        merges.extend(cuts.filter(|(left, right)| is_part(left) && is_part(right)).map(|halves| json!(halves)));
    }
    let unknown = found.unknown.map(|id| id as usize);
    let unknown = unknown.or_else(|| found.kinds.iter().position(|&kind| kind == kind::UNKNOWN));
    let bytes = found.kinds.contains(&kind::BYTE) || vocabulary.contains_key("<0x00>");
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let prefix = found.add_space_prefix.unwrap_or(true);
    let normalizers = match prefix {
        true => vec![json!({"type": "Prepend", "prepend": "\u{2581}"}), spaces],
        false => vec![spaces],
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(found),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": beginning(found, true),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown.map(|id| &found.tokens[id]),
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": bytes,
            "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    }))
}
