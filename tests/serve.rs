//! `firebrick generate`, `chat` and `serve` as a person runs them, and what clients get.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use firebrick_data::Tokenizer;
use firebrick_models::DecoderConfig;
use firebrick_pretrained::{ChatTemplate, GenerationConfig, Text, save};
use firebrick_types::Seed;
use serde_json::{Value, json};
use tempfile::TempDir;

const NAME: &str = "small";

/// Tokens of the model's context: enough that a sample of all of them takes far longer than a test waits.
const CONTEXT: usize = 60_000;

/// A model with drawn weights, and a tokenizer of bytes and some words.
fn checkpoint() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let documents =
        ["the quick brown fox jumps over the lazy dog", "the dog is quick and the fox is brown, naïve as ever"];
    let tokenizer = Tokenizer::train(documents, 300).expect("the vocabulary is large enough");
    let shape = DecoderConfig::family(1, CONTEXT, tokenizer.vocab_size());
    let config = DecoderConfig { d_model: 16, heads: 2, d_ff: 32, ..shape };
    let generation = GenerationConfig { eos: vec![tokenizer.eoc()], ..GenerationConfig::default() };
    let text = Text { tokenizer, template: ChatTemplate::dialogue(), generation };
    let model = config.init(Seed::new(1), &Device::flex());
    save(&model, &config, Some(&text), &dir.path().join(NAME)).expect("the folder is empty");
    dir
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.args(args).stdin(Stdio::null());
    command
}

