//! Token ids and rendered conversations against the reference programs (tests/tokenizers/make.py).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use firebrick_models::checkpoint::{Checkpoint, Text, open};
use firebrick_testkit::{cpu, data_dir};
use firebrick_text::{ChatTemplate, Tokenizer};
use firebrick_types::{Message, Role, TokenId};

#[derive(serde::Deserialize)]
struct Goldens {
    texts: Vec<String>,
    ids: BTreeMap<String, serde_json::Value>,
    templates: BTreeMap<String, String>,
    conversations: Vec<Conversation>,
}

#[derive(serde::Deserialize)]
struct Conversation {
    template: String,
    messages: Vec<Turn>,
    add_generation_prompt: bool,
    text: String,
}

/// A message as transformers takes it.
#[derive(serde::Deserialize)]
struct Turn {
    role: String,
    content: String,
}

fn goldens() -> Goldens {
    serde_json::from_str(include_str!("tokenizers/goldens.json")).unwrap()
}

fn small(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers").join(name)
}

fn check(tokenizer: &Tokenizer, name: &str, encode: impl Fn(&Tokenizer, &str) -> Vec<TokenId>) {
    let Goldens { texts, ids, .. } = goldens();
    let expected: Vec<Vec<TokenId>> = serde_json::from_value(ids[name].clone()).unwrap();
    assert_eq!(texts.len(), expected.len());
    for (text, expected) in texts.iter().zip(expected) {
        assert_eq!(encode(tokenizer, text), expected, "{name}: {text:?}");
    }
}

#[test]
fn a_vocabulary_with_its_merges_gives_gpt2s_ids() {
    let Some(data) = data_dir() else { return };
    // The weights are of another model, which does not matter: they are looked for, and not read.
    let dir = tempfile::tempdir().unwrap();
    for file in ["vocab.json", "merges.txt"] {
        std::fs::copy(data.join("models/gpt2-tokenizer").join(file), dir.path().join(file)).unwrap();
    }
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
    let checkpoint = Checkpoint::at(dir.path()).unwrap();
    let text = checkpoint.text(50_257).unwrap().expect("there is a tokenizer");
    check(text.renderer.tokenizer(), "gpt2-tokenizer", Tokenizer::encode);
    assert_eq!((text.renderer.tokenizer().vocab_size(), text.renderer.turn_ends().tokens()), (50_257, vec![50_256]));
    assert_eq!(text.renderer.tokenizer().encode_with_special("a<|endoftext|>"), [64, 50_256]);
    let message = checkpoint.text(50_000).map(drop).unwrap_err().to_string();
    assert!(message.contains("the tokenizer has 50257 tokens, but the network's vocabulary has 50000"), "{message}");
}

#[test]
fn a_tokenizer_json_gives_gpt_neoxs_ids() {
    let Some(data) = data_dir() else { return };
    let tokenizer = Tokenizer::open(&data.join("models/gpt-neox-tokenizer/tokenizer.json")).unwrap();
    check(&tokenizer, "gpt-neox-tokenizer", Tokenizer::encode);
    check(&tokenizer, "gpt-neox-tokenizer with special", Tokenizer::encode_with_special);
}

#[test]
fn tokenizers_inside_gguf_files_give_the_ids_of_tiktoken_and_sentence_piece() {
    for name in ["gpt2.gguf", "llama_bpe.gguf", "qwen2.gguf", "spm.gguf"] {
        let checkpoint = open(&small(name), &cpu()).unwrap();
        check(checkpoint.renderer.tokenizer(), name, Tokenizer::encode);
        let goldens = goldens();
        if let Some(expected) = goldens.ids.get(&format!("{name} with special")) {
            let expected: Vec<TokenId> = serde_json::from_value(expected.clone()).unwrap();
            assert_eq!(checkpoint.renderer.tokenizer().encode_with_special("<|begin|>Hi <|end|>x"), expected, "{name}");
        }
        if let Some(expected) = goldens.ids.get(&format!("{name} decoded")) {
            let expected: Vec<String> = serde_json::from_value(expected.clone()).unwrap();
            for (text, expected) in goldens.texts.iter().zip(expected) {
                assert_eq!(
                    checkpoint.renderer.tokenizer().decode(&checkpoint.renderer.tokenizer().encode(text)),
                    expected,
                    "{name}: {text:?}"
                );
            }
        }
        assert_eq!(checkpoint.name, name.strip_suffix(".gguf").unwrap());
        assert!(checkpoint.renderer.template().is_dialogue());
    }
}

#[test]
fn conversations_are_rendered_as_transformers_renders_them() {
    let Goldens { templates, conversations, .. } = goldens();
    let tokens = [("bos_token", "<|im_start|>"), ("eos_token", "<|im_end|>")];
    let tokens = BTreeMap::from(tokens.map(|(key, name)| (key.to_owned(), name.to_owned())));
    for Conversation { template, messages, add_generation_prompt, text } in conversations {
        let chat = ChatTemplate::jinja(&templates[&template], &template, tokens.clone()).unwrap();
        let message = |Turn { role, content }: Turn| Message { role: Role::named(&role).unwrap(), text: content };
        let messages = messages.into_iter().map(message).collect::<Vec<_>>();
        assert_eq!(chat.render(&messages, add_generation_prompt).unwrap(), text, "{template}: {messages:?}");
    }
}

#[test]
fn text_inside_of_a_checkpoint_is_found_before_its_weights_are_read() {
    let checkpoint = Checkpoint::at(&small("spm.gguf")).unwrap();
    let Text { renderer, .. } = checkpoint.text(420).unwrap().expect("there is a tokenizer");
    assert_eq!((renderer.turn_ends().tokens(), renderer.tokenizer().eoc()), (vec![2], 2));
    assert_eq!(checkpoint.formats().unwrap()["F16"], 420 * 8 + 3 * 8 + 2 * 32 + 5 * 64);
}
