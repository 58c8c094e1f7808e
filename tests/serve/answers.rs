//! What clients are answered.

use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::server::*;

#[test]
fn completions_are_what_generate_gives() {
    let dir = checkpoint();
    let server = Server::of(&dir);
    let drawn = json!({ "n": 3, "seed": 5, "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.001,
        "repetition_penalty": 1.1, "logprobs": 0, "max_tokens": 400 });
    let answer = server.complete(&drawn);
    let settings = "--prompt|the fox|-n|3|--seed|5|--temperature|0.8|--top-k|40|--top-p|0.95|--min-p|0.001|\
                    --repetition-penalty|1.1|--max-tokens|400";
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
    // A text begins as the tokenizer says, and so does one that says nothing.
    assert_eq!(server.complete(&json!({ "prompt": "" }))["usage"]["prompt_tokens"], 1);
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