fn model(dir: &TempDir) -> String {
    dir.path().join(NAME).to_str().expect("the path is text").to_owned()
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

/// What `firebrick generate --json` tells.
fn generated(dir: &TempDir, args: &[&str]) -> Value {
    let output =
        command(&[&["generate", &model(dir), "--json"], args].concat()).output().expect("the binary was built");
    serde_json::from_str(&succeed(&output)).expect("it prints JSON")
}

/// A server in a process of its own, which ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(checkpoint: &Path, args: &[&str]) -> Self {
        let path = checkpoint.join(NAME);
        let model = path.to_str().expect("the path is text");
        let mut child = command(&[&["serve", "--model", model, "--port", "0", "--threads", "1"], args].concat())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it tells its address");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect(&line).to_owned();
        Self { child, address }
    }

    fn of(dir: &TempDir) -> Self {
        Self::start(dir.path(), &[])
    }

    /// The status and the body of an answer.
    fn post(&self, place: &str, body: &str) -> (u16, Value) {
        let request = ureq::post(&format!("http://{}{place}", self.address)).set("Content-Type", "application/json");
        told(request.send_string(body))
    }

    fn get(&self, place: &str) -> (u16, Value) {
        told(ureq::get(&format!("http://{}{place}", self.address)).call())
    }

    /// The answer to what must be answered.
    fn answer(&self, place: &str, body: &Value) -> Value {
        let (status, answer) = self.post(place, &body.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn complete(&self, rest: &Value) -> Value {
        self.answer("/v1/completions", &with(&json!({ "model": NAME, "prompt": "the fox", "max_tokens": 12 }), rest))
    }

    /// The chunks of a stream, up to its end.
    fn stream(&self, place: &str, body: &Value) -> Vec<Value> {
        let request = ureq::post(&format!("http://{}{place}", self.address));
        let answer = request.send_string(&with(body, &json!({ "stream": true })).to_string()).expect("it is answered");
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
        let lines = BufReader::new(answer.into_reader()).lines().map(|line| line.expect("events are text"));
        let mut data = lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned)).collect::<Vec<_>>();
        assert_eq!(data.pop().as_deref(), Some("[DONE]"));
        data.iter().map(|chunk| serde_json::from_str(chunk).expect("chunks are JSON")).collect()
    }

    /// A stream whose first event has come, so that its sample grows.
    fn begin(&self, body: &Value) -> BufReader<TcpStream> {
        let mut reader = BufReader::new(self.send(&with(body, &json!({ "stream": true }))));
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(reader.read_line(&mut line).expect("it is answered") > 0, "the stream ended");
        }
        reader
    }

    fn send(&self, body: &Value) -> TcpStream {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let head = format!("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
        stream
    }

    /// Waits until so many samples are running and requests waiting.
    fn await_load(&self, running: usize, waiting: usize) {
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

#[allow(clippy::result_large_err, reason = "it is what the client gives")]
fn told(answer: Result<ureq::Response, ureq::Error>) -> (u16, Value) {
    match answer {
        Ok(answer) | Err(ureq::Error::Status(_, answer)) => {
            let status = answer.status();
            (status, answer.into_json().expect("answers are JSON"))
        }
        Err(error) => panic!("{error}"),
    }
}

/// An object with keys added or replaced.
fn with(base: &Value, rest: &Value) -> Value {
    let mut whole = base.as_object().expect("an object").clone();
    whole.extend(rest.as_object().expect("an object").clone());
    whole.into()
}

fn text(answer: &Value, index: usize) -> &str {
    answer["choices"][index]["text"].as_str().expect("a completion has a text")
}

/// Numbers of 32 bits, however many digits they are written with.
fn numbers(list: &Value) -> Vec<Option<f32>> {
    list.as_array().expect("a list").iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
}

/// A request for a sample that goes on until somebody stops it: the likeliest tokens of this model never end.
fn endless() -> Value {
    json!({ "model": NAME, "prompt": "the", "temperature": 0, "max_tokens": CONTEXT - 100 })
}

#[test]
fn completions_are_what_generate_gives() {
    let dir = checkpoint();
    let server = Server::of(&dir);
    let drawn = json!({ "n": 3, "seed": 5, "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.001,
        "repetition_penalty": 1.1, "logprobs": 0, "max_tokens": 20 });
    let answer = server.complete(&drawn);
    let settings = "--prompt|the fox|-n|3|--seed|5|--temperature|0.8|--top-k|40|--top-p|0.95|--min-p|0.001|\
                    --repetition-penalty|1.1|--max-tokens|20";
    let expected = generated(&dir, &settings.split('|').collect::<Vec<_>>());
    let mut ended = 0;
    for index in 0..3 {
        let (choice, sample) = (&answer["choices"][index], &expected["samples"][index]);
        assert_eq!(choice["text"], sample["text"]);
        assert_eq!(choice["finish_reason"], sample["finish"]);
        let told = numbers(&choice["logprobs"]["token_logprobs"]);
        let own = numbers(&sample["log_probs"]);
        // One for each token that was drawn: that which ends a sample is no part of its text.
        assert_eq!(
            (&told[..own.len()], told.len() - own.len()),
            (own.as_slice(), usize::from(sample["finish"] == "stop"))
        );
        ended += told.len() - own.len();
        assert_eq!(choice["index"], index);
    }
    assert!(text(&answer, 0) != text(&answer, 1) && text(&answer, 1) != text(&answer, 2), "{answer}");
    assert_eq!(answer["object"], "text_completion");
    let texts =
        expected["samples"].as_array().expect("samples").iter().map(|sample| numbers(&sample["log_probs"]).len());
    assert_eq!(answer["usage"]["completion_tokens"], texts.sum::<usize>() + ended);
    assert!(ended > 0, "no sample came to its end: take another seed");
    assert!(answer["id"].as_str().expect("a name").starts_with("cmpl-"));
    // A prompt is the same as its tokens, alone or among others.
    let ids = &expected["prompt_ids"];
    for prompt in [json!(ids), json!([ids]), json!([ids, [1, 2]]), json!(["the fox", "x"])] {
        let again = server.complete(&with(&drawn, &json!({ "prompt": prompt })));
        assert_eq!(again["choices"][1]["text"], answer["choices"][1]["text"], "{prompt}");
    }
    let plain = command(&["generate", &model(&dir), "--prompt", "the fox", "--seed", "5", "--max-tokens", "9"]);
    let output = |mut command: Command| succeed(&command.output().expect("the binary was built"));
    let plain = output(plain);
    let streamed = output(command(&[
        "generate",
        &model(&dir),
        "--prompt",
        "the fox",
        "--seed",
        "5",
        "--max-tokens",
        "9",
        "--stream",
        "--half",
        "--threads",
        "2",
    ]));
    // Half-width weights are other weights: only that they work is looked at.
    assert!(!streamed.is_empty());
    assert_eq!(plain.trim_end_matches('\n'), text(&server.complete(&json!({ "seed": 5, "max_tokens": 9 })), 0));
}

#[test]
fn a_seed_gives_its_text_whatever_else_is_answered() {
    let dir = checkpoint();
    let server = Server::start(dir.path(), &["--slots", "3"]);
    let ask = |seed: usize| {
        let prompt = "the lazy dog ".repeat(seed * 7 % 5 + 1);
        let rest = json!({ "seed": seed, "prompt": prompt, "max_tokens": 30 + seed, "n": seed % 2 + 1 });
        server.complete(&rest)["choices"].clone()
    };
    let alone = (0..8).map(ask).collect::<Vec<_>>();
    thread::scope(|scope| {
        let together = (0..16).map(|index| scope.spawn(move || ask(index % 8))).collect::<Vec<_>>();
        for (index, answer) in together.into_iter().enumerate() {
            assert_eq!(answer.join().expect("it is answered"), alone[index % 8], "seed {}", index % 8);
        }
    });
    assert_ne!(server.complete(&json!({}))["choices"], server.complete(&json!({}))["choices"], "seeds are drawn");
}

#[test]
fn streams_put_together_are_the_whole_answer() {
    let dir = checkpoint();
    let server = Server::of(&dir);
    let base = json!({ "model": NAME, "prompt": "the fox", "max_tokens": 25, "seed": 3 });
    let whole = server.answer("/v1/completions", &base);
    let stop = text(&whole, 0).chars().skip(9).take(2).collect::<String>();
    for rest in [
        json!({}),
        json!({ "n": 2, "logprobs": 2 }),
        json!({ "stop": [stop, "never"], "logprobs": 1 }),
        json!({ "echo": true }),
        json!({ "echo": true, "logprobs": 3, "n": 2, "prompt": ["the fox", "a"] }),
        json!({ "echo": true, "max_tokens": 0 }),
    ] {
        let body = with(&base, &rest);
        let whole = server.answer("/v1/completions", &body);
        let chunks =
            server.stream("/v1/completions", &with(&body, &json!({ "stream_options": { "include_usage": true } })));
        let (last, chunks) = chunks.split_last().expect("there are chunks");
        assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
        for (index, choice) in whole["choices"].as_array().expect("choices").iter().enumerate() {
            let parts = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|part| part["index"] == index);
            let parts = parts.collect::<Vec<_>>();
            let joined = parts.iter().map(|part| part["text"].as_str().expect("a text")).collect::<String>();
            assert_eq!(joined, choice["text"], "{rest}");
            assert_eq!(parts.last().expect("an end")["finish_reason"], choice["finish_reason"]);
            let listed = |key: &str| {
                let lists = parts.iter().filter_map(|part| part["logprobs"][key].as_array());
                lists.flatten().cloned().collect::<Vec<_>>()
            };
            for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                let expected = choice["logprobs"][key].as_array().cloned().unwrap_or_default();
                assert_eq!(listed(key), expected, "{rest} {key}");
            }
        }
    }
}

