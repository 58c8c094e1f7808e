//! Checkpoints of transformers (tests/checkpoints/make.py): its logits, round trips, and what is wrong with damaged ones.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use firebrick_models::{Architecture, DecoderConfig, open_hugging_face, save_hugging_face};
use firebrick_tensor::{CausalLm, Feed, Incremental, Parameters, TokenBatch};
use firebrick_testkit::{assert_close, cpu};
use firebrick_types::{Seed, TokenId};

const NAMES: [&str; 7] = ["gpt2", "gpt_neox", "gpt_neox_serial", "llama", "llama3", "mistral", "qwen2"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

#[derive(serde::Deserialize)]
struct Golden {
    ids: Vec<Vec<TokenId>>,
    logits: Vec<Vec<Vec<f32>>>,
}

fn golden(name: &str) -> Golden {
    serde_json::from_slice(&fs::read(folder(name).join("logits.json")).unwrap()).unwrap()
}

/// A copy of a checkpoint, to be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(folder(name).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn parameters(dir: &Path) -> Parameters {
    Parameters::from_bytes(&fs::read(dir.join("model.safetensors")).unwrap()).unwrap()
}

fn message(dir: &Path) -> String {
    open_hugging_face(dir, &cpu()).expect_err("the checkpoint is damaged").to_string()
}

#[test]
fn logits_are_those_of_transformers() {
    for name in NAMES {
        let (model, _) = open_hugging_face(&folder(name), &cpu()).unwrap();
        let Golden { ids, logits } = golden(name);
        let shape = [logits.len() * logits[0].len(), logits[0][0].len()];
        let expected = Tensor::<2>::from_data(TensorData::new(logits.concat().concat(), shape), &cpu());
        assert_close(model.logits(&TokenBatch::of(&ids, &cpu())), expected, 1e-4);
    }
}

fn assert_eq_bits<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
    let bits = |tensor: Tensor<D>| tensor.into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(found), bits(expected));
}

#[test]
fn steps_through_the_cache_and_packed_rows_give_the_same_bits() {
    for name in NAMES {
        let (model, _) = open_hugging_face(&folder(name), &cpu()).unwrap();
        let Golden { ids, .. } = golden(name);
        let whole = model.logits(&TokenBatch::of(&ids[..1], &cpu()));
        let at = |position: usize| whole.clone().narrow(0, position, 1);
        let mut cache = model.cache(1, 10);
        assert_eq_bits(model.extend(&mut cache, &[Feed { slot: 0, tokens: &ids[0][..7] }]), at(6));
        for position in 7..10 {
            assert_eq_bits(
                model.extend(&mut cache, &[Feed { slot: 0, tokens: &ids[0][position..=position] }]),
                at(position),
            );
        }
        let packed = model.logits(&TokenBatch::of(&[&ids[1][..9], &ids[0]], &cpu()));
        assert_eq_bits(packed.narrow(0, 9, ids[0].len()), whole);
    }
}

