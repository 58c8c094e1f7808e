//! Checkpoints that are damaged, contradict themselves or mean harm: errors that name file and key, never a panic.

mod fuzz;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use firebrick_models::checkpoint::{Pretrained, open};
use firebrick_models::{Architecture, DecoderConfig, save_decoder, save_hugging_face, save_scored};
use firebrick_tensor::{CausalLm, TokenBatch};
use firebrick_testkit::cpu;
use firebrick_text::{ChatTemplate, Renderer, Tokenizer, TurnEnds};
use firebrick_types::{Dialogue, Message, Seed};
use serde_json::{Value, json};

const TEXT: &str = "the cat sat on the mat; the other cat, the thin one, sat there. The end — thé.";

fn config() -> DecoderConfig {
    let architecture = Architecture::llama(8);
    DecoderConfig { vocab: 300, context: 16, n_layer: 1, d_model: 16, heads: 2, d_ff: 16, architecture }
}

/// A whole folder of `transformers`.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    save_hugging_face(&config().init(Seed::new(1), &cpu()), &config(), dir.path()).unwrap();
    Tokenizer::train([TEXT], 280).unwrap().save(&dir.path().join("tokenizer.json")).unwrap();
    let settings =
        json!({"bos_token": {"content": "<|eoc|>"}, "eos_token": "<|eoc|>", "chat_template": "{{ messages }}"});
    let generation = json!({"eos_token_id": [0, 5], "temperature": 0.6, "top_p": 0.9, "top_k": 0,
        "repetition_penalty": 1.1});
    fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    fs::write(dir.path().join("generation_config.json"), generation.to_string()).unwrap();
    dir
}

fn opened(path: &Path) -> Result<Pretrained, String> {
    open(path, &cpu()).map_err(|error| error.to_string())
}

fn message(path: &Path) -> String {
    opened(path).map(drop).expect_err("the checkpoint is damaged")
}

/// Opens a checkpoint and, where it opens, uses every part that came from the file.
fn use_up(path: &Path) {
    let Ok(Pretrained { model, renderer, config, .. }) = opened(path) else { return };
    // A damaged token may lie beyond the network, as one that was added may.
    let Ok(tokens) = renderer.text(" thé <|eoc|>\n</s> 12") else { return };
    let tokenizer = renderer.tokenizer();
    assert!(tokens.iter().all(|&token| (token as usize) < config.vocab));
    tokenizer.decode(&tokens);
    (0..config.vocab as u32 + 2).for_each(|token| drop(tokenizer.token_text(token)));
    let _ = renderer.prompt(&Dialogue::new(vec![Message::human("Hi")]));
    let read = config.context.min(tokens.len()).min(8);
    if read > 0 {
        model.logits(&TokenBatch::of(&[&tokens[..read]], &cpu()));
    }
}

#[test]
fn a_whole_folder_opens() {
    let dir = folder();
    let checkpoint = opened(dir.path()).unwrap();
    assert_eq!(checkpoint.config, DecoderConfig { architecture: checkpoint.config.architecture, ..config() });
    let generation = checkpoint.generation;
    assert_eq!(checkpoint.renderer.turn_ends().tokens(), [0, 5]);
    assert_eq!((generation.temperature, generation.top_p), (Some(0.6), Some(0.9)));
    assert_eq!((generation.top_k, generation.repetition_penalty), (None, Some(1.1)));
    assert_eq!(checkpoint.renderer.template().source(), "{{ messages }}");
    assert_eq!(checkpoint.name, dir.path().file_name().unwrap().to_str().unwrap());
}

#[test]
fn a_file_of_a_template_goes_before_the_settings() {
    let dir = folder();
    fs::write(dir.path().join("chat_template.jinja"), "{{ bos_token }}{{ messages[0].content }}\n").unwrap();
    let text = opened(dir.path()).unwrap().renderer.template().render(&[Message::human("Hi")], true).unwrap();
    assert_eq!(text, "<|eoc|>Hi");
}

