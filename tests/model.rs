//! `firebrick model …` as a person runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use firebrick_tensor::Parameters;
use serde_json::Value;

fn crates(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A small checkpoint of another crate's tests.
fn small(path: &str) -> String {
    let path = crates(path);
    assert!(path.exists(), "{}", path.display());
    path.to_str().expect("the path is text").to_owned()
}

fn spm() -> String {
    small("firebrick-models/tests/tokenizers/spm.gguf")
}

fn gpt2() -> String {
    small("firebrick-models/tests/checkpoints/gpt2")
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.args(args).stdin(Stdio::null()).output().expect("the binary was built")
}

fn succeed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is text")
}

fn fail(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    let stderr = String::from_utf8(output.stderr).expect("messages are text");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

fn log_probs(args: &[&str]) -> Value {
    serde_json::from_str(&succeed(&[&["model", "logprobs"], args].concat())).expect("it prints JSON")
}

#[test]
fn info_tells_shape_parameters_precision_and_memory() {
    let told = succeed(&["model", "info", &spm(), "--lora-rank", "2"]);
    // 420 · 8 embeddings; attention 8 · (8 + 4 + 4) + 8 · 8; feed-forward 3 · 64; three norms of 8: all 3768, at 4 bytes each.
    // Adapters of rank 2: 2 · ((8 + 16) + (8 + 8) + (8 + 16) + (8 + 8)) = 160.
    for expected in [
        "name          spm\n",
        "(GGUF file)\n",
        "1 layers of width 8, 2 heads of 4, 1 of keys and values, feed-forward 8, context 64, vocabulary 420",
        "parameters    3 768\n",
        "embedding                3 360\n",
        "attention                  192\n",
        "feed-forward               192\n",
        "norms                       24\n",
        "precision     3 768 F16; read as F32\n",
        "tokenizer     420 tokens, end of context </s> (2)\n",
        "Firebrick's dialogue form",
        "ends with </s> (2)\n",
        "weights       15.1 kB as F32, 7.5 kB as BF16; a conversation's cache 32 B a token, 2.0 kB at 64 tokens\n",
        "adapters      160 parameters of rank 2",
        "inference                            15.1 kB        0 B       0 B   15.1 kB\n",
        "language modeling, preferences       15.1 kB    15.1 kB   30.1 kB   60.3 kB\n",
        "  with LoRA                          15.7 kB      640 B    1.3 kB   17.6 kB\n",
    ] {
        assert!(told.contains(expected), "{told}\nexpected {expected}");
    }
    let told = succeed(&["model", "info", &gpt2()]);
    assert!(
        told.contains("learned positions; layer norm (ε 1e-5); GELU by tanh; serial blocks; biases of queries"),
        "{told}"
    );
    assert!(told.contains("tokenizer     none: put tokenizer.json beside the weights"), "{told}");
}

#[test]
fn what_is_converted_scores_the_same() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let out = dir.path().join("copy");
    let copy = out.to_str().expect("the path is text");
    assert_eq!(succeed(&["model", "convert", &spm(), copy]).trim_end(), copy);
    for file in
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
    {
        assert!(out.join(file).exists(), "{file}");
    }
    let text = "The quick brown fox, 東京 <s>.";
    let (original, converted) = (log_probs(&[&spm(), "--text", text]), log_probs(&[copy, "--text", text]));
    assert_eq!(original["tokens"], converted["tokens"]);
    assert_eq!((&original["model"], &converted["model"]), (&Value::from("spm"), &Value::from("copy")));
    let texts = original["tokens"].as_array().unwrap().iter().map(|token| token["text"].as_str().unwrap());
    assert!(texts.collect::<String>().starts_with("<s> The quick brown fox, "), "{original}");

    let file = dir.path().join("text.txt");
    fs::write(&file, text).unwrap();
    assert_eq!(log_probs(&[copy, "--file", file.to_str().unwrap()]), converted);
    let ids = converted["tokens"].as_array().unwrap().iter().map(|token| token["id"].to_string()).collect::<Vec<_>>();
    assert_eq!(log_probs(&[copy, "--ids", &ids.join(",")]), converted);

    let message = fail(&["model", "convert", &spm(), copy]);
    assert!(message.contains("copy: not an empty folder; name another one, or remove it first"), "{message}");
    let bare = dir.path().join("bare");
    assert!(run(&["model", "convert", &gpt2(), bare.to_str().unwrap()]).status.success());
    let tensors = |folder: &Path| Parameters::from_bytes(&fs::read(folder.join("model.safetensors")).unwrap()).unwrap();
    assert!(tensors(&bare) == tensors(Path::new(&gpt2())), "other tensors than the original's");
}

