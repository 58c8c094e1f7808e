//! GGUF files (tests/checkpoints/make_gguf.py): the logits of transformers, the real SmolLM2 where it is at hand, and damage.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use firebrick_models::{Decoder, open_gguf, open_hugging_face, save_hugging_face};
use firebrick_tensor::{CausalLm, Feed, Incremental, Parameters, TokenBatch, log_softmax};
use firebrick_testkit::{Gguf, assert_close, cpu};
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

/// The checkpoint of a folder as a file, as llama.cpp's converter writes it: rows of a head with turned pairs beside each other, and the
/// factors of Llama 3's scaling in a tensor.
fn converted(folder: &str, factors: &[f32]) -> Vec<u8> {
    let dir = checkpoints().join(folder);
    let config: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    let number = |key: &str| config[key].as_u64().unwrap() as u32;
    let mut file = Gguf::new("llama");
    for (key, theirs) in [
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
    ] {
        file = file.number(&format!("llama.{key}"), number(theirs));
    }
    file = file
        .float("llama.attention.layer_norm_rms_epsilon", config["rms_norm_eps"].as_f64().unwrap() as f32)
        .float("llama.rope.freq_base", config["rope_parameters"]["rope_theta"].as_f64().unwrap() as f32)
        .tensor("rope_freqs.weight", &[factors.len()], factors);
    let weights = Parameters::from_bytes(&fs::read(dir.join("model.safetensors")).unwrap()).unwrap();
    for (name, shape, values) in weights.iter() {
        let mut renamed = name.replace("model.layers.", "blk.");
        for (theirs, ours) in [
            ("model.embed_tokens", "token_embd"),
            ("model.norm", "output_norm"),
            ("lm_head", "output"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("post_attention_layernorm", "ffn_norm"),
            ("input_layernorm", "attn_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ] {
            renamed = renamed.replace(theirs, ours);
        }
        let heads = match () {
            () if name.contains("q_proj") => Some(number("num_attention_heads")),
            () if name.contains("k_proj") => Some(number("num_key_value_heads")),
            () => None,
        };
        let values = heads.map_or_else(|| values.to_vec(), |heads| beside(values, heads as usize, shape[0]));
        file = file.tensor(&renamed, shape, &values);
    }
    file.bytes()
}

/// Rows of heads with the halves of every turned pair beside each other.
fn beside(values: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let (d_head, columns) = (rows / heads, values.len() / rows);
    let from = |row: usize| {
        let (head, number) = (row / d_head, row % d_head);
        head * d_head + number % 2 * (d_head / 2) + number / 2
    };
    (0..rows).flat_map(|row| values[from(row) * columns..][..columns].to_vec()).collect()
}

/// Llama 3.1's factors as its authors' `apply_scaling` and llama.cpp's converter compute them: the logits are those of transformers, and the
/// folder that is written keeps the scaling.
#[test]
fn factors_of_rotary_frequencies_are_used_and_kept() {
    // checkpoints/llama3: theta 10000, heads of 4, factor 8, low 1, high 4, original context 16. Wave lengths 2π and 200π; 16 / 4 < 2π < 16
    // is a mixture, 200π > 16 is stretched: smooth = (16 / 2π − 1) / (4 − 1) = 0.515493, 1 / (0.484507 / 8 + 0.515493) = 1.735941.
    let smooth = (16.0 / std::f64::consts::TAU - 1.0) / 3.0;
    let factors = [(1.0 / ((1.0 - smooth) / 8.0 + smooth)) as f32, 8.0];
    assert!((factors[0] - 1.735_941).abs() < 1e-5, "{factors:?}");
    let dir = tempfile::tempdir().unwrap();
    let (path, folder) = (dir.path().join("llama3.gguf"), dir.path().join("folder"));
    fs::write(&path, converted("llama3", &factors)).unwrap();
    let (model, config) = open_gguf(&path, &cpu()).unwrap();

    #[derive(serde::Deserialize)]
    struct Golden {
        ids: Vec<Vec<TokenId>>,
        logits: Vec<Vec<Vec<f32>>>,
    }
    let golden: Golden = serde_json::from_slice(&fs::read(checkpoints().join("llama3/logits.json")).unwrap()).unwrap();
    let shape = [golden.logits.len() * golden.logits[0].len(), golden.logits[0][0].len()];
    let expected = Tensor::<2>::from_data(TensorData::new(golden.logits.concat().concat(), shape), &cpu());
    assert_close(model.logits(&TokenBatch::of(&golden.ids, &cpu())), expected, 1e-4);

    fs::create_dir(&folder).unwrap();
    save_hugging_face(&model, &config, &folder).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!(written["rope_parameters"]["rope_type"], "llama3");
    let (again, _) = open_hugging_face(&folder, &cpu()).unwrap();
    let logits =
        |model: &Decoder| model.logits(&TokenBatch::of(&golden.ids, &cpu())).into_data().try_to_vec::<f32>().unwrap();
    assert_eq!(logits(&again), logits(&model));

    for (factors, expected) in [
        (&[1.0][..], "tensor `rope_freqs.weight` has 1 numbers for 2 pairs"),
        (&[8.0, 1.0], "tensor `rope_freqs.weight` holds factors that no scaling of Llama 3's kind gives"),
    ] {
        fs::write(&path, converted("llama3", factors)).unwrap();
        let message = open_gguf(&path, &cpu()).map(drop).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
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
