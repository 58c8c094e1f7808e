//! `firebrick data …` as a person runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const TRANSCRIPTS: &str = r#"{"chosen": "\n\nHuman: What is it?\n\nAssistant: An oak.", "rejected": "\n\nHuman: What is it?\n\nAssistant: No."}"#;

const CONVERSATION: &str = r#"{"messages": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "An oak."}, {"role": "user", "content": "And that?"}, {"role": "assistant", "content": "A pine."}]}"#;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    dir
}

/// A small GGUF file with a tokenizer, without a chat template.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../firebrick-models/tests/tokenizers/qwen2.gguf")
}

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.args(["data"]).args(args).current_dir(dir).stdin(Stdio::null()).output().expect("the binary was built")
}

/// What it prints, if it exits with this code.
#[track_caller]
fn printed(dir: &Path, args: &[&str], code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = run(dir, args);
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("output is text"));
    assert_eq!(status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    (stdout, stderr)
}

#[test]
fn check_lists_every_broken_row_and_goes_on() {
    let rows = [
        TRANSCRIPTS,
        "{",
        TRANSCRIPTS,
        r#"{"score": 2, "chosen": 3, "rejected": ""}"#,
        r#"{"chosen": "Hi", "rejected": ""}"#,
        r#"{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: a"}"#,
    ];
    let dir = folder(&[("train.jsonl", &rows.join("\n"))]);
    let (told, _) = printed(dir.path(), &["check", "train.jsonl"], 2);
    for expected in [
        "train.jsonl: comparisons, for `reward`; also `sft`, `rl` and `evaluate`\n",
        "  6 rows: 1 usable, 2 dropped, 3 broken\n",
        "  dropped for identical answers: 1 (line 6)\n",
        "  dropped for a duplicate: 1 (line 3)\n",
        "  broken: line 2, column 1: not a JSON object: EOF while parsing an object\n",
        "  broken: line 4, field `chosen`: expected text, found the number 3\n",
        "  broken: line 5, field `chosen`: expected a transcript that begins with \"\\n\\nHuman:\", found \"Hi\"\n",
        "  not read: the fields `score`\n",
        "  a row is {\"chosen\": …, \"rejected\": …}",
    ] {
        assert!(told.contains(expected), "{told}\nexpected {expected}");
    }
    let (told, _) = printed(dir.path(), &["check", "train.jsonl", "--limit", "1"], 2);
    assert!(told.contains("line 2, column 1") && !told.contains("line 4") && told.contains("  and 2 more\n"), "{told}");
}

