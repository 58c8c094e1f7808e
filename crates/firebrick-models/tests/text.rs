//! What comes with the weights: how texts begin, what ends a turn, and tokens that the network does not have.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use firebrick_models::checkpoint::{Pretrained, open};
use firebrick_models::{Architecture, DecoderConfig, save_hugging_face};
use firebrick_testkit::{Gguf, cpu};
use firebrick_text::Tokenizer;
use firebrick_types::{Dialogue, Message, Seed, TokenId};
use serde_json::{Value, json};

const TEXT: &str = "The sky is blue and the sea is green. Hello there, how are you today?";

/// A tokenizer whose first tokens have these names, as a `tokenizer.json`.
fn tokenizer(names: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    Tokenizer::train([TEXT], 280).unwrap().save(&path).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    vocab.remove("<|eoc|>");
    let shift = names.len() as u64 - 1;
    for id in vocab.values_mut() {
        *id = (id.as_u64().unwrap() + shift).into();
    }
    vocab.extend(names.iter().zip(0_u64..).map(|(name, id)| ((*name).to_owned(), id.into())));
    tokenizer["post_processor"] = Value::Null;
    tokenizer["added_tokens"] = names.iter().zip(0_u64..).map(|(name, id)| added(name, id)).collect();
    tokenizer
}

fn added(name: &str, id: u64) -> Value {
    json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true})
}

/// A post-processor that puts this token before a text, beside what Llama 3's file has beside it.
fn before(name: &str, id: TokenId) -> Value {
    let part = |part: &str| json!({"Sequence": {"id": part, "type_id": 0}});
    let special = json!({"SpecialToken": {"id": name, "type_id": 0}});
    json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        {"type": "TemplateProcessing", "single": [special, part("A")], "pair": [special, part("A"), special, part("B")],
            "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}}}]})
}

/// A folder of `transformers` with a network of so many tokens and these files.
fn folder(vocab: usize, files: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let architecture = Architecture::llama(8);
    let config = DecoderConfig { vocab, context: 16, n_layer: 1, d_model: 16, heads: 2, d_ff: 16, architecture };
    save_hugging_face(&config.init(Seed::new(1), &cpu()), &config, dir.path()).unwrap();
    for (name, value) in files {
        let path = dir.path().join(name);
        if *name == "config.json" {
            let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            config.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            fs::write(path, config.to_string()).unwrap();
        } else {
            fs::write(path, value.to_string()).unwrap();
        }
    }
    dir
}

fn opened(path: &Path) -> Pretrained {
    open(path, &cpu()).unwrap()
}

#[test]
fn a_token_that_was_added_to_the_tokenizer_alone_is_refused_where_a_text_holds_it() {
    let mut json = tokenizer(&["<|endoftext|>"]);
    let size = Tokenizer::parse(&json.to_string(), Path::new("x"), None).unwrap().vocab_size();
    json["added_tokens"].as_array_mut().unwrap().push(added("[PAD]", size as u64));
    let settings = json!({"eos_token": "<|endoftext|>", "pad_token": "[PAD]"});
    let dir = folder(size, &[("tokenizer.json", json.clone()), ("tokenizer_config.json", settings)]);
    let checkpoint = opened(dir.path());
    assert_eq!(checkpoint.renderer.text("Hello").unwrap(), checkpoint.renderer.tokenizer().encode("Hello"));
    let message = checkpoint.renderer.text("Hello[PAD]").unwrap_err().to_string();
    let expected = format!("the text holds the token `[PAD]` ({size}), but the network's vocabulary has {size}");
    assert!(message.starts_with(&expected), "{message}");
    // What is written has no id that the network does not know.
    checkpoint.save(&dir.path().join("copy")).unwrap();
    let config: Value = serde_json::from_slice(&fs::read(dir.path().join("copy/config.json")).unwrap()).unwrap();
    assert_eq!(config.get("pad_token_id"), None);
    let again = opened(&dir.path().join("copy"));
    assert!(again.renderer.text("[PAD]").is_err());
    // A network with less than what was learnt is another's.
    let dir = folder(size - 1, &[("tokenizer.json", json)]);
    let message = open(dir.path(), &cpu()).map(drop).unwrap_err().to_string();
    assert!(
        message.contains(&format!("has {} tokens, but the network's vocabulary has {}", size + 1, size - 1)),
        "{message}"
    );
}

#[test]
fn texts_begin_once_as_the_tokenizer_says() {
    let names = ["<s>", "</s>"];
    let bos = |json: &mut Value| json["post_processor"] = before("<s>", 0);
    let named = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let with = |key: &str, value: Value| {
        let mut settings = named.clone();
        settings[key] = value;
        settings
    };
    let mut of_llama = with("tokenizer_class", "LlamaTokenizerFast".into());
    of_llama["add_bos_token"] = true.into();
    let mut without = of_llama.clone();
    without["add_bos_token"] = false.into();
    for (has_processor, settings, begins) in [
        (true, named.clone(), true),
        (false, named.clone(), false),
        // Llama's classes obey the flag, others the file.
        (false, of_llama, true),
        (true, without, false),
        (false, with("add_bos_token", true.into()), false),
    ] {
        let mut json = tokenizer(&names);
        if has_processor {
            bos(&mut json);
        }
        let dir = folder(300, &[("tokenizer.json", json), ("tokenizer_config.json", settings.clone())]);
        let checkpoint = opened(dir.path());
        checkpoint.save(&dir.path().join("copy")).unwrap();
        for checkpoint in [&checkpoint, &opened(&dir.path().join("copy"))] {
            let plain = checkpoint.renderer.tokenizer().encode("The sky");
            let expected = if begins { [&[0], &plain[..]].concat() } else { plain.clone() };
            assert_eq!(checkpoint.renderer.text("The sky").unwrap(), expected, "{has_processor} {settings}");
            assert_eq!(checkpoint.renderer.text("<s>The sky").unwrap(), [&[0], &plain[..]].concat());
        }
    }
}

#[test]
fn a_template_writes_the_beginning_itself() {
    let mut json = tokenizer(&["<s>", "</s>"]);
    json["post_processor"] = before("<s>", 0);
    for (template, begins) in [
        ("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}", true),
        ("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}", false),
    ] {
        let settings = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template});
        let dir = folder(300, &[("tokenizer.json", json.clone()), ("tokenizer_config.json", settings)]);
        let checkpoint = opened(dir.path());
        let rest = checkpoint.renderer.tokenizer().encode("[user]Hello");
        let expected = if begins { [&[0], &rest[..]].concat() } else { rest };
        assert_eq!(
            checkpoint.renderer.prompt(&Dialogue::new(vec![Message::human("Hello")])).unwrap(),
            expected,
            "{template}"
        );
    }
    // The dialogue form is a text as others are.
    let settings = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let dir = folder(300, &[("tokenizer.json", json), ("tokenizer_config.json", settings)]);
    let checkpoint = opened(dir.path());
    let expected = checkpoint.renderer.text("\n\nHuman: Hello\n\nAssistant:").unwrap();
    assert_eq!(checkpoint.renderer.prompt(&Dialogue::new(vec![Message::human("Hello")])).unwrap(), expected);
    assert_eq!(expected[0], 0);
}