#[test]
fn what_is_written_is_what_was_read() {
    for name in NAMES {
        let (model, config) = open_hugging_face(&folder(name), &cpu()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        save_hugging_face(&model, &config, dir.path()).unwrap();
        assert_eq!(parameters(dir.path()), parameters(&folder(name)), "{name}");
        let (again, config_again) = open_hugging_face(dir.path(), &cpu()).unwrap();
        assert_eq!(config_again, config, "{name}");
        assert_eq!(Parameters::of(&again), Parameters::of(&model), "{name}");
    }
}

#[test]
fn the_papers_family_can_be_written_for_others() {
    let config = DecoderConfig { heads: 4, d_model: 32, ..DecoderConfig::family(1, 16, 20) };
    let model = config.init(Seed::new(3), &cpu());
    let dir = tempfile::tempdir().unwrap();
    save_hugging_face(&model, &config, dir.path()).unwrap();
    let (again, config_again) = open_hugging_face(dir.path(), &cpu()).unwrap();
    assert_eq!((config_again, Parameters::of(&again)), (config, Parameters::of(&model)));

    let strange = DecoderConfig {
        architecture: Architecture { norm: firebrick_models::Norm::Rms, ..Architecture::gpt() },
        ..config
    };
    let error = save_hugging_face(&strange.init(Seed::new(3), &cpu()), &strange, dir.path()).unwrap_err();
    assert!(error.to_string().contains("gpt2, gpt_neox, llama, mistral, qwen2"), "{error}");
}

#[test]
fn shards_are_put_together() {
    let dir = copy("llama");
    let all = parameters(dir.path());
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let (mut first, mut second) = (Parameters::default(), Parameters::default());
    let mut map = serde_json::Map::new();
    for (index, (name, shape, values)) in all.iter().enumerate() {
        let (part, file) = if index % 2 == 0 { (&mut first, "a.safetensors") } else { (&mut second, "b.safetensors") };
        part.insert(name, shape.to_vec(), values.to_vec());
        map.insert(name.to_owned(), file.into());
    }
    fs::write(dir.path().join("a.safetensors"), first.to_bytes()).unwrap();
    fs::write(dir.path().join("b.safetensors"), second.to_bytes()).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    let (model, _) = open_hugging_face(dir.path(), &cpu()).unwrap();
    let (whole, _) = open_hugging_face(&folder("llama"), &cpu()).unwrap();
    assert_eq!(Parameters::of(&model), Parameters::of(&whole));

    fs::write(&index, r#"{"weight_map": {"a": "../../secret.safetensors"}}"#).unwrap();
    assert!(message(dir.path()).ends_with("the shard `../../secret.safetensors` is not a file of this folder"));
}

#[test]
fn numbers_of_16_bits_are_widened() {
    use half::{bf16, f16};
    use safetensors::tensor::{Dtype, TensorView};
    let dir = copy("gpt2");
    let all = parameters(dir.path());
    for (dtype, narrow) in [
        (Dtype::F16, (|x| f16::from_f32(x).to_le_bytes()) as fn(f32) -> [u8; 2]),
        (Dtype::BF16, |x| bf16::from_f32(x).to_le_bytes()),
    ] {
        let bytes = all.iter().map(|(name, shape, values)| {
            (name, shape, values.iter().flat_map(|&value| narrow(value)).collect::<Vec<u8>>())
        });
        let bytes = bytes.collect::<Vec<_>>();
        let views =
            bytes.iter().map(|(name, shape, bytes)| (*name, TensorView::new(dtype, shape.to_vec(), bytes).unwrap()));
        fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        let (model, _) = open_hugging_face(dir.path(), &cpu()).unwrap();
        let (name, _, values) = all.iter().find(|(name, ..)| name.ends_with("wte.weight")).unwrap();
        let widened = Parameters::of(&model);
        let (_, found) = widened.get("wte.weight").unwrap();
        for (found, value) in found.iter().zip(values) {
            let tolerance = if dtype == Dtype::F16 { 1e-3 } else { 8e-3 };
            assert!((found - value).abs() <= tolerance * value.abs(), "{name}: {found} for {value}");
        }
    }
}

/// `transformers` has kept masks as U8 and as BOOL beside a network's weights: they are passed over, whatever they are.
#[test]
fn buffers_that_are_not_read_may_be_of_any_format() {
    use safetensors::tensor::{Dtype, SafeTensors, TensorView};
    for (name, buffers) in [
        ("gpt2", ["transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"]),
        ("gpt_neox", ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.1.attention.masked_bias"]),
        ("llama", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.cos_cached"]),
    ] {
        let (expected, _) = open_hugging_face(&folder(name), &cpu()).unwrap();
        let whole = fs::read(folder(name).join("model.safetensors")).unwrap();
        let weights = SafeTensors::deserialize(&whole).unwrap();
        for (dtype, size) in [(Dtype::U8, 1), (Dtype::BOOL, 1), (Dtype::I64, 8), (Dtype::F64, 8)] {
            let dir = copy(name);
            let bytes = vec![1; 6 * size];
            let mut tensors = weights.tensors();
            tensors.extend(
                buffers.map(|buffer| (buffer.to_owned(), TensorView::new(dtype, vec![1, 1, 2, 3], &bytes).unwrap())),
            );
            let bytes = safetensors::serialize(tensors, None).unwrap();
            fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
            let (found, _) = open_hugging_face(dir.path(), &cpu()).unwrap();
            assert_eq!(Parameters::of(&found), Parameters::of(&expected), "{name}, {dtype:?}");
        }
    }
}

/// transformers 5.24 writes both spellings of one key; older versions wrote one or the other.
#[test]
fn either_spelling_of_the_rotary_scaling_is_read_and_two_that_contradict_are_named() {
    let with = |keys: serde_json::Value| {
        let dir = copy("llama3");
        let path = dir.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let rope = config["rope_parameters"].as_object_mut().unwrap();
        rope.remove("rope_type");
        rope.extend(keys.as_object().unwrap().clone());
        let rope = serde_json::Value::from(std::mem::take(rope));
        config.as_object_mut().unwrap().remove("rope_parameters");
        config["rope_scaling"] = rope;
        fs::write(path, config.to_string()).unwrap();
        dir
    };
    let (_, expected) = open_hugging_face(&folder("llama3"), &cpu()).unwrap();
    for keys in [
        serde_json::json!({"type": "llama3"}),
        serde_json::json!({"rope_type": "llama3"}),
        serde_json::json!({"type": "llama3", "rope_type": "llama3"}),
        serde_json::json!({"rope_type": "llama3", "type": null}),
    ] {
        let (_, config) = open_hugging_face(with(keys.clone()).path(), &cpu()).unwrap();
        assert_eq!(config, expected, "{keys}");
    }
    let message = message(with(serde_json::json!({"type": "linear", "rope_type": "llama3"})).path());
    assert!(message.contains("`rope_type` is `llama3`, but `type` is `linear`"), "{message}");
}

#[test]
fn damaged_checkpoints_are_named() {
    let weights = |dir: &Path, change: &dyn Fn(&mut Parameters)| {
        let mut all = parameters(dir);
        change(&mut all);
        fs::write(dir.join("model.safetensors"), all.to_bytes()).unwrap();
    };
    let dir = copy("llama");
    weights(dir.path(), &|all| drop(all.remove("model.layers.1.self_attn.k_proj.weight")));
    assert!(message(dir.path()).ends_with("missing tensors: model.layers.1.self_attn.k_proj.weight"));

    let dir = copy("gpt2");
    weights(dir.path(), &|all| all.insert("transformer.h.0.adapter", vec![1], vec![0.0]));
    assert!(message(dir.path()).ends_with("surplus tensors: transformer.h.0.adapter"));

    let dir = copy("gpt_neox");
    weights(dir.path(), &|all| all.insert("gpt_neox.final_layer_norm.bias", vec![2], vec![0.0; 2]));
    let expected = "tensor `gpt_neox.final_layer_norm.bias` has shape [2], the model needs [16]";
    assert!(message(dir.path()).ends_with(expected), "{}", message(dir.path()));

    let config = |dir: &Path, from: &str, to: &str| {
        let path = dir.join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    };
    let dir = copy("llama");
    config(dir.path(), r#""model_type": "llama""#, r#""model_type": "mamba""#);
    assert!(message(dir.path()).ends_with("`model_type` is `mamba`; known are gpt2, gpt_neox, llama, mistral, qwen2"));

    for (from, to, expected) in [
        (r#""hidden_act": "silu""#, r#""hidden_act": "relu""#, "`hidden_act` = relu is not supported"),
        (r#""rope_type": "default""#, r#""rope_type": "yarn""#, "`rope_type` = yarn is not supported"),
        (r#""head_dim": 4"#, r#""head_dim": 8"#, "`head_dim` = 8 is not supported"),
        (r#""hidden_size": 16,"#, "", "`hidden_size` is missing"),
        (
            r#""num_attention_heads": 4"#,
            r#""num_attention_heads": 3"#,
            "`heads` = 3 does not divide `d_model` = 16; choose a divisor",
        ),
        (
            r#""num_key_value_heads": 2"#,
            r#""num_key_value_heads": 3"#,
            "`key_value_heads` = 3 does not divide `heads` = 4; choose a divisor",
        ),
    ] {
        let dir = copy("llama");
        config(dir.path(), from, to);
        assert!(message(dir.path()).ends_with(expected), "{}", message(dir.path()));
    }
}

/// No byte that is cut off or flipped makes reading panic.
#[test]
fn broken_bytes_are_errors_or_other_numbers_but_never_a_panic() {
    let dir = copy("qwen2");
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let message = message(dir.path());
        assert!(message.contains("model.safetensors: not a safetensors file"), "{length}: {message}");
    }
    for place in (0..whole.len().min(3000)).step_by(7) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&path, bytes).unwrap();
        let _ = open_hugging_face(dir.path(), &cpu());
    }
}
