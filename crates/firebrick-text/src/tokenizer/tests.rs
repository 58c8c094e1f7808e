//! What tokenizers keep, refuse and stream.

use firebrick_testkit::data_dir;
use firebrick_types::{Dialogue, Message};
use proptest::prelude::*;

use super::*;
use crate::Renderer;

/// A file of these bytes in a folder that goes when the first value is dropped.
fn file_of(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

const TEXT: &str = "the cat sat on the mat; the other cat, the thin one, sat there. The end — thé.";

fn json(tokenizer: &Tokenizer) -> String {
    tokenizer.plain.to_string(true).unwrap()
}

#[test]
fn the_first_token_is_the_end_of_context_then_come_the_bytes() {
    let tokenizer = Tokenizer::train([TEXT], 257).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.eoc(), tokenizer.beginning()), (257, 0, &[0][..]));
    // One token a byte: `é` is two bytes.
    assert_eq!(tokenizer.encode("aé").len(), 3);
    let all: Vec<TokenId> = tokenizer.encode("ab");
    assert!(all.iter().all(|token| (1..257).contains(token)), "{all:?}");
}

#[test]
fn the_vocabulary_is_the_size_asked_for_or_what_the_text_gives() {
    assert_eq!(Tokenizer::train([TEXT], 270).unwrap().vocab_size(), 270);
    let most = Tokenizer::train([TEXT], 100_000).unwrap().vocab_size();
    assert!((271..400).contains(&most), "{most}");
    assert_eq!(Tokenizer::train::<_, &str>([], 1000).unwrap().vocab_size(), 257);
    assert_eq!(
        Tokenizer::train([TEXT], 256).unwrap_err().to_string(),
        "a vocabulary of 256 tokens is too small: 256 bytes and the end of context take 257"
    );
}

#[test]
fn the_first_merge_is_the_commonest_pair() {
    // "aab" three times: `a a` and `a b` both occur three times, and the pair of the lower tokens goes first.
    let tokenizer = Tokenizer::train(["aab", "aab", "aab"], 258).unwrap();
    assert_eq!(tokenizer.encode("aab").len(), 2);
    assert_eq!(tokenizer.encode("aab")[0], 257);
    assert_eq!(tokenizer.decode(&[257]), "aa");
}

#[test]
fn training_is_deterministic() {
    let documents: Vec<String> = (0..200).map(|index| format!("{TEXT} {}", index * 7919)).collect();
    let first = json(&Tokenizer::train(&documents, 600).unwrap());
    assert_eq!(first, json(&Tokenizer::train(&documents, 600).unwrap()));
    assert_eq!(first, json(&Tokenizer::train(documents.iter().rev(), 600).unwrap()), "the order does not matter");
}

#[test]
fn t42_the_end_of_context_written_in_data_is_text() {
    let tokenizer = Tokenizer::train([TEXT, "a <|eoc|> b <|eoc|><|eoc|>"], 1000).unwrap();
    let text = "I write <|eoc|> here<|eoc|>";
    assert!(!tokenizer.encode(text).contains(&tokenizer.eoc()));
    assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
    // The token itself has no text, and a saved tokenizer behaves the same.
    let with_end = [tokenizer.encode("a"), vec![tokenizer.eoc()]].concat();
    assert_eq!(tokenizer.decode(&with_end), "a");
    let (_dir, path) = file_of(b"");
    tokenizer.save(&path).unwrap();
    let again = Tokenizer::open(&path).unwrap();
    assert_eq!((again.encode(text), again.eoc()), (tokenizer.encode(text), 0));
    assert_eq!(json(&again), json(&tokenizer));
}

#[test]
fn special_tokens_are_recognised_where_a_template_wrote_them() {
    let tokenizer = Tokenizer::train([TEXT], 300).unwrap();
    let text = "a<|eoc|> the cat";
    let expected = [tokenizer.encode("a"), vec![0], tokenizer.encode(" the cat")].concat();
    assert_eq!(tokenizer.encode_with_special(text), expected);
    assert!(!tokenizer.encode(text).contains(&0), "asking for special tokens changes no other encoding");
    assert_eq!((tokenizer.token_text(0), tokenizer.is_special(0)), (EOC.to_owned(), true));
    assert_eq!(tokenizer.token_bytes(9_999), b"");
}

