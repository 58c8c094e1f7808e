//! The pipelines over one's own model and data as a person runs them, on models of a few thousand weights.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// A folder with data of every kind, and the runs on it.
struct Bench(tempfile::TempDir);

/// A conversation, with whose last answer.
fn turns(index: usize, answer: &str) -> Vec<Value> {
    let turn = |role: &str, text: String| json!({"role": role, "content": text});
    let mut turns = vec![turn("user", format!("Is {index} a number?"))];
    if index.is_multiple_of(3) {
        turns.push(turn("assistant", "It is.".to_owned()));
        turns.push(turn("user", "Are you sure?".to_owned()));
    }
    turns.push(turn("assistant", format!("{answer}, {index}.")));
    turns
}

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().expect("a temporary folder"));
        let rows = |name: &str, count: usize, row: &dyn Fn(usize) -> Value| {
            let text = (0..count).map(|index| row(index).to_string() + "\n").collect::<String>();
            fs::write(bench.path(name), text).expect("a file can be written");
        };
        rows("chats.jsonl", 120, &|index| json!({"messages": turns(index, "Yes it is")}));
        rows("pairs.jsonl", 160, &|index| json!({"chosen": turns(index, "Yes it is"), "rejected": turns(index, "No")}));
        rows("prompts.jsonl", 60, &|index| json!({"prompt": format!("Is {index} a number?")}));
        rows("threads.jsonl", 80, &|index| {
            let answer = |score: usize, body: &str| json!({"score": score, "accepted": false, "body": body});
            let answers = [answer(7, "Yes, of course."), answer(0, "No.")];
            json!({"title": format!("Is {index} a number?"), "body": "I wonder.", "answers": answers})
        });
        fs::write(bench.path("prompt.txt"), "\n\nHuman: Is 7 a number?\n\nAssistant: Yes it is, 7.").expect("a file");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `firebrick` with words, of which `@name` is a file of this folder.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        for word in line.split_whitespace() {
            match word.strip_prefix('@') {
                Some(name) => command.arg(self.path(name)),
                None => command.arg(word),
            };
        }
        command.stdin(Stdio::null());
        command
    }

    fn pipeline(&self, line: &str) -> Command {
        let mut command = self.command(&format!("pipeline {line}"));
        command.args(["--checkpoint-every", "0"]);
        command
    }

    fn succeed(&self, line: &str) -> String {
        let output = self.pipeline(line).output().expect("the binary was built");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("output is text")
    }

    /// What is said of bad input, which ends with 2 before anything is trained.
    fn refuse(&self, line: &str) -> String {
        let Output { status, stderr, stdout } = self.pipeline(line).output().expect("the binary was built");
        let message = String::from_utf8(stderr).expect("messages are text");
        assert_eq!(status.code(), Some(2), "{line}: {message}{}", String::from_utf8_lossy(&stdout));
        assert!(!message.contains("panicked") && !message.contains(": step "), "{message}");
        message
    }

    /// Kills a run when it has told a step of a stage.
    fn kill_at(&self, line: &str, stage: &str) {
        let mut child = self
            .pipeline(line)
            .arg("--verbose")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let told = format!("{stage}: step 1 of ");
        let reached = lines.map_while(Result::ok).any(|line| line.trim_start().starts_with(&told));
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        assert!(reached, "{line}: {stage} told no step");
    }

    /// The digest of every stage's artifact.
    fn digests(&self, run: &str) -> BTreeMap<String, String> {
        let stage = |entry: fs::DirEntry| {
            let record = fs::read(entry.path().join("record.json")).ok()?;
            let record: Value = serde_json::from_slice(&record).expect("a record is JSON");
            Some((entry.file_name().into_string().ok()?, record["digest"].to_string()))
        };
        fs::read_dir(self.path(run)).expect("the run exists").filter_map(|entry| stage(entry.ok()?)).collect()
    }

    /// The class of `transformers` that the model of a run is for.
    fn architecture(&self, run: &str) -> String {
        let config = fs::read(self.path(run).join("model/config.json")).expect("the run left a model");
        let config: Value = serde_json::from_slice(&config).expect("it is JSON");
        config["architectures"][0].as_str().expect("a name").to_owned()
    }

    fn measured(&self, run: &Path, name: &str) -> f64 {
        let folder = fs::read_dir(self.path("").join(run)).expect("the run exists");
        let mut stages = folder.filter_map(Result::ok).map(|entry| entry.path());
        let evaluate = stages.find(|path| path.to_string_lossy().ends_with("-evaluate")).expect("a stage");
        let text = fs::read(evaluate.join("artifact/measurements.json")).expect("it measured");
        let found: Value = serde_json::from_slice(&text).expect("it is JSON");
        let metrics = found["metrics"].as_array().expect("a list");
        let one =
            metrics.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no metric {name} in {found}"));
        one["estimate"].as_f64().expect("a number")
    }
}