/// The logits are those that transformers gave (crates/firebrick-models/tests/checkpoints/make.py).
#[test]
fn log_probabilities_are_those_of_transformers() {
    let golden = fs::read(Path::new(&gpt2()).join("logits.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let ids: Vec<usize> = serde_json::from_value(golden["ids"][0].clone()).unwrap();
    let logits: Vec<Vec<f64>> = serde_json::from_value(golden["logits"][0].clone()).unwrap();
    let given = ids.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let found = log_probs(&[&gpt2(), "--ids", &given]);
    let mut sum = 0.0;
    for position in 1..ids.len() {
        let before = &logits[position - 1];
        let expected = before[ids[position]] - before.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        let token = &found["tokens"][position];
        assert!((token["log_prob"].as_f64().unwrap() - expected).abs() < 1e-4, "{token} for {expected}");
        assert_eq!((&token["id"], &token["text"]), (&Value::from(ids[position]), &Value::Null));
        sum += expected;
    }
    assert_eq!(found["tokens"][0]["log_prob"], Value::Null);
    assert!((found["log_prob"].as_f64().unwrap() - sum).abs() < 1e-3);
}

#[test]
fn a_stage_of_a_run_is_a_checkpoint() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    succeed(&[
        "pipeline",
        "run",
        "rlhf",
        "--recipe",
        "smoke",
        "--until",
        "pretrain",
        "--quiet",
        "--out",
        run.to_str().unwrap(),
    ]);
    let stage = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path());
    let stage = stage.into_iter().find(|path| path.to_str().unwrap().ends_with("-pretrain")).expect("it ran");
    let stage = stage.to_str().unwrap();
    let told = succeed(&["model", "info", stage]);
    assert!(told.contains("(folder of Firebrick)") && told.contains("ends with <|eoc|> (0)"), "{told}");
    let out = dir.path().join("out");
    succeed(&["model", "convert", stage, out.to_str().unwrap()]);
    let text = "\n\nHuman: Who rules?<|eoc|>";
    let (ours, theirs) = (log_probs(&[stage, "--text", text]), log_probs(&[out.to_str().unwrap(), "--text", text]));
    assert_eq!(ours["tokens"], theirs["tokens"]);
    assert_eq!(ours["tokens"].as_array().unwrap().last().unwrap()["text"], "<|eoc|>");
}

/// A reward model's folder of transformers, a GGUF file of a folder, and what neither can be.
#[test]
fn reward_models_and_gguf_files_are_converted() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("the path is text").to_owned();
    let (folder, file, judge) = (path("folder"), path("copy.gguf"), path("judge"));
    // A byte-level tokenizer; what a file holds is what the folder holds.
    succeed(&["model", "convert", &small("firebrick-models/tests/tokenizers/qwen2.gguf"), &folder]);
    assert_eq!(succeed(&["model", "convert", &folder, &file]).trim_end(), file);
    let text = "The quick brown fox, 東京.";
    let tokens = |source: &str| log_probs(&[source, "--text", text])["tokens"].clone();
    assert_eq!(tokens(&file), tokens(&folder));
    for (format, counted) in [("f16", "F16"), ("bf16", "BF16")] {
        let file = path(&format!("{format}.gguf"));
        succeed(&["model", "convert", &folder, &file, "--format", format]);
        let told = succeed(&["model", "info", &file]);
        assert!(told.contains(&format!(" {counted}")) && told.contains(" F32; read as F32"), "{told}");
    }

    let mut config: Value = serde_json::from_slice(&fs::read(Path::new(&folder).join("config.json")).unwrap()).unwrap();
    let width = config["hidden_size"].as_u64().unwrap() as usize;
    config["architectures"] = serde_json::json!(["LlamaForSequenceClassification"]);
    config["id2label"] = serde_json::json!({"0": "LABEL_0"});
    let weights = Path::new(&folder).join("model.safetensors");
    let mut tensors = Parameters::from_bytes(&fs::read(&weights).unwrap()).unwrap();
    tensors.insert("score.weight", vec![1, width], vec![0.5; width]);
    let theirs = path("theirs");
    fs::create_dir(&theirs).unwrap();
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        fs::copy(entry.path(), Path::new(&theirs).join(entry.file_name())).unwrap();
    }
    fs::write(Path::new(&theirs).join("config.json"), config.to_string()).unwrap();
    fs::write(Path::new(&theirs).join("model.safetensors"), tensors.to_bytes()).unwrap();
    succeed(&["model", "convert", &theirs, &judge]);
    tensors.insert("score.bias", vec![1], vec![0.25]);
    fs::write(Path::new(&theirs).join("model.safetensors"), tensors.to_bytes()).unwrap();
    let output = run(&["model", "convert", &theirs, &path("biased")]);
    let noted = String::from_utf8(output.stderr).expect("messages are text");
    assert!(output.status.success() && noted.contains("note: each score is 0.25 less there"), "{noted}");
    let weights = |folder: &str| fs::read(Path::new(folder).join("model.safetensors")).unwrap();
    assert!(weights(&path("biased")) == weights(&judge));
    let told = succeed(&["model", "info", &judge]);
    assert!(told.contains(&format!("head          a score, of {width} numbers and a bias")), "{told}");

    for (args, expected) in [
        (
            vec!["convert", &judge, &path("judge.gguf")],
            "judge is a reward model, and a .gguf file holds a language model; name a",
        ),
        (vec!["convert", &folder, &file], "copy.gguf: is there already; name another file, or remove it first"),
        (vec!["convert", &folder, &path("x"), "--format", "f16"], "--format is of .gguf files, and "),
        (vec!["convert", &folder, &path("x.gguf"), "--format", "q8"], "[possible values: f32, f16, bf16]"),
        (
            vec!["convert", &gpt2(), &path("x.gguf")],
            "gpt2 has no tokenizer, which a .gguf file carries; put `tokenizer.json`",
        ),
        (vec!["convert", &spm(), &path("x.gguf")], "x.gguf: `decoder` is not ByteLevel; byte-level encodings alone"),
        (
            vec!["logprobs", &judge, "--text", "x"],
            "judge: a reward model, whose head gives a score and no tokens; `firebrick model",
        ),
    ] {
        let found = fail(&[&["model"], args.as_slice()].concat());
        assert!(found.contains(expected), "{args:?}: {found}\nexpected {expected}");
    }
    assert!(!dir.path().join("x.gguf").exists() && !dir.path().join("x.gguf.partial").exists());
}