#[test]
fn a_text_begins_as_the_post_processor_says() {
    let plain = Tokenizer::train([TEXT], 300).unwrap().with_beginning(&[]);
    assert!(plain.beginning().is_empty());
    let the = plain.token("the").expect("it is merged");
    for beginning in [&[0][..], &[0, the], &[]] {
        let tokenizer = plain.clone().with_beginning(&[the]).with_beginning(beginning);
        let again = Tokenizer::parse(&json(&tokenizer), Path::new("x"), None).unwrap();
        for tokenizer in [&tokenizer, &again] {
            assert_eq!(tokenizer.beginning(), beginning);
            assert_eq!(tokenizer.encode(TEXT), plain.encode(TEXT), "it is told, and not added");
        }
        // As the library puts it before a text.
        let whole = again.plain.encode_fast(TEXT, true).unwrap();
        assert_eq!(whole.get_ids(), [beginning, &plain.encode(TEXT)].concat());
    }
    // What stands behind a text is none of its beginning.
    let mut behind: serde_json::Value = serde_json::from_str(&json(&plain.clone().with_beginning(&[0]))).unwrap();
    behind["post_processor"]["single"].as_array_mut().unwrap().reverse();
    assert!(Tokenizer::parse(&behind.to_string(), Path::new("x"), None).unwrap().beginning().is_empty());
}

#[test]
fn added_tokens_are_counted_apart() {
    let tokenizer = Tokenizer::train([TEXT], 300).unwrap();
    let (learned, size) = (tokenizer.learned_size(), tokenizer.vocab_size());
    assert_eq!(learned, size);
    let pad = format!(
        r#""added_tokens": [{{"id": {size}, "content": "[PAD]", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}}, "#
    );
    let padded = json(&tokenizer).replacen(r#""added_tokens": ["#, &pad, 1);
    let padded = Tokenizer::parse(&padded, Path::new("x"), None).unwrap();
    assert_eq!((padded.learned_size(), padded.vocab_size()), (learned, size + 1));
    assert_eq!(padded.encode_with_special("a[PAD]").last(), Some(&(size as TokenId)));
}

/// A tokenizer as SentencePiece makes them: characters, with bytes to fall back on.
fn characters() -> Tokenizer {
    let mut vocab =
        serde_json::json!({"<unk>": 0, "</s>": 1, "\u{2581}": 2, "a": 3, "b": 4, "\u{2581}a": 5, "<0x+A>": 6});
    for byte in 0..=255_u64 {
        vocab[format!("<0x{byte:02X}>")] = (7 + byte).into();
    }
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [{"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "fuse_unk": true, "vocab": vocab,
            "merges": [["\u{2581}", "a"]]},
    });
    Tokenizer::parse(&json.to_string(), Path::new("tokenizer.json"), None).unwrap()
}

#[test]
fn characters_with_bytes_to_fall_back_on_are_encoded_and_decoded() {
    let tokenizer = characters();
    // `é` is the bytes C3 A9: 7 + 195, 7 + 169.
    assert_eq!(tokenizer.encode("a bé"), [5, 2, 4, 202, 176]);
    for text in ["a bé", " a", "  a  ", "", "a\n\u{1f642}</s>"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
    }
    assert_eq!(tokenizer.decode(&[1, 5, 1, 6]), "a<0x+A>");
    let mut stream = tokenizer.stream();
    let pushed = [5, 202, 176, 202, 3].map(|token| stream.push(token));
    assert_eq!(pushed, ["a", "", "é", "", "\u{fffd}a"]);
}

#[test]
fn in_a_dialogue_one_space_stands_before_a_response_whoever_puts_it_there() {
    let dialogue = |turns: &[Message]| Dialogue::new(turns.to_vec());
    let turns = [Message::human("b"), Message::assistant("a b"), Message::human("b")];
    for tokenizer in [characters(), Tokenizer::train([TEXT], 300).unwrap()] {
        let renderer = Renderer::dialogues(tokenizer);
        let said = [renderer.prompt(&dialogue(&turns[..1])).unwrap(), renderer.response("a b").unwrap()].concat();
        // What is sampled behind a prompt is how the turn stands in the next prompt.
        assert!(renderer.prompt(&dialogue(&turns)).unwrap().starts_with(&said));
    }
    assert_eq!(Renderer::dialogues(characters()).response(" a b").unwrap(), [5, 2, 4]);
}