#[test]
fn chats_are_answered_whole_and_as_streams() {
    let dir = checkpoint();
    let server = Server::of(&dir);
    let parts = json!([{ "type": "text", "text": "the " }, { "type": "text", "text": "fox" }]);
    let base = json!({ "model": NAME, "messages": [{ "role": "developer", "content": "Be brief." },
        { "role": "user", "content": parts }], "seed": 4, "max_completion_tokens": 20, "logprobs": true, "top_logprobs": 2 });
    let whole = server.answer("/v1/chat/completions", &base);
    assert_eq!(whole["object"], "chat.completion");
    // The dialogue form of the same, as a completion.
    let completion = json!({ "prompt": "Be brief.\n\nHuman: the fox\n\nAssistant:", "seed": 4, "max_tokens": 20 });
    let choice = &whole["choices"][0];
    assert_eq!(
        choice["message"],
        json!({ "role": "assistant", "content": text(&server.complete(&completion), 0), "refusal": null })
    );
    let content = choice["logprobs"]["content"].as_array().expect("log-probabilities");
    let bytes = content.iter().flat_map(|token| token["bytes"].as_array().expect("bytes").clone());
    let bytes = bytes.map(|byte| byte.as_u64().expect("a byte") as u8).collect::<Vec<_>>();
    assert_eq!(choice["message"]["content"], String::from_utf8_lossy(&bytes).into_owned());
    assert!(content.iter().all(|token| token["top_logprobs"].as_array().is_some_and(|top| top.len() == 2)));
    let usage = json!({ "stream_options": { "include_usage": true }, "n": 2 });
    let chunks = server.stream("/v1/chat/completions", &with(&base, &usage));
    for (index, chunk) in chunks[..2].iter().enumerate() {
        let delta = json!({ "role": "assistant", "content": "", "refusal": null });
        assert_eq!((&chunk["choices"][0]["index"], &chunk["choices"][0]["delta"]), (&json!(index), &delta));
    }
    let mine = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|part| part["index"] == 0).collect::<Vec<_>>();
    let joined = mine.iter().filter_map(|part| part["delta"]["content"].as_str()).collect::<String>();
    assert_eq!(choice["message"]["content"], joined);
    let log_probs = mine.iter().filter_map(|part| part["logprobs"]["content"].as_array()).flatten();
    assert_eq!(log_probs.cloned().collect::<Vec<_>>(), *content);
    assert_eq!(mine.last().expect("an end")["finish_reason"], choice["finish_reason"]);
    assert_eq!(chunks[0]["object"], "chat.completion.chunk");
    let last = chunks.last().expect("there are chunks");
    assert_eq!(last["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
}

#[test]
fn echoed_prompts_have_the_log_probabilities_of_the_model() {
    let dir = checkpoint();
    let server = Server::of(&dir);
    let prompts = [[270, 12, 280, 100, 299, 5], [1, 2, 3, 4, 5, 6]];
    let scored = |max_tokens: usize| {
        server.complete(
            &json!({ "prompt": prompts, "echo": true, "logprobs": 1, "max_tokens": max_tokens, "temperature": 0 }),
        )
    };
    let (bare, with_one) = (scored(0), scored(1));
    for (index, prompt) in prompts.iter().enumerate() {
        let ids = prompt.map(|id: u32| id.to_string()).join(",");
        let output =
            command(&["model", "logprobs", &model(&dir), "--ids", &ids]).output().expect("the binary was built");
        let direct: Value = serde_json::from_str(&succeed(&output)).expect("it prints JSON");
        let direct = direct["tokens"].as_array().expect("tokens").iter().map(|token| token["log_prob"].clone());
        let direct = numbers(&direct.collect());
        let told = &bare["choices"][index]["logprobs"];
        assert_eq!(numbers(&told["token_logprobs"]), direct);
        assert_eq!(bare["choices"][index]["finish_reason"], "length");
        let longer = with_one["choices"][index]["logprobs"]["token_logprobs"].as_array().expect("log-probabilities");
        assert_eq!((numbers(&json!(longer[..6])), longer.len()), (direct, 7));
        // The alternative and the token itself, which the greedy one after the prompt is.
        let top = with_one["choices"][index]["logprobs"]["top_logprobs"].as_array().expect("alternatives");
        assert!(top[0].is_null());
        assert_eq!(top[6].as_object().expect("alternatives").values().collect::<Vec<_>>(), [&longer[6]]);
        // What follows an echoed prompt is what follows the prompt.
        let plain = server.complete(&json!({ "prompt": prompt, "logprobs": 1, "max_tokens": 1, "temperature": 0 }));
        assert!(text(&with_one, index).ends_with(text(&plain, 0)));
        assert_eq!(plain["choices"][0]["logprobs"]["top_logprobs"][0], top[6]);
        let greatest = |top: &Value| {
            top.as_object().expect("alternatives").values().filter_map(Value::as_f64).fold(f64::MIN, f64::max)
        };
        for (top, own) in top.iter().zip(longer).skip(1) {
            assert!(greatest(top) >= own.as_f64().expect("a number"));
        }
    }
}

#[test]
fn stop_strings_end_a_text_and_are_none_of_it() {
    let dir = checkpoint();
    let server = Server::of(&dir);
    let whole = server.complete(&json!({ "seed": 11, "max_tokens": 40 }));
    let whole = text(&whole, 0);
    let places = whole.char_indices().map(|(place, _)| place).collect::<Vec<_>>();
    for begin in [3, 10, 17] {
        let stop = &whole[places[begin]..places[begin + 3]];
        let answer =
            server.complete(&json!({ "seed": 11, "max_tokens": 40, "stop": ["never said", stop], "logprobs": 1 }));
        let expected = &whole[..whole.find(stop).expect("it is a part of it")];
        let choice = &answer["choices"][0];
        assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(expected), &json!("stop")));
        let offsets = choice["logprobs"]["text_offset"].as_array().expect("offsets");
        let length = expected.chars().count() as u64;
        assert!(offsets.iter().all(|offset| offset.as_u64().is_some_and(|offset| offset < length)), "{answer}");
        let args = ["--prompt", "the fox", "--seed", "11", "--max-tokens", "40", "--stop", stop];
        assert_eq!(generated(&dir, &args)["samples"][0]["text"], expected);
    }
    let never = server.complete(&json!({ "seed": 11, "max_tokens": 40, "stop": "never said" }));
    assert_eq!((text(&never, 0), &never["choices"][0]["finish_reason"]), (whole, &json!("length")));
}