const TINY: &str = "--set model.n_layer=1 --set model.d_model=32 --set model.heads=2 --set model.d_ff=64 --set model.context=96 \
                    --set tokenizer.vocab=300 --set pretrain.passes=6 --set pretrain.warmup=8";

fn sft(out: &str) -> String {
    format!(
        "sft --data @chats.jsonl --out @{out} {TINY} --set sft.train.batch_size=8 --set sft.train.passes=6 --set sft.probe.every=32 \
             --set evaluate.max_response_tokens=12"
    )
}

fn reward(out: &str) -> String {
    format!(
        "reward --data @pairs.jsonl --out @{out} {TINY} --set pm.train.batch_size=8 --set pm.train.passes=4 --set pm.probe.every=64 \
             --set pm.train.learning_rate=3e-3"
    )
}

fn rl(out: &str, model: &str, recipe: &str) -> String {
    format!(
        "rl --model {model} --reward @reward/model --test-reward @reward/model --prompts @prompts.jsonl --recipe {recipe} \
             --out @{out} --set model.context=96 --set ppo.iterations=2 --set ppo.prompts_per_iteration=8 --set ppo.sequences_per_update=8 \
             --set ppo.max_response_tokens=12 --set probe.every=8 --set probe.samples=6 --set evaluate.prompts=6 \
             --set evaluate.max_response_tokens=12 --set data.held_out=0.3"
    )
}

fn distill(out: &str) -> String {
    format!(
        "distill --model @sft/model --prompt @prompt.txt --data @chats.jsonl --out @{out} --recipe whole --set model.context=96 \
             --set distill.texts=64 --set distill.max_tokens=20 --set distill.train.batch_size=8 --set data.held_out=0.2"
    )
}

fn pmp(out: &str) -> String {
    format!("pmp --data @threads.jsonl --out @{out} {TINY} --set pmp.train.batch_size=8 --set data.held_out=0.2")
}

/// From rows to a policy, each step on what the one before left; killed and gone on, each command leaves the same bits.
#[test]
fn every_command_goes_on_to_the_same_bits_and_leaves_a_model() {
    let bench = Bench::new();
    type Line = fn(&str) -> String;
    let commands: [(Line, &str, &str, &str); 5] = [
        (sft, "sft", "sft", "GPT2LMHeadModel"),
        (reward, "reward", "reward", "GPT2ForSequenceClassification"),
        (pmp, "pmp", "pmp", "GPT2ForSequenceClassification"),
        (distill, "distill", "distill", "GPT2LMHeadModel"),
        (|out| rl(out, "@sft/model", "whole"), "rl", "ppo", "GPT2LMHeadModel"),
    ];
    for (line, name, stage, architecture) in commands {
        let said = bench.succeed(&line(name));
        assert!(said.contains("report: ") && said.contains("model: "), "{said}");
        assert_eq!(bench.architecture(name), architecture, "{name}");
        let killed = format!("{name}-killed");
        bench.kill_at(&line(&killed), stage);
        bench.succeed(&line(&killed));
        assert_eq!(bench.digests(name), bench.digests(&killed), "{name}");
        let weights =
            |run: &str| fs::read(bench.path(run).join("model/model.safetensors")).expect("the model is there");
        assert_eq!(weights(name), weights(&killed), "{name}");
    }
    // What can be learnt is learnt.
    let of = |run: &str, name: &str| bench.measured(Path::new(run), name);
    assert!(of("sft", "eval_loss/after") < of("sft", "eval_loss/before"));
    assert!(of("reward", "pm/accuracy") > 0.9, "{}", of("reward", "pm/accuracy"));
    assert!(of("distill", "distill/kl/after") < of("distill", "distill/kl/before"));
    assert!(of("rl", "kl/after") > 0.0);

    // Finished stages of another run are taken over.
    let said = bench.succeed(&format!("{} --from @sft --set sft.train.learning_rate=1e-4", sft("again")));
    assert_eq!(said.matches("taken over").count(), 3, "{said}");

    let evaluate = "evaluate --model @sft/model --compare @rl/model --reward @reward/model --data @pairs.jsonl --out @evaluation \
                    --set limits.context=96 --set evaluate.prompts=6 --set evaluate.max_response_tokens=12";
    let said = bench.succeed(evaluate);
    for name in ["win_rate/compare-1", "kl/compare-1", "reward/model", "perplexity/model", "reward_pm/accuracy"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    // A comparison has two scores, a conversation one.
    let scores = |file: &str| {
        let mut command = bench.command(&format!("score --model @reward/model --data @{file}"));
        let output = command.output().expect("the binary was built");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).expect("output is text");
        lines.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect::<Vec<Value>>()
    };
    let pairs = scores("pairs.jsonl");
    let right = pairs.iter().filter(|pair| pair["chosen"].as_f64() > pair["rejected"].as_f64()).count();
    assert!(pairs.len() == 160 && right > 144, "{right} of {}", pairs.len());
    assert!(scores("chats.jsonl").iter().all(|row| row["score"].is_f64()));
}

