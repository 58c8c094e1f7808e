//! GGUF files (tests/checkpoints/make_gguf.py): the logits of transformers, the real SmolLM2 where it is at hand, and damage.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use firebrick_models::{open_gguf, open_hugging_face};
use firebrick_tensor::{CausalLm, Feed, Incremental, Parameters, TokenBatch, log_softmax};
use firebrick_testkit::{assert_close, cpu};
use firebrick_types::TokenId;

fn checkpoints() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints")
}

#[test]
fn a_file_holds_the_model_of_the_folder_it_was_made_of() {
    let (model, config) = open_gguf(&checkpoints().join("llama.gguf"), &cpu()).unwrap();
    let (original, original_config) = open_hugging_face(&checkpoints().join("llama"), &cpu()).unwrap();
    // The file keeps ε as an f32.
    assert!((config.architecture.norm_epsilon - original_config.architecture.norm_epsilon).abs() < 1e-12);
    assert_eq!(Parameters::of(&model), Parameters::of(&original));

    #[derive(serde::Deserialize)]
    struct Golden {
        ids: Vec<Vec<TokenId>>,
        logits: Vec<Vec<Vec<f32>>>,
    }
    let golden: Golden = serde_json::from_slice(&fs::read(checkpoints().join("llama/logits.json")).unwrap()).unwrap();
    let shape = [golden.logits.len() * golden.logits[0].len(), golden.logits[0][0].len()];
    let expected = Tensor::<2>::from_data(TensorData::new(golden.logits.concat().concat(), shape), &cpu());
    assert_close(model.logits(&TokenBatch::of(&golden.ids, &cpu())), expected, 1e-4);
}

/// The file that an environment variable names, or else this one, or none, which a line tells.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn real(variable: &str, or: Option<PathBuf>) -> Option<Vec<u8>> {
    let path = std::env::var_os(variable).map(PathBuf::from).or(or);
    let bytes = path.as_ref().and_then(|path| fs::read(path).ok());
    if bytes.is_none() {
        eprintln!("skipped: {} not found; {variable} may name it", path.unwrap_or_default().display());
    }
    bytes
}

/// Log-probabilities and greedy tokens of SmolLM2-135M-Instruct, computed in numpy from the same file.
#[test]
fn smollm2_gives_the_reference_log_probabilities_and_greedy_tokens() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models/smollm2-135m-instruct");
    let Some(reference) = real("SMOLLM2_REFERENCE", Some(beside.join("reference.json"))) else { return };
    let Some(weights) = real("SMOLLM2_GGUF", None) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("smollm2.gguf");
    fs::write(&path, weights).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(&reference).unwrap();
    let (model, config) = open_gguf(&path, &cpu()).unwrap();
    for case in reference["cases"].as_array().unwrap() {
        let ids: Vec<TokenId> = serde_json::from_value(case["ids"].clone()).unwrap();
        let expected: Vec<f32> = serde_json::from_value(case["token_logprobs"].clone()).unwrap();
        let logits = model.logits(&TokenBatch::of(&[&ids], &cpu()));
        let log_probs = log_softmax(logits).into_data().try_to_vec::<f32>().unwrap();
        for (position, expected) in expected.iter().enumerate() {
            let found = log_probs[position * config.vocab + ids[position + 1] as usize];
            assert!((found - expected).abs() < 2e-3, "{}, {position}: {found} for {expected}", case["prompt"]);
        }
        let greedy: Vec<TokenId> = serde_json::from_value(case["greedy_16"].clone()).unwrap();
        let mut cache = model.cache(1, ids.len() + greedy.len());
        let mut logits = model.extend(&mut cache, &[Feed { slot: 0, tokens: &ids }]);
        let found = greedy.iter().map(|_| {
            let token = logits.clone().argmax(1).into_scalar::<i64>() as TokenId;
            logits = model.extend(&mut cache, &[Feed { slot: 0, tokens: &[token] }]);
            token
        });
        assert_eq!(found.collect::<Vec<_>>(), greedy, "{}", case["prompt"]);
    }
}

#[test]
fn damaged_files_are_errors_and_never_a_panic() {
    let whole = fs::read(checkpoints().join("llama.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let message = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        open_gguf(&path, &cpu()).map(drop).map_err(|error| error.to_string())
    };
    for (bytes, expected) in [
        (&b"PK\x03\x04"[..], "it does not begin with GGUF"),
        (b"GGUF\x09\0\0\0", "its version is 9; 2 and 3 can be read"),
        (b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f", "is more than the file holds"),
        (&whole[..12], "it ends too soon"),
        (&whole[..whole.len() - 1], "reaches beyond the end of the file"),
    ] {
        let found = message(bytes).unwrap_err();
        assert!(found.contains("model.gguf: ") && found.contains(expected), "{found}");
    }
    for length in (0..whole.len()).step_by(61) {
        assert!(message(&whole[..length]).is_err(), "{length} bytes");
    }
    // Flipped bits are other numbers at best; what they must not do is panic or allocate without bound.
    for place in (0..3_000).step_by(5) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        let _ = message(&bytes);
    }
}