proptest! {
    #[test]
    fn what_is_pushed_is_what_is_decoded(
        tokens in proptest::collection::vec(0_u32..270, 0..40),
        characters_too in proptest::collection::vec(0_u32..263, 0..40),
    ) {
        let bytes = Tokenizer::train([TEXT], 270).unwrap();
        for (tokenizer, tokens) in [(&bytes, &tokens), (&characters(), &characters_too)] {
            let mut stream = tokenizer.stream();
            let mut text = tokens.iter().map(|&token| stream.push(token)).collect::<String>();
            text += &stream.finish();
            prop_assert_eq!(&text, &tokenizer.decode(tokens));
        }
        // The library decodes a whole list at once; bytes to fall back on it replaces by other rules where they are no UTF-8.
        prop_assert_eq!(bytes.decode(&tokens), bytes.plain.decode(&tokens, true).unwrap());
    }

    #[test]
    fn a_character_appears_whole(text in "[a é漢\u{1f469}\u{200d}\u{1f680}]{0,20}") {
        for tokenizer in [Tokenizer::train([TEXT], 260).unwrap(), characters()] {
            let mut stream = tokenizer.stream();
            let pushed = tokenizer.encode(&text).iter().map(|&token| stream.push(token)).collect::<String>();
            prop_assert_eq!((pushed, stream.finish()), (text.clone(), String::new()));
        }
    }
}

#[test]
fn text_made_to_be_slow_is_encoded() {
    let tokenizer = Tokenizer::train([TEXT], 300).unwrap();
    for text in [" ".repeat(200_000) + "x", "the".repeat(100_000), "'".repeat(100_000)] {
        assert!(tokenizer.decode(&tokenizer.encode(&text)) == text);
    }
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(text in "\\PC{0,30}|[ \n\t\r\u{0}the]{0,30}") {
        let tokenizer = Tokenizer::train([TEXT], 290).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
    }
}

#[test]
#[should_panic(expected = "tokens lie within the vocabulary of 257")]
fn a_token_outside_the_vocabulary_panics() {
    Tokenizer::train([TEXT], 257).unwrap().decode(&[257]);
}

#[test]
fn a_file_that_is_no_tokenizer_is_an_error() {
    let (_dir, path) = file_of(b"{}");
    let message = Tokenizer::open(&path).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json: not a `tokenizer.json` that can be used: "), "{message}");
    let plain = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
    let (_dir, path) = file_of(plain.as_bytes());
    let message = Tokenizer::open(&path).unwrap_err().to_string();
    assert!(
        message.contains(r#"no end-of-context token; add one of ["<|eoc|>", "<|endoftext|>", "</s>"]"#),
        "{message}"
    );
}

#[test]
fn what_would_fail_while_encoding_is_refused_when_opened() {
    let (_dir, path) = file_of(b"");
    let good = json(&Tokenizer::train([TEXT], 257).unwrap());
    let reason = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        let message = Tokenizer::parse(&good.replace(from, to), &path, None).unwrap_err().to_string();
        message.split_once("that can be used: ").expect("it says why").1.to_owned()
    };
    let decoder = good[good.find("\"decoder\"").unwrap()..good.find("\"model\"").unwrap()].to_owned();
    for (from, to, expected) in [
        (r#""dropout": null"#, r#""dropout": 0.5"#, "`model.dropout` is not null"),
        (r#""unk_token": null"#, r#""unk_token": "<unk>""#, "`model.unk_token` is `<unk>`, which is not in"),
        (decoder.as_str(), "\"decoder\": null, ", "`decoder` of type null cannot be read"),
        (
            r#""normalizer": null"#,
            r#""normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "AA=="}]}"#,
            "`normalizer` of type Precompiled cannot be read",
        ),
        (
            r#""special_tokens": {"#,
            r#""special_tokens": {}, "others": {"#,
            "`post_processor` names `<|eoc|>`, which is not among its `special_tokens`",
        ),
        (
            r#""single": ["#,
            r#""single": [{"Sequence": {"id": "B", "type_id": 0}}, "#,
            "`post_processor` has a second text, B, in its template of one",
        ),
        (
            r#""continuing_subword_prefix": null"#,
            r#""continuing_subword_prefix": "Sequence""#,
            "`model.continuing_subword_prefix` is \"Sequence\"",
        ),
        (r#""merges": []"#, r#""merges": [["a", "zebra"]]"#, "`model.merges`: Token `zebra` out of vocabulary"),
        (&good[good.len() - 30..], "", "EOF while parsing"),
    ] {
        let reason = reason(from, to);
        assert!(reason.starts_with(expected), "{reason}");
    }
}

#[test]
fn other_peoples_tokenizers_are_opened() {
    let Some(models) = data_dir().map(|data| data.join("models")) else { return };
    for (model, size) in [("smollm2-135m-instruct", 49_152), ("gpt-neox-tokenizer", 50_280)] {
        let tokenizer = Tokenizer::open(&models.join(model).join("tokenizer.json")).unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.eoc()), (size, 0), "{model}");
        let text = "It's 10 o'clock.\n\nHuman: <|endoftext|>   thé";
        let tokens = tokenizer.encode(text);
        assert!(!tokens.contains(&0));
        assert_eq!(tokenizer.decode(&tokens), text, "{model}");
    }
}