#[test]
fn what_is_saved_is_what_was_opened() {
    let dir = folder();
    let checkpoint = opened(dir.path()).unwrap();
    let copy = dir.path().join("copy");
    checkpoint.save(&copy).unwrap();
    let again = opened(&copy).unwrap();
    assert_eq!((again.config, &again.generation), (checkpoint.config, &checkpoint.generation));
    assert_eq!(again.renderer.template().source(), checkpoint.renderer.template().source());
    assert_eq!(again.renderer.turn_ends().tokens(), checkpoint.renderer.turn_ends().tokens());
    assert_eq!(again.renderer.tokenizer().encode(TEXT), checkpoint.renderer.tokenizer().encode(TEXT));
    let message = checkpoint.save(&copy).unwrap_err().to_string();
    assert!(message.contains("copy: not an empty folder; name another one"), "{message}");
}

#[test]
fn where_nothing_is_drawn_the_likeliest_token_is_taken() {
    for (settings, temperature) in [
        (json!({ "top_p": 0.9 }), None),
        (json!({ "do_sample": true, "temperature": 0.6 }), Some(0.6)),
        (json!({ "do_sample": false, "temperature": 0.6 }), Some(0.0)),
        (json!({ "temperature": 0.0 }), Some(0.0)),
    ] {
        let dir = folder();
        fs::write(dir.path().join("generation_config.json"), settings.to_string()).unwrap();
        let checkpoint = opened(dir.path()).unwrap();
        assert_eq!(checkpoint.generation.temperature, temperature, "{settings}");
        checkpoint.save(&dir.path().join("copy")).unwrap();
        assert_eq!(opened(&dir.path().join("copy")).unwrap().generation, checkpoint.generation, "{settings}");
    }
}