#[test]
fn what_cannot_be_is_refused_and_the_server_goes_on() {
    let dir = checkpoint();
    let server = Server::start(dir.path(), &["--context", "64"]);
    let (completions, chat) = ("/v1/completions", "/v1/chat/completions");
    let user = json!([{ "role": "user", "content": "x" }]);
    let long = vec![7; 65];
    let completion = json!({ "model": NAME, "prompt": "x" });
    let message = json!({ "model": NAME, "messages": user });
    let edit = |base: &Value, rest: Value| with(base, &rest).to_string();
    // Place, body, status, the parameter and the code that the error names, a part of its message.
    let cases = [
        (completions, "{".to_owned(), 400, Value::Null, Value::Null, "not JSON"),
        (completions, "[]".to_owned(), 400, Value::Null, Value::Null, "not a JSON object"),
        (
            completions,
            json!({ "prompt": "x" }).to_string(),
            400,
            json!("model"),
            json!("missing_required_parameter"),
            "`model`",
        ),
        (
            completions,
            json!({ "model": NAME }).to_string(),
            400,
            json!("prompt"),
            json!("missing_required_parameter"),
            "",
        ),
        (
            completions,
            edit(&completion, json!({ "model": "gpt" })),
            404,
            Value::Null,
            json!("model_not_found"),
            "has `small`",
        ),
        (
            completions,
            edit(&completion, json!({ "prompt": "" })),
            400,
            json!("prompt"),
            Value::Null,
            "at least one token",
        ),
        (
            completions,
            edit(&completion, json!({ "prompt": [] })),
            400,
            json!("prompt"),
            json!("invalid_value"),
            "not empty",
        ),
        (
            completions,
            edit(&completion, json!({ "prompt": [1, "x"] })),
            400,
            json!("prompt"),
            json!("invalid_value"),
            "",
        ),
        (completions, edit(&completion, json!({ "prompt": [-1] })), 400, json!("prompt"), json!("invalid_value"), ""),
        (completions, edit(&completion, json!({ "prompt": [9999] })), 400, json!("prompt"), Value::Null, "9999"),
        (
            completions,
            edit(&completion, json!({ "prompt": long })),
            400,
            json!("prompt"),
            json!("context_length_exceeded"),
            "64 tokens, but the prompt has 65",
        ),
        (
            completions,
            edit(&completion, json!({ "max_tokens": 64 })),
            400,
            json!("prompt"),
            json!("context_length_exceeded"),
            "65 are requested: 1 in the prompt and 64 for the completion",
        ),
        (
            completions,
            edit(&completion, json!({ "prompt": long[..64] })),
            400,
            json!("prompt"),
            json!("context_length_exceeded"),
            "takes all of them",
        ),
        (completions, edit(&completion, json!({ "n": 0 })), 400, json!("n"), json!("invalid_value"), "from 1 to 128"),
        (completions, edit(&completion, json!({ "n": 129 })), 400, json!("n"), json!("invalid_value"), "from 1 to 128"),
        (
            completions,
            edit(&completion, json!({ "n": 65, "prompt": ["a", "b"] })),
            400,
            json!("n"),
            json!("invalid_value"),
            "",
        ),
        (
            completions,
            edit(&completion, json!({ "temperature": -0.1 })),
            400,
            json!("temperature"),
            json!("invalid_value"),
            "0 to 2",
        ),
        (
            completions,
            edit(&completion, json!({ "temperature": "hot" })),
            400,
            json!("temperature"),
            json!("invalid_value"),
            "",
        ),
        (
            completions,
            edit(&completion, json!({ "top_p": 1.1 })),
            400,
            json!("top_p"),
            json!("invalid_value"),
            "0 to 1",
        ),
        (
            completions,
            edit(&completion, json!({ "top_k": -1 })),
            400,
            json!("top_k"),
            json!("invalid_value"),
            "at least 0",
        ),
        (
            completions,
            edit(&completion, json!({ "logprobs": 21 })),
            400,
            json!("logprobs"),
            json!("invalid_value"),
            "0 to 20",
        ),
        (completions, edit(&completion, json!({ "seed": 1.5 })), 400, json!("seed"), json!("invalid_value"), ""),
        (
            completions,
            edit(&completion, json!({ "stop": "" })),
            400,
            json!("stop"),
            json!("invalid_value"),
            "1 to 1000",
        ),
        (
            completions,
            edit(&completion, json!({ "stop": ["a", "b", "c", "d", "e"] })),
            400,
            json!("stop"),
            json!("invalid_value"),
            "",
        ),
        (completions, edit(&completion, json!({ "best_of": 2 })), 400, json!("best_of"), json!("invalid_value"), ""),
        (
            completions,
            edit(&completion, json!({ "suffix": "y" })),
            400,
            json!("suffix"),
            json!("unsupported_parameter"),
            "",
        ),
        (
            completions,
            edit(&completion, json!({ "presence_penalty": 0.5 })),
            400,
            json!("presence_penalty"),
            json!("unsupported_parameter"),
            "0.5",
        ),
        (
            completions,
            edit(&completion, json!({ "logit_bias": { "5": 1 } })),
            400,
            json!("logit_bias"),
            json!("unsupported_parameter"),
            "",
        ),
        (
            completions,
            edit(&completion, json!({ "temprature": 1 })),
            400,
            json!("temprature"),
            json!("unknown_parameter"),
            "",
        ),
        (
            completions,
            edit(&completion, json!({ "stream_options": { "include_usage": true } })),
            400,
            json!("stream_options"),
            json!("invalid_value"),
            "",
        ),
        (chat, json!({ "model": NAME }).to_string(), 400, json!("messages"), json!("missing_required_parameter"), ""),
        (
            chat,
            edit(&message, json!({ "messages": [] })),
            400,
            json!("messages"),
            json!("invalid_value"),
            "at least one",
        ),
        (
            chat,
            edit(&message, json!({ "messages": [{ "role": "tool", "content": "x" }] })),
            400,
            json!("messages"),
            Value::Null,
            "not tool",
        ),
        (
            chat,
            edit(&message, json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] })),
            400,
            json!("messages[0].content[0].type"),
            json!("invalid_value"),
            "image_url",
        ),
        (
            chat,
            edit(&message, json!({ "messages": [{ "role": "user", "content": "x", "name": "Bo" }] })),
            400,
            json!("messages[0].name"),
            json!("unknown_parameter"),
            "",
        ),
        (
            chat,
            edit(&message, json!({ "tools": [{ "type": "function" }] })),
            400,
            json!("tools"),
            json!("unsupported_parameter"),
            "",
        ),
        (
            chat,
            edit(&message, json!({ "response_format": { "type": "json_object" } })),
            400,
            json!("response_format"),
            json!("unsupported_parameter"),
            "",
        ),
        (chat, edit(&message, json!({ "top_logprobs": 2 })), 400, json!("top_logprobs"), json!("invalid_value"), ""),
        (
            chat,
            edit(&message, json!({ "max_tokens": 1, "max_completion_tokens": 2 })),
            400,
            json!("max_tokens"),
            json!("invalid_value"),
            "leave one",
        ),
        (
            chat,
            edit(&message, json!({ "max_tokens": 60 })),
            400,
            json!("messages"),
            json!("context_length_exceeded"),
            "64 tokens",
        ),
        ("/v1/embeddings", "{}".to_owned(), 404, Value::Null, Value::Null, "/v1/embeddings"),
        ("/v1/models", "{}".to_owned(), 405, Value::Null, Value::Null, "POST"),
    ];
    for (place, body, status, param, code, part) in cases {
        let (found, answer) = server.post(place, &body);
        let error = &answer["error"];
        let message = error["message"].as_str().unwrap_or_default();
        assert_eq!((found, &error["param"], &error["code"]), (status, &param, &code), "{body}: {answer}");
        assert!(error["type"] == "invalid_request_error" && message.contains(part), "{body}: {answer}");
    }
    // What asks for nothing, or only says who asks.
    let neutral = json!({ "user": "me", "tools": [], "presence_penalty": 0, "logit_bias": {}, "stop": null, "max_tokens": 2,
        "response_format": { "type": "text" } });
    server.answer(chat, &with(&message, &neutral));
    // Temperature 0 and the narrowest nucleus are the likeliest token, whatever the seed.
    let likeliest = |rest: Value| text(&server.complete(&rest), 0).to_owned();
    let greedy = likeliest(json!({ "temperature": 0, "seed": 1 }));
    assert_eq!(greedy, likeliest(json!({ "top_p": 0, "seed": 2 })));
    assert_eq!(greedy, likeliest(json!({ "top_k": 1, "seed": 3 })));
    let (_, models) = server.get("/v1/models");
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!(NAME)));
    assert_eq!(server.get("/v1/models/small").0, 200);
    assert_eq!(server.get("/v1/models/other").1["error"]["code"], "model_not_found");
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let dir = checkpoint();
    let server = Server::of(&dir);
    let mut stream = TcpStream::connect(&server.address).expect("it listens");
    // What is announced is not waited for.
    let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // Without a length it is read up to the limit.
    let mut stream = TcpStream::connect(&server.address).expect("it listens");
    let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it reads");
    let piece = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let sent = (0..8).take_while(|_| stream.write_all(piece.as_bytes()).is_ok()).count();
    let mut answer = Vec::new();
    // A server that hangs up while more is sent may take its answer along.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413 ") || (answer.is_empty() && sent < 8), "{sent}: {answer}");
    let mut stream = TcpStream::connect(&server.address).expect("it listens");
    stream.write_all(b"\x16\x03\x01 what is this\r\n\r\n").expect("it reads");
    drop(stream);
    server.complete(&json!({}));
}