#[test]
fn what_is_wrong_is_told_with_a_way_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let empty = dir.path().to_str().unwrap();
    let (spm, gpt2) = (spm(), gpt2());
    for (args, expected) in [
        (
            vec!["info", "nowhere"],
            vec!["nowhere: no checkpoint; looked for", "found nothing (No such file", "hub:OWNER/NAME"],
        ),
        (vec!["info", empty], vec!["no checkpoint; looked for `config.json`", "found an empty folder"]),
        (vec!["logprobs", &gpt2, "--text", "x"], vec!["gpt2 has no tokenizer; give token ids by --ids"]),
        (
            vec!["logprobs", &gpt2, "--ids", "3,11"],
            vec!["--ids: 11 is no token; the vocabulary has 11, counted from 0"],
        ),
        (vec!["logprobs", &spm, "--text", ""], vec!["there is no token to score"]),
        (vec!["logprobs", &spm, "--file", "nowhere"], vec!["cannot read nowhere as text"]),
        (vec!["logprobs", &spm], vec!["--text", "--ids", "--file"]),
        (vec!["info", "hub:name"], vec!["hub:name: expected hub:OWNER/NAME"]),
    ] {
        let found = fail(&[&["model"], args.as_slice()].concat());
        for expected in expected {
            assert!(found.contains(expected), "{args:?}: {found}\nexpected {expected}");
        }
    }
    let long = vec!["5"; 65].join(",");
    let found = fail(&["model", "logprobs", &spm, "--ids", &long]);
    assert!(found.contains("65 tokens do not fit the context of 64; give less"), "{found}");
}

#[test]
fn a_hub_that_cannot_be_asked_is_told_with_the_ways_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    // Nobody listens at port 9 of this machine, or at least no hub.
    for (offline, expected) in [
        ("0", vec!["model some/model cannot be fetched from http://127.0.0.1:9: ", "HF_HOME", "name its folder"]),
        ("1", vec!["model some/model is not in the cache", "HF_HUB_OFFLINE forbids to fetch it"]),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        command.args(["model", "info", "hub:some/model"]).env("HF_HOME", dir.path());
        command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HUB_OFFLINE", offline);
        let output = command.output().expect("the binary was built");
        let found = String::from_utf8(output.stderr).expect("messages are text");
        assert!(!output.status.success() && !found.contains("panicked"), "{found}");
        for expected in expected {
            assert!(found.contains(expected), "{found}\nexpected {expected}");
        }
    }
}

#[test]
fn help_holds_examples() {
    for command in ["info", "convert", "logprobs"] {
        let told = succeed(&["model", command, "--help"]);
        assert!(told.contains("Examples:") && told.contains(&format!("firebrick model {command} ")), "{told}");
    }
}