/// A GGUF file of this tokenizer, kind of cuts, and rest of the metadata.
fn gguf(names: &[&str], pre: &str, rest: impl FnOnce(Gguf) -> Gguf) -> Vec<u8> {
    let json = tokenizer(names);
    let vocab: BTreeMap<String, usize> = serde_json::from_value(json["model"]["vocab"].clone()).unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    vocab.into_iter().for_each(|(name, id)| tokens[id] = name);
    let kinds = (0..tokens.len()).map(|id| if id < names.len() { 3 } else { 1 }).collect::<Vec<_>>();
    let merges = json["model"]["merges"].as_array().unwrap().iter().map(|halves| match halves {
        Value::String(merge) => merge.clone(),
        halves => format!("{} {}", halves[0].as_str().unwrap(), halves[1].as_str().unwrap()),
    });
    let (width, vocab) = (8, tokens.len());
    let mut file = Gguf::new("llama");
    for (key, value) in [
        ("context_length", 64),
        ("embedding_length", width),
        ("block_count", 1),
        ("feed_forward_length", width),
        ("attention.head_count", 1),
    ] {
        file = file.number(&format!("llama.{key}"), value as u32);
    }
    let mut file = file
        .float("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", pre)
        .texts("tokenizer.ggml.tokens", &tokens)
        .numbers("tokenizer.ggml.token_type", &kinds)
        .texts("tokenizer.ggml.merges", &merges.collect::<Vec<_>>());
    file = rest(file).tensor("token_embd.weight", &[vocab, width], &vec![0.5; vocab * width]);
    for name in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
        file = file.tensor(&format!("{name}.weight"), &[width], &vec![1.0; width]);
    }
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        file = file.tensor(&format!("blk.0.{name}.weight"), &[width, width], &vec![0.1; width * width]);
    }
    file.bytes()
}

fn of_gguf(bytes: &[u8]) -> Pretrained {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    fs::write(&path, bytes).unwrap();
    opened(&path)
}

