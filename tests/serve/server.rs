//! A small checkpoint, commands over it, and a server in a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use firebrick_models::DecoderConfig;
use firebrick_models::checkpoint::{GenerationConfig, Text, save};
use firebrick_text::{Renderer, Tokenizer};
use firebrick_types::Seed;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const NAME: &str = "small";

/// Tokens of the model's context: enough that a sample of all of them takes far longer than a test waits.
pub(crate) const CONTEXT: usize = 60_000;

/// A model with drawn weights, and a tokenizer of bytes and some words.
pub(crate) fn checkpoint() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let documents =
        ["the quick brown fox jumps over the lazy dog", "the dog is quick and the fox is brown, naïve as ever"];
    let tokenizer = Tokenizer::train(documents, 300).expect("the vocabulary is large enough");
    let shape = DecoderConfig::family(1, CONTEXT, tokenizer.vocab_size());
    let config = DecoderConfig { d_model: 16, heads: 2, d_ff: 32, ..shape };
    let text = Text { renderer: Renderer::dialogues(tokenizer), generation: GenerationConfig::default() };
    let model = config.init(Seed::new(1), &Device::flex());
    save(&model, &config, Some(&text), &dir.path().join(NAME)).expect("the folder is empty");
    dir
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.args(args).stdin(Stdio::null());
    command
}

pub(crate) fn model(dir: &TempDir) -> String {
    dir.path().join(NAME).to_str().expect("the path is text").to_owned()
}

pub(crate) fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

/// What `firebrick generate --json` tells.
pub(crate) fn generated(dir: &TempDir, args: &[&str]) -> Value {
    let output =
        command(&[&["generate", &model(dir), "--json"], args].concat()).output().expect("the binary was built");
    serde_json::from_str(&succeed(&output)).expect("it prints JSON")
}

/// A server in a process of its own, which ends with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn start(checkpoint: &Path, args: &[&str]) -> Self {
        let path = checkpoint.join(NAME);
        let model = path.to_str().expect("the path is text");
        let mut child = command(&[&["serve", "--model", model, "--port", "0", "--threads", "1"], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it tells its address");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect(&line).to_owned();
        Self { child, address }
    }

    /// What it said of requests, once it is ended.
    pub(crate) fn log(mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        let mut said = self.child.stderr.take().expect("it is piped");
        said.read_to_string(&mut text).expect("what it says is text");
        text
    }

    pub(crate) fn of(dir: &TempDir) -> Self {
        Self::start(dir.path(), &[])
    }

    /// The status and the body of an answer.
    pub(crate) fn post(&self, place: &str, body: &str) -> (u16, Value) {
        let request = ureq::post(format!("http://{}{place}", self.address)).header("Content-Type", "application/json");
        told(request.config().http_status_as_error(false).build().send(body))
    }

    pub(crate) fn get(&self, place: &str) -> (u16, Value) {
        let request = ureq::get(format!("http://{}{place}", self.address));
        told(request.config().http_status_as_error(false).build().call())
    }

    /// The answer to what must be answered.
    pub(crate) fn answer(&self, place: &str, body: &Value) -> Value {
        let (status, answer) = self.post(place, &body.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(crate) fn complete(&self, rest: &Value) -> Value {
        self.answer("/v1/completions", &with(&json!({ "model": NAME, "prompt": "the fox", "max_tokens": 12 }), rest))
    }

    /// The chunks of a stream, up to its end.
    pub(crate) fn stream(&self, place: &str, body: &Value) -> Vec<Value> {
        let request = ureq::post(format!("http://{}{place}", self.address));
        let answer = request.send(with(body, &json!({ "stream": true })).to_string()).expect("it is answered");
        assert!(answer.headers()["content-type"].as_bytes().starts_with(b"text/event-stream"));
        let lines = BufReader::new(answer.into_body().into_reader()).lines().map(|line| line.expect("events are text"));
        let mut data = lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned)).collect::<Vec<_>>();
        assert_eq!(data.pop().as_deref(), Some("[DONE]"));
        data.iter().map(|chunk| serde_json::from_str(chunk).expect("chunks are JSON")).collect()
    }

    /// A stream whose first event has come, so that its sample grows.
    pub(crate) fn begin(&self, body: &Value) -> BufReader<TcpStream> {
        let mut reader = BufReader::new(self.send(&with(body, &json!({ "stream": true }))));
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(reader.read_line(&mut line).expect("it is answered") > 0, "the stream ended");
        }
        reader
    }

    pub(crate) fn send(&self, body: &Value) -> TcpStream {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let head = format!("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
        stream
    }

    /// Waits until so many samples are running and requests waiting.
    pub(crate) fn await_load(&self, running: usize, waiting: usize) {
        let begun = Instant::now();
        loop {
            let (_, health) = self.get("/health");
            if (&health["running"], &health["waiting"]) == (&json!(running), &json!(waiting)) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "still {health}, expected {running} and {waiting}");
        }
    }
}

pub(crate) fn told(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut answer = answer.expect("it is answered");
    (answer.status().as_u16(), answer.body_mut().read_json().expect("answers are JSON"))
}

/// An object with keys added or replaced.
pub(crate) fn with(base: &Value, rest: &Value) -> Value {
    let mut whole = base.as_object().expect("an object").clone();
    whole.extend(rest.as_object().expect("an object").clone());
    whole.into()
}

pub(crate) fn text(answer: &Value, index: usize) -> &str {
    answer["choices"][index]["text"].as_str().expect("a completion has a text")
}

/// Numbers of 32 bits, however many digits they are written with.
pub(crate) fn numbers(list: &Value) -> Vec<Option<f32>> {
    list.as_array().expect("a list").iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
}

/// A request for a sample that goes on until somebody stops it: the likeliest tokens of this model never end.
pub(crate) fn endless() -> Value {
    json!({ "model": NAME, "prompt": "the", "temperature": 0, "max_tokens": CONTEXT - 100 })
}
