//! GGUF files that are written: read back to the same bits, the tensors of llama.cpp's converter, tokenizers, and what is refused.
//!
//! `tests/llama_cpp/check.mjs` holds such a file against llama.cpp.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use firebrick_models::checkpoint::{GenerationConfig, Text, open, save_gguf};
use firebrick_models::{
    Architecture, Biases, Decoder, DecoderConfig, FeedForward, GgufFormat, Norm, Positions, RotaryConfig,
    RotaryScaling, open_gguf, open_hugging_face, read_gguf_formats, read_gguf_tokenizer,
};
use firebrick_tensor::{CausalLm, Parameters, TokenBatch};
use firebrick_testkit::cpu;
use firebrick_text::{ChatTemplate, Renderer, Tokenizer, TurnEnds};
use firebrick_types::{Dialogue, Message, Seed};
use half::{bf16, f16};
use proptest::prelude::*;
use serde_json::{Value, json};

const SAID: &str = "The sky is blue and the sea is green. What is it? Hello there, how are you today?";

/// A dialogue's tokenizer as a run trains it.
fn dialogues() -> Text {
    let tokenizer = Tokenizer::train([SAID], 290).unwrap();
    Text { renderer: Renderer::dialogues(tokenizer), generation: GenerationConfig::default() }
}

/// The same tokenizer with parts changed.
fn with(change: impl Fn(&mut Value)) -> Text {
    let mut json: Value = serde_json::from_str(&dialogues().renderer.tokenizer().to_json()).unwrap();
    change(&mut json);
    let tokenizer = Tokenizer::parse(&json.to_string(), Path::new("test"), None).unwrap();
    Text { renderer: Renderer::dialogues(tokenizer), generation: GenerationConfig::default() }
}

fn shape(architecture: Architecture, vocab: usize) -> DecoderConfig {
    DecoderConfig { vocab, context: 32, n_layer: 2, d_model: 32, heads: 4, d_ff: 48, architecture }
}

/// A model of which every number is its own, norms and biases too.
fn model(config: &DecoderConfig, seed: u64) -> Decoder {
    let model = config.init(Seed::new(seed), &cpu());
    let mut moved = Parameters::default();
    for (index, (name, shape, values)) in Parameters::of(&model).iter().enumerate() {
        let noise = Seed::new(seed).at(&[index as u64]).normals(values.len(), 0.2);
        moved.insert(name, shape.to_vec(), values.iter().zip(noise).map(|(value, noise)| value + noise).collect());
    }
    moved.load(model).unwrap()
}

/// As a file keeps it.
fn narrowed(config: DecoderConfig) -> DecoderConfig {
    let norm_epsilon = f64::from(config.architecture.norm_epsilon as f32);
    let key_value_heads = match config.architecture.positions {
        Positions::Learned => None,
        Positions::Rotary(_) => Some(config.heads().key_value),
    };
    DecoderConfig { architecture: Architecture { norm_epsilon, key_value_heads, ..config.architecture }, ..config }
}

fn logits(model: &Decoder) -> Vec<u32> {
    let batch = TokenBatch::of(&[&[3, 1, 4, 1, 5, 9, 2, 6][..], &[2, 7, 1]], &cpu());
    model.logits(&batch).into_data().iter::<f32>().map(f32::to_bits).collect()
}

fn architectures() -> impl Strategy<Value = Architecture> {
    let gpt2 = (any::<bool>(), any::<bool>()).prop_map(|(tied, exact)| Architecture {
        tied,
        feed_forward: if exact { FeedForward::Gelu } else { FeedForward::GeluTanh },
        ..Architecture::gpt()
    });
    let scaling = prop_oneof![
        Just(RotaryScaling::None),
        Just(RotaryScaling::Linear { factor: 2.5 }),
        Just(RotaryScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192 }),
    ];
    let kept = prop_oneof![Just(1_usize), Just(2), Just(4)];
    let llama = (any::<[bool; 4]>(), scaling, kept).prop_map(|([tied, qkv, mlp, qwen], scaling, kept)| {
        let scaling =
            if qwen && matches!(scaling, RotaryScaling::Llama3 { .. }) { RotaryScaling::None } else { scaling };
        Architecture {
            tied,
            key_value_heads: Some(kept),
            biases: match qwen {
                true => Biases { qkv: true, attention: false, feed_forward: false },
                false => Biases { qkv, attention: qkv, feed_forward: mlp },
            },
            positions: Positions::Rotary(RotaryConfig { theta: 500_000.0, dims: 8, scaling }),
            ..Architecture::llama(8)
        }
    });
    prop_oneof![gpt2, llama]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_file_is_read_back_to_the_same_bits(architecture in architectures(), seed in 0..1_000_u64, more in 0..3_usize) {
        let text = dialogues();
        let config = shape(architecture, text.renderer.tokenizer().vocab_size() + more);
        let original = model(&config, seed);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        save_gguf(&original, &config, &text, GgufFormat::F32, &path).unwrap();
        let (found, found_config) = open_gguf(&path, &cpu()).unwrap();
        prop_assert_eq!(Parameters::of(&found), Parameters::of(&original));
        prop_assert_eq!(logits(&found), logits(&original));
        // Llama 3's factors tell the scaling that gives them, if not each of its numbers.
        if !matches!(architecture.positions, Positions::Rotary(RotaryConfig { scaling: RotaryScaling::Llama3 { .. }, .. })) {
            prop_assert_eq!(found_config, narrowed(config));
        }
        // Nothing is left beside the file.
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        for (format, name) in [(GgufFormat::F16, "F16"), (GgufFormat::Bf16, "BF16")] {
            let path = dir.path().join(name);
            save_gguf(&original, &config, &text, format, &path).unwrap();
            let (found, _) = open_gguf(&path, &cpu()).unwrap();
            for ((name, shape, found), (_, _, expected)) in Parameters::of(&found).iter().zip(Parameters::of(&original).iter()) {
                for (found, &expected) in found.iter().zip(expected) {
                    let expected = match format {
                        _ if shape.len() == 1 || name == "wpe.weight" => expected,
                        GgufFormat::F16 => f16::from_f32(expected).to_f32(),
                        _ => bf16::from_f32(expected).to_f32(),
                    };
                    prop_assert_eq!(found.to_bits(), expected.to_bits(), "{}", name);
                }
            }
            prop_assert!(read_gguf_formats(&path).unwrap()[name] > 0);
        }
    }
}

