//! SmolLM2-135M-Instruct from its GGUF file, where it is at hand: its own tokenizer, template and settings.

use std::fs;
use std::path::PathBuf;

use firebrick_models::checkpoint::{Checkpoint, Kind, Text, open};
use firebrick_tensor::{CausalLm, Feed, Incremental};
use firebrick_testkit::{cpu, data_dir};
use firebrick_text::Tokenizer;
use firebrick_types::{Message, TokenId};
use serde_json::Value;

/// The file that `SMOLLM2_GGUF` names, or none, which a line tells.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn smollm2() -> Option<String> {
    let path = std::env::var("SMOLLM2_GGUF").ok().filter(|path| PathBuf::from(path).is_file());
    if path.is_none() {
        println!("skipped: SMOLLM2_GGUF names no file");
    }
    path
}

/// The folder of SmolLM2's published tokenizer and of what was computed in numpy from the file.
fn published() -> Option<PathBuf> {
    Some(data_dir()?.join("models/smollm2-135m-instruct"))
}

fn cases(folder: &std::path::Path) -> Vec<Value> {
    let reference = fs::read(folder.join("reference.json")).unwrap();
    let reference: Value = serde_json::from_slice(&reference).unwrap();
    reference["cases"].as_array().unwrap().clone()
}

fn ids(value: &Value) -> Vec<TokenId> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn the_tokenizer_inside_gives_the_ids_of_the_published_one() {
    let (Some(file), Some(folder)) = (smollm2(), published()) else { return };
    let checkpoint = Checkpoint::at(file.as_ref()).unwrap();
    assert_eq!(checkpoint.kind(), Kind::Gguf);
    let Text { renderer, .. } = checkpoint.text(49_152).unwrap().expect("the file has a tokenizer");
    let (tokenizer, turn_ends) = (renderer.tokenizer(), renderer.turn_ends());
    let published = Tokenizer::open(&folder.join("tokenizer.json")).unwrap();
    let goldens: Value = serde_json::from_str(include_str!("tokenizers/goldens.json")).unwrap();
    for (index, text) in goldens["texts"].as_array().unwrap().iter().enumerate() {
        let text = text.as_str().unwrap();
        assert_eq!(tokenizer.encode(text), published.encode(text), "{text:?}");
        assert_eq!(tokenizer.encode(text), ids(&goldens["ids"]["smollm2-135m-instruct"][index]), "{text:?}");
        let special = ids(&goldens["ids"]["smollm2-135m-instruct with special"][index]);
        assert_eq!(tokenizer.encode_with_special(text), special, "{text:?}");
    }
    for case in cases(&folder) {
        let prompt = case["prompt"].as_str().unwrap();
        assert_eq!(tokenizer.encode_with_special(prompt), ids(&case["ids"]), "{prompt:?}");
        let whole = tokenizer.decode(&ids(&case["greedy_16"]));
        assert_eq!(whole, case["greedy_text"].as_str().unwrap());
    }
    assert_eq!(turn_ends.tokens(), [2, 0], "<|im_end|>, and the end of a text");
    assert_eq!(tokenizer.token_text(2), "<|im_end|>");
}

#[test]
fn a_question_is_rendered_encoded_and_answered() {
    let (Some(file), Some(folder)) = (smollm2(), published()) else { return };
    let checkpoint = open(file.as_ref(), &cpu()).unwrap();
    let case = cases(&folder).into_iter().find(|case| case["prompt"].as_str().unwrap().contains("<|im_start|>"));
    let case = case.expect("one prompt is a conversation");
    let rendered = checkpoint.renderer.template().render(&[Message::human("Are dogs real?")], true).unwrap();
    let system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n";
    assert_eq!(rendered, system.to_owned() + case["prompt"].as_str().unwrap());

    let expected = ids(&case["greedy_16"]);
    let prompt = checkpoint.renderer.tokenizer().encode_with_special(case["prompt"].as_str().unwrap());
    let mut cache = checkpoint.model.cache(1, prompt.len() + expected.len());
    let mut logits = checkpoint.model.extend(&mut cache, &[Feed { slot: 0, tokens: &prompt }]);
    let mut stream = checkpoint.renderer.tokenizer().stream();
    let (mut found, mut text) = (Vec::new(), String::new());
    for _ in &expected {
        let token = logits.clone().argmax(1).into_scalar::<i64>() as TokenId;
        logits = checkpoint.model.extend(&mut cache, &[Feed { slot: 0, tokens: &[token] }]);
        text += &stream.push(token);
        found.push(token);
    }
    text += &stream.finish();
    assert_eq!((found, text.as_str()), (expected, case["greedy_text"].as_str().unwrap()));
    assert_eq!(checkpoint.config.vocab, checkpoint.model.vocab());
}