#[test]
fn a_stage_takes_the_tokenizer_of_its_run() {
    let run = tempfile::tempdir().unwrap();
    let stages = ["2-tokenizer", "10-ppo"].map(|stage| run.path().join(stage).join("artifact"));
    stages.iter().for_each(|stage| fs::create_dir_all(stage).unwrap());
    let tokenizer = Tokenizer::train([TEXT], 280).unwrap();
    save_decoder(&config().init(Seed::new(1), &cpu()), &config(), &stages[1]).unwrap();
    assert!(message(&stages[1]).contains("artifact: no tokenizer; put `tokenizer.json`"), "{}", message(&stages[1]));
    tokenizer.save(&stages[0].join("tokenizer.json")).unwrap();
    for path in [&stages[1], &run.path().join("10-ppo")] {
        let checkpoint = opened(path).unwrap();
        assert_eq!((checkpoint.name.as_str(), checkpoint.renderer.turn_ends().tokens()), ("10-ppo", vec![0]));
        assert_eq!(checkpoint.renderer.tokenizer().encode(TEXT), tokenizer.encode(TEXT));
        assert!(checkpoint.renderer.template().is_dialogue());
    }
    // What else the run began with comes along.
    let template = ChatTemplate::jinja("{{ messages[0].content }}</s>", "x", BTreeMap::new()).unwrap();
    Renderer::new(tokenizer.clone(), template.clone(), TurnEnds::of(&tokenizer)).save(&stages[0]).unwrap();
    assert_eq!(opened(&stages[1]).unwrap().renderer.template().source(), template.source());
    save_scored(&config().init_scored(Seed::new(1), &cpu()), &config(), &stages[1]).unwrap();
    assert!(message(&stages[1]).contains("artifact: a reward model, whose head gives a score"));
    // Numbers that no tensor bears out are found before anything of their size is made.
    for (key, value) in [("vocab", 1_u64 << 45), ("n_layer", 1 << 50), ("d_ff", 1 << 40), ("d_model", 1 << 40)] {
        save_decoder(&config().init(Seed::new(1), &cpu()), &config(), &stages[1]).unwrap();
        change(&stages[1].join("config.json"), |config| config[key] = value.into());
        let message = message(&stages[1]);
        assert!(message.contains(&format!("config.json: `{key}` is {value}, expected ")), "{message}");
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn what_is_wrong_is_named_with_its_file_and_key() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 21] = [
        (
            "config.json",
            |v| v["model_type"] = "mamba".into(),
            "`model_type` is `mamba`; known are gpt2, gpt_neox, llama",
        ),
        ("config.json", |v| v["model_type"] = Value::Null, "config.json: `model_type` is null, expected the name of"),
        ("config.json", |v| v["vocab_size"] = (1_u64 << 45).into(), "has shape [300, 16], the model needs"),
        ("config.json", |v| v["num_hidden_layers"] = (1_u64 << 50).into(), "missing tensors: model.layers.1."),
        ("config.json", |v| v["hidden_size"] = 32.into(), "the model needs"),
        (
            "config.json",
            |v| v["max_position_embeddings"] = (1_u64 << 50).into(),
            "`context` = 1125899906842624 is more",
        ),
        ("config.json", |v| v["intermediate_size"] = (1_u64 << 50).into(), "the model needs"),
        (
            "generation_config.json",
            |v| v["eos_token_id"] = 280.into(),
            "`eos_token_id` is 280, expected the id of a token, below 280",
        ),
        ("generation_config.json", |v| v["eos_token_id"] = json!([0, "x"]), r#"`eos_token_id` is [0,"x"], expected"#),
        (
            "generation_config.json",
            |v| v["temperature"] = json!(-1.0),
            "`temperature` is -1.0, expected a number of at least 0",
        ),
        ("generation_config.json", |v| v["top_p"] = json!("all"), r#"`top_p` is "all", expected a number from 0 to 1"#),
        ("generation_config.json", |v| v["top_k"] = json!(-5), "`top_k` is -5, expected a whole number"),
        ("generation_config.json", |v| v["repetition_penalty"] = json!(0), "`repetition_penalty` is 0, expected"),
        ("generation_config.json", |v| v["do_sample"] = json!("no"), r#"`do_sample` is "no", expected true or false"#),
        (
            "generation_config.json",
            |v| *v = json!([1]),
            "generation_config.json: `the whole file` is [1], expected an object",
        ),
        (
            "tokenizer_config.json",
            |v| v["eos_token"] = json!(7),
            "tokenizer_config.json: `eos_token` is 7, expected the name",
        ),
        (
            "tokenizer_config.json",
            |v| v["chat_template"] = json!("{% if %}"),
            "tokenizer_config.json, `chat_template`: the chat template cannot be read",
        ),
        ("tokenizer_config.json", |v| v["chat_template"] = json!([{"name": "rag"}]), "`chat_template` is [{"),
        (
            "tokenizer.json",
            |v| v["model"]["merges"][0] = json!(["the", "zebra"]),
            "tokenizer.json: not a `tokenizer.json` that can be used: `model.merges`: Token `zebra` out of vocabulary",
        ),
        (
            "tokenizer.json",
            |v| v["model"]["type"] = "WordPiece".into(),
            "tokenizer.json: not a `tokenizer.json` that can be used",
        ),
        (
            "tokenizer.json",
            |v| v["model"]["vocab"]["zebra"] = json!(4_294_967_295_u64),
            "the tokenizer has 4294967296 tokens, but the network's vocabulary has 300",
        ),
    ];
    for (file, damage, expected) in cases {
        let dir = folder();
        change(&dir.path().join(file), damage);
        let found = message(dir.path());
        assert!(found.contains(expected), "{file}: {found}\nexpected {expected}");
    }
}

#[test]
fn what_is_not_there_is_told() {
    let dir = folder();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    let found = message(dir.path());
    assert!(found.contains("no checkpoint; looked for `config.json` with `model.safetensors`"), "{found}");
    assert!(found.contains("found config.json, generation_config.json, pytorch_model.bin, tok"), "{found}");
    assert!(found.contains("pickled weights"), "{found}");
    let found = message(&dir.path().join("nowhere"));
    assert!(found.contains("nowhere: no checkpoint; looked for"), "{found}");
    let found = message(&dir.path().join("config.json"));
    assert!(found.contains("found a file that is no GGUF"), "{found}");
}

/// Every file cut short at many places and with many bits flipped: another checkpoint or an error, and never a panic.
#[test]
fn cut_and_flipped_files_are_errors_or_other_checkpoints() {
    for file in
        ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json", "model.safetensors"]
    {
        let dir = folder();
        let path = dir.path().join(file);
        let whole = fs::read(&path).unwrap();
        // What JSON leaves off at its end is white space at most.
        for length in (0..whole.len() - 2).step_by(whole.len() / 40 + 1) {
            fs::write(&path, &whole[..length]).unwrap();
            let found = message(dir.path());
            assert!(found.contains(file), "{length} bytes of {file}: {found}");
        }
        for place in (0..whole.len()).step_by(whole.len() / 120 + 1) {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 8);
            fs::write(&path, bytes).unwrap();
            use_up(dir.path());
        }
    }
}

fn small(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers").join(name)
}

#[test]
fn cut_and_flipped_gguf_files_are_errors_or_other_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    for name in ["llama_bpe.gguf", "spm.gguf"] {
        let whole = fs::read(small(name)).unwrap();
        for length in (0..whole.len()).step_by(149) {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(message(&path).contains("x.gguf: "), "{length} bytes of {name}");
        }
        for place in (0..whole.len()).step_by(23) {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 8);
            fs::write(&path, bytes).unwrap();
            use_up(&path);
        }
    }
}