fn checkpoints(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// The tensors of a GGUF file of version 3: shape, number of the format and bytes by name, read by themselves here.
fn tensors(path: &Path, text: &[u8]) -> BTreeMap<String, (Vec<u64>, Vec<u8>)> {
    // The list stands behind the metadata; it is found by its first name.
    let bytes = fs::read(path).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let count = word(8) as usize;
    let first = bytes.windows(text.len()).position(|window| window == text).unwrap() - 8;
    let (mut at, mut listed) = (first, Vec::new());
    for _ in 0..count {
        let length = word(at) as usize;
        let name = String::from_utf8(bytes[at + 8..at + 8 + length].to_vec()).unwrap();
        at += 8 + length;
        let dimensions = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let shape = (0..dimensions).map(|axis| word(at + 4 + 8 * axis)).collect::<Vec<_>>();
        at += 4 + 8 * dimensions;
        assert_eq!(bytes[at..at + 4], [0; 4], "{name} is F32");
        listed.push((name, shape, word(at + 4) as usize));
        at += 12;
    }
    let data = at.next_multiple_of(32);
    let of = |(name, shape, offset): (String, Vec<u64>, usize)| {
        let size = 4 * shape.iter().product::<u64>() as usize;
        (name, (shape, bytes[data + offset..][..size].to_vec()))
    };
    listed.into_iter().map(of).collect()
}

/// `llama.gguf` was written by the `gguf` package of Python with the rows that llama.cpp's converter makes (checkpoints/make_gguf.py).
#[test]
fn tensors_are_those_of_llama_cpps_converter() {
    let (model, config) = open_hugging_face(&checkpoints("checkpoints/llama"), &cpu()).unwrap();
    let tokenizer = with(|json| {
        // As many tokens as the network has.
        json["model"]["vocab"] = json!({"<|eoc|>": 0, "a": 1, "b": 2});
        json["model"]["merges"] = json!([]);
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("copy.gguf");
    save_gguf(&model, &config, &tokenizer, GgufFormat::F32, &path).unwrap();
    let expected = tensors(&checkpoints("checkpoints/llama.gguf"), b"output.weight");
    let found = tensors(&path, b"output.weight");
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in found {
        assert!(tensor == expected[&name], "{name}");
    }
    let tokens = read_gguf_tokenizer(&path).unwrap().unwrap();
    assert_eq!(tokens.tokens[..4], ["<|eoc|>", "a", "b", "[PAD3]"].map(str::to_owned));
    assert_eq!((tokens.kinds[..4].to_vec(), tokens.tokens.len()), (vec![3, 1, 1, 5], config.vocab));
}

#[test]
fn tokenizer_and_template_come_along() {
    for name in ["gpt2.gguf", "llama_bpe.gguf", "qwen2.gguf"] {
        let original = open(&checkpoints("tokenizers").join(name), &cpu()).unwrap();
        let text = Text { renderer: original.renderer.clone(), generation: original.generation.clone() };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        save_gguf(&original.model, &original.config, &text, GgufFormat::F32, &path).unwrap();
        let mut expected = read_gguf_tokenizer(&checkpoints("tokenizers").join(name)).unwrap().unwrap();
        // What the first file leaves to its reader, the second says.
        expected.name = Some(name.trim_end_matches(".gguf").to_owned());
        expected.add_space_prefix = Some(false);
        expected.chat_template = Some(ChatTemplate::dialogue().source().to_owned());
        assert_eq!(read_gguf_tokenizer(&path).unwrap().unwrap(), expected, "{name}");
    }
    // A run's own, and one with a template and turns that end otherwise than texts.
    let mut chat = with(|json| {
        let added = json["added_tokens"].as_array_mut().unwrap();
        let mut token = added[0].clone();
        token["content"] = "<|im_end|>".into();
        token["id"] = 290.into();
        added.push(token);
    });
    let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let names = BTreeMap::from([("eos_token".to_owned(), "<|eoc|>".to_owned())]);
    let template = ChatTemplate::jinja(source, "test", names).unwrap();
    let tokenizer = chat.renderer.tokenizer().clone();
    let turn_ends = TurnEnds::find(&[], &tokenizer, &template);
    chat.renderer = Renderer::new(tokenizer, template, turn_ends);
    for text in [dialogues(), chat] {
        let config = shape(Architecture::gpt(), text.renderer.tokenizer().vocab_size());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        save_gguf(&model(&config, 1), &config, &text, GgufFormat::F32, &path).unwrap();
        let found = open(&path, &cpu()).unwrap().renderer;
        let asked = Dialogue::new(vec![Message::human("What is it?")]);
        assert_eq!(found.prompt(&asked).unwrap(), text.renderer.prompt(&asked).unwrap());
        assert_eq!(found.text(SAID).unwrap(), text.renderer.text(SAID).unwrap());
        assert_eq!(found.end(), text.renderer.end());
        assert_eq!(found.template().source(), text.renderer.template().source());
    }
}

#[test]
fn ways_to_cut_text_have_llama_cpps_names() {
    let split = |pattern: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]})
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let digits = json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes]});
    let gpt2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let qwen2 = llama3.replace("{1,3}", "");
    let nfc = json!({"type": "NFC"});
    let pre = |steps: &Value, normalizer: &Value, whole_words: bool| {
        let text = with(|json| {
            json["pre_tokenizer"] = steps.clone();
            json["normalizer"] = normalizer.clone();
            json["model"]["ignore_merges"] = whole_words.into();
        });
        let config = shape(Architecture::llama(8), text.renderer.tokenizer().vocab_size());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        save_gguf(&model(&config, 1), &config, &text, GgufFormat::F32, &path).map_err(|error| error.to_string())?;
        Ok::<_, String>(read_gguf_tokenizer(&path).unwrap().unwrap().pre.unwrap())
    };
    for (steps, normalizer, whole_words, expected) in [
        (&bytes, &Value::Null, false, "gpt-2"),
        (&split(gpt2), &Value::Null, false, "gpt-2"),
        (&bytes, &nfc, false, "olmo"),
        (&digits, &Value::Null, false, "smollm"),
        (&split(llama3), &Value::Null, true, "llama-bpe"),
        (&split(&qwen2), &nfc, false, "qwen2"),
    ] {
        assert_eq!(pre(steps, normalizer, whole_words).unwrap(), expected);
    }
    for (steps, normalizer, whole_words, expected) in [
        (&split(r"\p{L}+"), &Value::Null, false, r#""Regex":"\\p{L}+""#),
        (&split(llama3), &Value::Null, false, "`ignore_merges` false"),
        (&bytes, &json!({"type": "Lowercase"}), false, r#"`normalizer` {"type":"Lowercase"}"#),
    ] {
        let message = pre(steps, normalizer, whole_words).unwrap_err();
        assert!(message.contains("model.gguf: llama.cpp has no name for this way to cut text"), "{message}");
        assert!(message.contains(expected) && message.contains("known are those of gpt-2, olmo, smollm"), "{message}");
    }
}

#[test]
fn what_a_file_cannot_hold_is_told_and_leaves_nothing() {
    let text = dialogues();
    let vocab = text.renderer.tokenizer().vocab_size();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let refused = |architecture: Architecture, format: GgufFormat, change: f32| {
        let config = shape(architecture, vocab);
        let mut parameters = Parameters::of(&model(&config, 1));
        let (shape, mut values) =
            parameters.get("wte.weight").map(|(shape, values)| (shape.to_vec(), values.to_vec())).unwrap();
        values[7] = change;
        parameters.insert("wte.weight", shape, values);
        let model = parameters.load(model(&config, 1)).unwrap();
        save_gguf(&model, &config, &text, format, &path).map_err(|error| error.to_string())
    };
    let rotary = Positions::Rotary(RotaryConfig { theta: 1e4, dims: 4, scaling: RotaryScaling::None });
    for (architecture, format, change, expected) in [
        (
            Architecture { positions: rotary, ..Architecture::gpt() },
            GgufFormat::F32,
            0.0,
            "no architecture of gpt2, llama, qwen2",
        ),
        (
            Architecture { norm: Norm::Rms, ..Architecture::gpt() },
            GgufFormat::F32,
            0.0,
            "no architecture of gpt2, llama, qwen2",
        ),
        (
            Architecture::gpt(),
            GgufFormat::F16,
            70_000.0,
            "tensor `token_embd.weight` holds 70000, which F16 cannot hold",
        ),
    ] {
        let message = refused(architecture, format, change).unwrap_err();
        assert!(message.contains("model.gguf: ") && message.contains(expected), "{message}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    assert_eq!(refused(Architecture::gpt(), GgufFormat::Bf16, 70_000.0), Ok(()));
    let message = refused(Architecture::gpt(), GgufFormat::F32, 0.0).unwrap_err();
    assert!(message.ends_with("model.gguf: is there already; name another file, or remove it first"), "{message}");
}
