//! `firebrick generate`, `chat` and `serve` as a person runs them, and what clients get.

mod answers;
mod refusals;
mod server;

use std::io::{BufRead, Write};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::server::*;

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
fn answers_are_drawn_from_the_likelier_tokens_where_a_checkpoint_says_nothing() {
    let dir = checkpoint();
    let model = model(&dir);
    let drawn = |args: &[&str]| {
        let all = [&["generate", &model, "--prompt", "the fox", "--seed", "3", "--max-tokens", "24"], args].concat();
        succeed(&command(&all).output().expect("the binary was built"))
    };
    let answer = drawn(&["--chat"]);
    assert_eq!(answer, drawn(&["--chat", "--temperature", "0.7", "--top-p", "0.9"]));
    assert_ne!(answer, drawn(&["--chat", "--temperature", "1", "--top-p", "1"]));
    assert_eq!(drawn(&[]), drawn(&["--temperature", "1", "--top-p", "1"]));
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

#[test]
fn every_request_is_told_of_with_its_status() {
    let dir = checkpoint();
    let server = Server::of(&dir);
    server.get("/health");
    server.post("/v1/completions", "{}");
    let log = server.log();
    let of = |asked: &str| log.lines().find(|line| line.contains(asked)).unwrap_or_else(|| panic!("{asked}: {log}"));
    assert!(of("GET /health").contains("status=200"), "{log}");
    assert!(of("POST /v1/completions").contains("status=400"), "{log}");
}