#[test]
fn clients_that_leave_give_their_places_back_and_a_full_queue_refuses() {
    let dir = checkpoint();
    let server = Server::start(dir.path(), &["--slots", "1", "--queue", "1"]);
    let running = server.begin(&endless());
    server.await_load(1, 0);
    let waiting = server.send(&endless());
    server.await_load(1, 1);
    let (status, refused) = server.post("/v1/completions", &endless().to_string());
    assert_eq!((status, &refused["error"]["code"]), (429, &json!("rate_limit_exceeded")), "{refused}");
    assert!(refused["error"]["message"].as_str().is_some_and(|message| message.contains("1 requests are waiting")));
    // The one that waits leaves first: its place in the queue is free while the other still runs.
    drop(waiting);
    let next = server.send(&endless());
    server.await_load(1, 1);
    drop(running);
    server.await_load(1, 0);
    drop(next);
    server.await_load(0, 0);
    // One that has not asked for a stream leaves too.
    let plain = server.send(&with(&endless(), &json!({ "n": 2 })));
    server.await_load(2, 0);
    drop(plain);
    server.await_load(0, 0);
    server.complete(&json!({}));
}

#[cfg(unix)]
#[test]
fn an_interrupt_lets_answers_come_to_their_end() {
    let dir = checkpoint();
    let mut server = Server::of(&dir);
    let stream = server.begin(&with(&endless(), &json!({ "max_tokens": 400 })));
    let interrupted = Command::new("kill").args(["-INT", &server.child.id().to_string()]).status();
    assert!(interrupted.expect("there is a command `kill`").success());
    let rest = stream.lines().map_while(Result::ok).collect::<Vec<_>>();
    assert!(rest.iter().any(|line| line == "data: [DONE]"), "the answer was cut");
    assert!(server.child.wait().expect("it ends").success());
}