/// A file whose bytes at the first place of a text are replaced.
fn replaced(name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = fs::read(small(name)).unwrap();
    let place = bytes.windows(from.len()).position(|window| window == from).expect("the text is there");
    bytes[place..place + to.len()].copy_from_slice(to);
    bytes
}

/// The first merge of a small file, with its length before it.
fn first_merge() -> Vec<u8> {
    let bytes = fs::read(small("llama_bpe.gguf")).unwrap();
    let key = b"tokenizer.ggml.merges";
    let place = bytes.windows(key.len()).position(|window| window == key).expect("there are merges");
    // Behind the key come the kind of the value, that of its entries, and how many there are.
    let entry = place + key.len() + 4 + 4 + 8;
    let length = u64::from_le_bytes(bytes[entry..entry + 8].try_into().unwrap()) as usize;
    bytes[entry..entry + 8 + length].to_vec()
}

#[test]
fn gguf_tokenizers_that_contradict_themselves_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let key = |name: &str, kind: u32, inner: Option<u32>| {
        let inner = inner.map_or_else(Vec::new, |inner| inner.to_le_bytes().to_vec());
        [name.as_bytes(), &kind.to_le_bytes(), &inner].concat()
    };
    let tokens = key("tokenizer.ggml.tokens", 9, Some(8));
    let with = |key: &[u8], value: &[u8]| [key, value].concat();
    let eos = key("tokenizer.ggml.eos_token_id", 4, None);
    let mut unknown = first_merge();
    unknown[8..].fill(2);
    unknown[8..10].copy_from_slice(b"\x01 ");
    let cases = [
        (
            replaced("llama_bpe.gguf", b"llama-bpe", b"lhama-bpe"),
            "`tokenizer.ggml.pre` is `lhama-bpe`; known are gpt-2",
        ),
        (replaced("llama_bpe.gguf", b"gpt2", b"gpt9"), "`tokenizer.ggml.model` is `gpt9`; known are gpt2, llama"),
        (
            replaced("spm.gguf", b"tokenizer.ggml.scores", b"tokenizer.ggml.stores"),
            "`tokenizer.ggml.scores` is missing",
        ),
        (
            replaced("spm.gguf", b"tokenizer.ggml.tokens", b"tokenizer.ggml.spokes"),
            "`tokenizer.ggml.tokens` is missing",
        ),
        (replaced("spm.gguf", &tokens, &with(&tokens, &u64::MAX.to_le_bytes())), "is more than the file holds"),
        (replaced("spm.gguf", &tokens, &with(&tokens, &(1_u64 << 40).to_le_bytes())), "is more than the file holds"),
        (replaced("spm.gguf", &tokens, &key("tokenizer.ggml.tokens", 9, Some(9))), "a list of lists"),
        (
            replaced("spm.gguf", &eos, &with(&eos, &420_u32.to_le_bytes())),
            "`tokenizer.ggml.eos_token_id` is 420, but there are 420 tokens",
        ),
        (replaced("llama_bpe.gguf", &first_merge(), &unknown), "`tokenizer.ggml.merges`, entry 0: \"\\u{1} "),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        let found = message(&path);
        assert!(found.contains("x.gguf: ") && found.contains(expected), "{found}\nexpected {expected}");
    }
}