/// A checkpoint adapted by LoRA, through preference model and policy; the policy has another tokenizer than its reward model.
#[test]
fn checkpoints_are_adapted_by_lora() {
    let bench = Bench::new();
    bench.succeed(&sft("sft"));
    let line = "reward --model @sft/model --data @pairs.jsonl --out @reward --set base.lora_rank=4 --set model.context=96 \
                --set pm.train.batch_size=8 --set pm.train.passes=6 --set pm.train.learning_rate=1e-2 --set pm.train.warmup=0";
    bench.succeed(line);
    assert!(bench.measured(Path::new("reward"), "pm/accuracy") > 0.7);
    bench.succeed(&format!("{} --set base.lora_rank=4", rl("rl", "@sft/model", "lora")));
    assert!(bench.measured(Path::new("rl"), "kl/after") > 0.0);
    // Another tokenizer: its reward model reads text.
    bench.succeed(&sft("other").replace("tokenizer.vocab=300", "tokenizer.vocab=280"));
    bench.succeed(&format!("{} --set base.lora_rank=4", rl("rl-other", "@other/model", "lora")));
    let metrics = fs::read_dir(bench.path("rl-other")).expect("the run exists").filter_map(Result::ok);
    let ppo = metrics.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with("-ppo")).expect("a stage");
    let metrics = fs::read_to_string(ppo.join("artifact/metrics.jsonl")).expect("metrics are kept");
    assert!(metrics.contains(r#""val/ratio_first_max_deviation":0.0"#), "{metrics}");
    // A reward model goes on learning.
    let more =
        "reward --model @reward/model --data @pairs.jsonl --out @more --set base.lora_rank=4 --set model.context=96";
    bench.succeed(&format!("{more} --set pm.train.batch_size=8"));
    assert_eq!(bench.architecture("more"), "GPT2ForSequenceClassification");
}

#[test]
fn bad_input_is_refused_with_the_way_on_before_any_compute() {
    let bench = Bench::new();
    bench.succeed(&sft("sft"));
    bench.succeed(&reward("reward"));
    let (text, two) = (bench.path("book.txt"), bench.path("two.jsonl"));
    fs::write(text, "It is a book.\n").expect("a file can be written");
    fs::write(two, "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"text\": \"c\"}\n").expect("a file can be written");
    for (line, parts) in [
        (
            "rl --model @reward/model --reward @reward/model --prompts @prompts.jsonl",
            &["is a reward model", "--reward"][..],
        ),
        (
            "rl --model @sft/model --reward @sft/model --prompts @prompts.jsonl",
            &["is a language model", "pipeline reward"],
        ),
        ("sft --model @reward/model --data @chats.jsonl", &["is a reward model"]),
        ("reward --data @chats.jsonl", &["comparisons are wanted", "conversations, which `sft` takes"]),
        ("pmp --data @pairs.jsonl", &["questions with scored answers are wanted", "`reward` takes"]),
        ("sft --data @threads.jsonl", &["which `pmp` takes"]),
        (
            "rl --model @sft/model --reward @reward/model --prompts @book.txt",
            &["--prompts", "prompts are wanted", "text"],
        ),
        ("sft --data @two.jsonl", &["line 2", "text", "the first row has conversations"]),
        ("sft --data @chats.jsonl --out @reward", &["holds a run of pipeline `reward`", "--out"]),
        ("sft --data @nothing.jsonl", &["there is no such file or folder"]),
        ("sft", &["--data"]),
        ("sft --data @chats.jsonl --set sft.train.batch_size=0", &["`sft.train.batch_size` is 0"]),
        ("sft --data @chats.jsonl --set data.held_out=1.5", &["`data.held_out` is 1.5"]),
        ("distill --model @sft/model --prompt @nothing.txt", &["--prompt", "no such file"]),
        (
            "rl --model @sft/model --reward @reward/model --prompts @prompts.jsonl --set model.context=66",
            &["leaves no room for a prompt"],
        ),
        ("reward --model @reward/model --data @pairs.jsonl --pmp @threads.jsonl", &["--pmp"]),
        ("evaluate --model @sft/model --data @chats.jsonl --from @nowhere", &["not the folder of a run"]),
    ] {
        let line = if line.contains("--out") { line.to_owned() } else { format!("{line} --out @fresh") };
        let message = bench.refuse(&line);
        for part in parts {
            assert!(message.contains(part), "{line}: no {part:?} in {message}");
        }
    }
}

#[test]
fn a_plan_tells_memory_and_time_and_runs_nothing() {
    let bench = Bench::new();
    let said = bench.succeed(&format!("{} --plan", sft("planned")));
    assert!(
        said.contains("memory: about ") && said.contains("time: at most about ") && said.contains("to do"),
        "{said}"
    );
    assert!(!bench.path("planned").exists());
}
