//! The `firebrick` command as a person runs it, from data to report.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn firebrick(out: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command
        .args(["pipeline", "run", "hh", "--recipe", "smoke", "--checkpoint-every", "0", "--out"])
        .arg(out)
        .args(args);
    command.stdin(Stdio::null());
    command
}

fn run(out: &Path, args: &[&str]) -> Output {
    firebrick(out, args).output().expect("the binary was built")
}

fn succeed(out: &Path, args: &[&str]) -> String {
    let output = run(out, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is text")
}

fn fail(out: &Path, args: &[&str]) -> String {
    let output = run(out, args);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let stderr = String::from_utf8(output.stderr).expect("messages are text");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// The digest of every stage's artifact, as its record holds it.
fn digests(out: &Path) -> BTreeMap<String, String> {
    let stage = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("record.json")).ok()?;
        let digest = text.split("\"digest\": \"").last()?.split('"').next()?.to_owned();
        Some((entry.file_name().into_string().ok()?, digest))
    };
    fs::read_dir(out).expect("the run exists").filter_map(|entry| stage(entry.ok()?)).collect()
}

#[test]
fn pipeline_runs_skips_and_refuses_a_changed_recipe() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let out = dir.path().join("run");
    let first = succeed(&out, &[]);
    assert!(first.contains("report: "), "{first}");
    let report = fs::read_to_string(out.join("10-report/artifact/report.html")).expect("the report was written");
    assert!(report.contains("Reward against"), "the report holds its sections");
    let second = succeed(&out, &[]);
    assert_eq!(second.matches("finished before, skipped").count(), 10, "{second}");
    let message = fail(&out, &["--set", "ppo.kl_coefficient=0.5"]);
    assert!(message.contains("ppo.kl_coefficient: was 0.01, now 0.5"), "{message}");
    assert!(message.contains("--rebuild ppo") && message.contains("--out"), "{message}");
}

/// Killed with SIGKILL at growing moments until it ends by itself, the run leaves the artifacts of an uninterrupted one.
#[test]
fn pipeline_killed_anywhere_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let began = Instant::now();
    succeed(&whole, &[]);
    let span = began.elapsed();
    let mut kills = 0;
    loop {
        let mut child = firebrick(&killed, &["--quiet"]).stdout(Stdio::null()).spawn().expect("the binary was built");
        // Short enough for many kills, and each a little later in the work than the one before.
        let patience = span.mul_f64(0.08) + Duration::from_millis(37 * kills);
        let deadline = Instant::now() + patience;
        let status = loop {
            match child.try_wait().expect("a child can be waited for") {
                Some(status) => break Some(status),
                None if Instant::now() >= deadline => break None,
                None => std::thread::yield_now(),
            }
        };
        if let Some(status) = status {
            assert!(status.success());
            break;
        }
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        kills += 1;
    }
    assert!(kills >= 5, "only {kills} kills");
    assert_eq!(digests(&whole), digests(&killed));
}

#[test]
fn bad_words_are_answered_with_the_fix() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let out = dir.path().join("run");
    for (args, expected) in [
        (&["--set", "ppo.iteratons=3"][..], "unknown key `ppo.iteratons`; did you mean `iterations`?"),
        (&["--set", "model.context=40"], "leaves no room for a prompt in `model.context` = 40"),
        (&["--set", "pm.train.batch_size=100000"], "`pm.train.batch_size` = 100000 is larger than its data"),
        (&["--set", "model.context=100"], "do not fit `model.context` = 100; raise it to at least"),
        (&["--data", "no/such/folder"], "there is no such folder"),
        (&["--until", "pp"], "ppo"),
        (&["--set", "pretrain.learning_rate=1e30"], "last good checkpoint"),
    ] {
        let message = fail(&out, args);
        assert!(message.contains(expected), "{args:?}: {message}");
        let _ = fs::remove_dir_all(&out);
    }
}

#[test]
fn an_empty_folder_of_data_says_what_was_looked_for() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a folder can be made");
    let message = fail(&dir.path().join("run"), &["--data", data.to_str().expect("a path of text")]);
    assert!(message.contains("jsonl"), "{message}");
}

#[test]
fn a_broken_row_names_its_file_and_line() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let tranche = dir.path().join("data/helpful-base");
    fs::create_dir_all(&tranche).expect("a folder can be made");
    let good = r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}"#;
    fs::write(tranche.join("train.jsonl"), format!("{good}\n{{\"chosen\": 3}}\n")).expect("a file can be written");
    fs::write(dir.path().join("data/book.txt"), "Some text.\n").expect("a file can be written");
    let data = dir.path().join("data");
    let message = fail(&dir.path().join("run"), &["--data", data.to_str().expect("a path of text")]);
    assert!(message.contains("train.jsonl") && message.contains('2') && message.contains("chosen"), "{message}");
}