#[test]
fn check_names_the_pipeline_of_each_layout() {
    for (name, row, expected) in [
        ("a.jsonl", TRANSCRIPTS, "comparisons, for `reward`"),
        ("a.jsonl", CONVERSATION, "conversations, for `sft`"),
        ("a.jsonl", r#"{"prompt": "Hi"}"#, "prompts, for `rl`"),
        ("a.jsonl", r#"{"text": "An oak."}"#, "text, for `sft`"),
        ("a.txt", "An oak.", "text, for `sft`"),
        (
            "a.jsonl",
            r#"{"title": "t", "body": "", "answers": [{"score": 4, "accepted": false, "body": "a"}, {"score": 0, "accepted": false, "body": "b"}]}"#,
            "questions with scored answers, for `pmp`",
        ),
        (
            "task.json",
            r#"{"examples": [{"input": "q", "target_scores": {"a": 1, "b": 0}}]}"#,
            "an evaluation task, for `evaluate`",
        ),
    ] {
        let dir = folder(&[(name, row)]);
        let (told, _) = printed(dir.path(), &["check", name], 0);
        assert!(told.contains(expected) && told.contains("  1 row: 1 usable, 0 dropped, 0 broken"), "{told}");
    }
}

#[test]
fn check_goes_through_a_folder_and_says_what_it_leaves_alone() {
    let files = [
        ("helpful/train.jsonl", TRANSCRIPTS),
        ("chat.jsonl", CONVERSATION),
        ("other.jsonl", r#"{"label": 1}"#),
        ("empty.jsonl", ""),
        ("table.csv", "1,2"),
        ("eval/book.txt", "An oak."),
    ];
    let dir = folder(&files);
    let (told, _) = printed(dir.path(), &["check", "."], 2);
    for expected in [
        "chat.jsonl: conversations, for `sft`",
        "helpful/train.jsonl: comparisons, for `reward`",
        "other.jsonl: no known layout\n",
        "  broken: line 1, field `chosen`: expected one of the known layouts, found no such field among `label`\n",
        "  broken: it is empty; give a file with at least one row\n",
        "table.csv: left alone, no known format\n",
        "eval/book.txt: left alone, evaluation data, never trained on\n",
        "2 of 4 files are usable as they are\n",
    ] {
        assert!(told.contains(expected), "{told}\nexpected {expected}");
    }
    for name in ["other.jsonl", "empty.jsonl"] {
        fs::remove_file(dir.path().join(name)).expect("it was there");
    }
    printed(dir.path(), &["check", "."], 0);
    let (told, _) = printed(dir.path(), &["check", "none.jsonl"], 2);
    assert!(told.contains("none.jsonl") && told.contains("cannot be read; check that it is there"), "{told}");
}

#[test]
fn show_tells_a_row_as_a_conversation() {
    let dir = folder(&[("chat.jsonl", &format!("\n{CONVERSATION}\n{{\n{CONVERSATION}")), ("hh.jsonl", TRANSCRIPTS)]);
    let (told, _) = printed(dir.path(), &["show", "chat.jsonl"], 0);
    let turns = "user: What is it?\nassistant: An oak.\nuser: And that?\nassistant: A pine.\n";
    assert_eq!(told, format!("chat.jsonl, line 2: a conversation\n{turns}"));
    let (told, stderr) = printed(dir.path(), &["show", "chat.jsonl", "--row", "3", "--count", "5"], 2);
    assert_eq!(told, format!("chat.jsonl, line 4: a conversation\n{turns}"));
    assert!(stderr.contains("chat.jsonl, line 3, column 1: not a JSON object"), "{stderr}");
    let (told, _) = printed(dir.path(), &["show", "hh.jsonl"], 0);
    assert_eq!(told, "hh.jsonl, line 1: a comparison\nuser: What is it?\nchosen: An oak.\nrejected: No.\n");
    let (_, stderr) = printed(dir.path(), &["show", "hh.jsonl", "--row", "2"], 2);
    assert!(stderr.contains("hh.jsonl: --row 2: its last row is line 1; give one up to that"), "{stderr}");
}

/// The model's texts begin and end with `<|end|>` (421), and its conversations are dialogues. Learnt from are " An oak.", " A pine." and the
/// end: 7, 7 and 1 tokens, of which the first is a space by itself.
#[test]
fn show_marks_the_tokens_that_are_learnt_from() {
    let dir = folder(&[
        ("chat.jsonl", CONVERSATION),
        ("hh.jsonl", TRANSCRIPTS),
        ("text.jsonl", r#"{"text": "An\u001b[2J oak."}"#),
    ]);
    let model = model();
    let model = model.to_str().expect("the path is text");
    let (told, _) = printed(dir.path(), &["show", "chat.jsonl", "--model", model], 0);
    let (head, text) = told.split_once('\n').expect("it has lines");
    assert!(head.starts_with("chat.jsonl, line 1: a conversation of "), "{told}");
    assert!(
        text.contains("What is it?\n\nAssistant:[ An oak.]\n\nHuman: And that?\n\nAssistant:[ A pine.<|end|>]\n"),
        "{told}"
    );

    let (told, _) = printed(dir.path(), &["show", "chat.jsonl", "--model", model, "--ids"], 0);
    let counted = told.lines().skip(1).filter(|line| line.contains(" [\"")).count();
    let of = |told: &str, end: &str| {
        let number = told.split(end).next().expect("a text").rsplit(' ').next().expect("a word");
        number.parse::<usize>().expect("a number")
    };
    assert_eq!(of(&told, " tokens"), told.lines().count() - 1, "{told}");
    assert_eq!(of(&told, " of which are learnt from"), counted, "{told}");
    assert_eq!(counted, 15, "{told}");
    assert!(told.ends_with("     421 [\"<|end|>\"]\n"), "{told}");

    let (told, _) = printed(dir.path(), &["show", "hh.jsonl", "--model", model], 0);
    assert!(told.contains("\n<|end|>\n\nHuman: What is it?") && told.contains("\n\nAssistant:\nchosen, "), "{told}");
    assert!(told.contains("its score read on the last, <|end|> (421):\n[ An oak.<|end|>]\nrejected, "), "{told}");
    assert!(told.ends_with("[ No.<|end|>]\n"), "{told}");

    let (told, _) = printed(dir.path(), &["show", "text.jsonl"], 0);
    assert_eq!(told, "text.jsonl, line 1: a text\nAn\\u{1b}[2J oak.\n");

    let (_, stderr) = printed(dir.path(), &["show", "hh.jsonl", "--ids"], 2);
    assert!(stderr.contains("--model"), "{stderr}");
}

#[test]
fn convert_writes_what_reads_the_same_and_says_what_is_lost() {
    let rows = [TRANSCRIPTS, TRANSCRIPTS, r#"{"id": 7, "chosen": "\n\nHuman: q", "rejected": "\n\nHuman: q"}"#];
    let dir = folder(&[("hh.jsonl", &rows.join("\n"))]);
    let (told, stderr) = printed(dir.path(), &["convert", "hh.jsonl", "pairs.jsonl"], 0);
    assert_eq!(told, "pairs.jsonl: 1 rows as chosen-rejected\n");
    for expected in [
        "note: left out for a broken role order: line 3\n",
        "note: left out for a duplicate: line 2\n",
        "note: not in the new file: the fields `id`\n",
    ] {
        assert!(stderr.contains(expected), "{stderr}");
    }
    let (shown, _) = printed(dir.path(), &["show", "hh.jsonl"], 0);
    for (from, to, form) in [
        ("pairs.jsonl", "back.jsonl.gz", "transcripts"),
        ("back.jsonl.gz", "table.parquet", "chosen-rejected"),
        ("table.parquet", "again.jsonl", "transcripts"),
    ] {
        printed(dir.path(), &["convert", from, to, "--to", form], 0);
        let (again, _) = printed(dir.path(), &["show", to], 0);
        assert_eq!(again.lines().skip(1).collect::<Vec<_>>(), shown.lines().skip(1).collect::<Vec<_>>(), "{to}");
        let (told, _) = printed(dir.path(), &["check", to], 0);
        assert!(told.contains("comparisons, for `reward`"), "{told}");
    }
    let (_, stderr) = printed(dir.path(), &["convert", "hh.jsonl", "pairs.jsonl"], 2);
    assert!(stderr.contains("pairs.jsonl: it is there already; name another file, or remove it first"), "{stderr}");
    let (_, stderr) = printed(dir.path(), &["convert", "hh.jsonl", "p.jsonl", "--to", "prompts"], 0);
    assert!(stderr.contains("note: not in the new file: the responses\n"), "{stderr}");
    let (told, _) = printed(dir.path(), &["check", "p.jsonl"], 0);
    assert!(told.contains("prompts, for `rl`"), "{told}");
}

/// Each line of a help's examples is run as it stands.
#[test]
fn the_examples_of_the_help_run() {
    let mut ran = 0;
    for command in ["check", "show", "convert"] {
        let dir = folder(&[("train.jsonl", &[TRANSCRIPTS; 4].join("\n"))]);
        fs::copy(model(), dir.path().join("model.gguf")).expect("the model is there");
        let (help, _) = printed(dir.path(), &[command, "--help"], 0);
        for line in help.lines().filter_map(|line| line.strip_prefix("  firebrick data ")) {
            let words = line.split("  ").next().expect("a line has a beginning").split(' ').collect::<Vec<_>>();
            printed(dir.path(), &words, 0);
            ran += 1;
        }
    }
    assert_eq!(ran, 10);
}
