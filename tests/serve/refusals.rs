//! What is refused, and that the server goes on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::server::*;

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
            "66 are requested: 2 in the prompt and 64 for the completion",
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