#[test]
fn a_conversation_is_held_over_a_pipe() {
    let dir = checkpoint();
    let mut chat =
        command(&["chat", &model(&dir), "--temperature", "0", "--max-tokens", "12", "--system", "Be brief."]);
    let mut child = chat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary was built");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(b"the fox\n\n/reset\nthe fox\n/quit\nunheard\n").expect("it reads");
    drop(stdin);
    let said = succeed(&child.wait_with_output().expect("it ends"));
    let server = Server::of(&dir);
    let messages = json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "the fox" }]);
    let body = json!({ "model": NAME, "messages": messages, "temperature": 0, "max_tokens": 12 });
    let answer = server.answer("/v1/chat/completions", &body);
    let expected = answer["choices"][0]["message"]["content"].as_str().expect("a text").trim_start();
    assert_eq!(said, format!("{expected}\n{expected}\n"));
}

#[test]
fn commands_say_what_is_wrong() {
    let dir = checkpoint();
    let model = model(&dir);
    let long = "x ".repeat(CONTEXT);
    let file = dir.path().join("long.txt");
    std::fs::write(&file, long).expect("the folder can be written");
    let file = file.to_str().expect("the path is text");
    for (args, expected) in [
        (vec!["generate", &model], "--prompt"),
        (vec!["generate", &model, "--prompt", "x", "-n", "0"], "0 is not in 1..="),
        (vec!["generate", &model, "--prompt", ""], "the prompt is empty"),
        (vec!["generate", &model, "--ids", "1,99999"], "token 99999 is not in the vocabulary of"),
        (vec!["generate", &model, "--prompt", "x", "--temperature", "-1"], "`temperature` is -1"),
        (vec!["generate", &model, "--prompt", "x", "--top-p", "2"], "`top_p` is 2, it must be 0 to 1"),
        (vec!["generate", &model, "--prompt", "x", "--stop", ""], "--stop: the text is empty"),
        (vec!["generate", &model, "--prompt-file", file], "and the context of 60000 must hold an answer too"),
        (vec!["generate", &model, "--prompt-file", "gone.txt"], "cannot read gone.txt as text"),
        (vec!["generate", &model, "--prompt", "x", "--stream", "--json"], "--json"),
        (vec!["generate", "gone", "--prompt", "x"], "`gone` cannot be opened"),
        (vec!["chat", "gone"], "`gone` cannot be opened"),
        (vec!["serve", "--model", "gone", "--port", "0"], "`gone` cannot be opened"),
        (vec!["serve", "--model", &model, "--slots", "0"], "0 is not in 1..="),
        (vec!["serve", "--model", &model, "--threads", "0"], "0 is not in 1..="),
    ] {
        let output = command(&args).output().expect("the binary was built");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = taken.local_addr().expect("it has an address").port().to_string();
    let output = command(&["serve", "--model", &model, "--port", &port]).output().expect("the binary was built");
    assert!(String::from_utf8_lossy(&output.stderr).contains("choose another --port"), "{output:?}");
}