#[test]
fn texts_of_gguf_files_begin_as_llama_cpp_begins_them() {
    let named = |file: Gguf| file.number("tokenizer.ggml.bos_token_id", 0).number("tokenizer.ggml.eos_token_id", 1);
    let flag = |value: bool| move |file: Gguf| named(file).flag("tokenizer.ggml.add_bos_token", value);
    let names = ["<s>", "</s>"];
    for (bytes, begins) in [
        (gguf(&names, "gpt-2", flag(true)), true),
        (gguf(&names, "gpt-2", named), false),
        (gguf(&names, "llama-bpe", named), true),
        (gguf(&names, "llama-bpe", flag(false)), false),
    ] {
        let renderer = of_gguf(&bytes).renderer;
        let plain = renderer.tokenizer().encode("The sky");
        assert_eq!(renderer.text("The sky").unwrap(), if begins { [&[0], &plain[..]].concat() } else { plain });
    }
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Each place names another token, or several: all of them end a turn, and the template's is written.
#[test]
fn a_turn_ends_with_any_token_that_some_file_names() {
    // 0 ends a text; 1 and 2 are ChatML's; 3 and 4 are Llama 3's names; 5 to 7 mean something by keys alone.
    let names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<a>", "<b>", "<c>"];
    let plain = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
    // As GLM has it: an answer ends where the next turn begins.
    let next = "{% for m in messages %}{% if m.role == 'user' %}<a>{% else %}<b>{% endif %}{{ m.content }}{% endfor %}";
    for (template, eos, generation, config, expected) in [
        // The order of a list does not matter: the token of the template comes first.
        (CHATML, "<|im_end|>", json!([0, 2]), json!(null), vec![2, 0, 3, 4]),
        (CHATML, "<|im_end|>", json!([2, 0]), json!(null), vec![2, 0, 3, 4]),
        (CHATML, "<|endoftext|>", json!(null), json!(null), vec![2, 0, 3, 4]),
        (CHATML, "<c>", json!([6]), json!(5), vec![2, 7, 6, 5, 3, 4, 0]),
        // A template that writes none: what the tokenizer says, then the lists.
        (plain, "<c>", json!(6), json!([5, 6]), vec![7, 6, 5, 3, 4, 2, 0]),
        (plain, "", json!(null), json!(5), vec![5, 3, 4, 2, 0]),
        (next, "<|endoftext|>", json!([0, 5]), json!(null), vec![5, 0, 3, 4, 2]),
        // A number that is none of this tokenizer's matters only where no other file says anything.
        (plain, "", json!(6), json!(99_999), vec![6, 3, 4, 2, 0]),
    ] {
        let mut settings = json!({"chat_template": template});
        if !eos.is_empty() {
            settings["eos_token"] = eos.into();
        }
        let dir = folder(
            300,
            &[
                ("tokenizer.json", tokenizer(&names)),
                ("tokenizer_config.json", settings),
                ("generation_config.json", json!({"eos_token_id": generation})),
                ("config.json", json!({"eos_token_id": config})),
            ],
        );
        let checkpoint = opened(dir.path());
        let ends = checkpoint.renderer.turn_ends();
        let mut sorted = (ends.tokens(), expected.clone());
        assert_eq!(ends.written(), expected[0], "{template} {eos} {generation} {config}");
        sorted.0[1..].sort_unstable();
        sorted.1[1..].sort_unstable();
        assert_eq!(sorted.0, sorted.1, "{template} {eos} {generation} {config}");
        assert!(ends.iter().all(|end| !end.sources.is_empty()));
        // A copy says it in its lists.
        checkpoint.save(&dir.path().join("copy")).unwrap();
        assert_eq!(opened(&dir.path().join("copy")).renderer.turn_ends().written(), expected[0]);
    }
}

#[test]
fn a_gguf_file_ends_turns_with_its_template_and_both_of_its_keys() {
    let names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<x>", "<|im_start|>", "<|im_end|>"];
    let eos = |file: Gguf| file.number("tokenizer.ggml.eos_token_id", 1);
    let template = |file: Gguf| eos(file).text("tokenizer.chat_template", CHATML);
    let eot = |file: Gguf| template(file).number("tokenizer.ggml.eot_token_id", 3);
    for (bytes, expected) in [
        (gguf(&names, "llama-bpe", eos), vec![1, 2, 5]),
        (gguf(&names, "llama-bpe", template), vec![5, 1, 2]),
        (gguf(&names, "llama-bpe", eot), vec![5, 1, 3, 2]),
    ] {
        assert_eq!(of_gguf(&bytes).renderer.turn_ends().tokens(), expected);
    }
}
