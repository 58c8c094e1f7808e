//! The `firebrick` command as a person runs it, from data to report.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn firebrick(out: &Path, args: &[&str]) -> Command {
    pipeline("rlhf", "smoke", out, args)
}

fn pipeline(name: &str, recipe: &str, out: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.args(["pipeline", "run", name, "--recipe", recipe, "--checkpoint-every", "0", "--out"]).arg(out).args(args);
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
    let report = fs::read_to_string(out.join("11-report/artifact/report.html")).expect("the report was written");
    assert!(report.contains("Reward against"), "the report holds its sections");
    let log = fs::read_to_string(out.join("run.log.jsonl")).expect("events are kept beside the stages");
    let finished = |stage: &str| log.lines().any(|line| line.contains("a stage is finished") && line.contains(stage));
    assert!(finished(r#""stage":"ppo""#) && finished(r#""pipeline":"rlhf""#), "{log}");
    let second = succeed(&out, &[]);
    assert_eq!(second.matches("finished before, skipped").count(), 11, "{second}");
    let message = fail(&out, &["--set", "ppo.kl_coefficient=0.5"]);
    assert!(message.contains("ppo.kl_coefficient: was 0.01, now 0.5"), "{message}");
    assert!(message.contains("--rebuild ppo") && message.contains("--out"), "{message}");
}

/// Starts the run anew, and kills it when it has told this step of this stage.
fn kill_at(out: &Path, stage: &str, step: u64) {
    let mut command = firebrick(out, &["--verbose"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary was built");
    let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let told = format!("{stage}: step {step} of ");
    let reached = lines.map_while(Result::ok).any(|line| line.trim_start().starts_with(&told));
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    assert!(reached, "{stage} never told step {step}");
}

/// Killed with SIGKILL at nine moments in seven stages, the run leaves the artifacts of an uninterrupted one.
#[test]
fn pipeline_killed_anywhere_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    succeed(&whole, &[]);
    let moments = [
        ("pretrain", 2),
        ("pretrain", 17),
        ("distill", 1),
        ("pmp", 3),
        ("pm-train", 2),
        ("pm-test", 4),
        ("ppo", 1),
        ("ppo", 2),
        ("evaluate", 3),
    ];
    for (stage, step) in moments {
        kill_at(&killed, stage, step);
        let finished = digests(&killed);
        assert!(!finished.keys().any(|folder| folder.ends_with(&format!("-{stage}"))), "{stage} was killed too late");
    }
    succeed(&killed, &[]);
    assert_eq!(digests(&whole), digests(&killed));
}

/// On a disk that is full the run stops and says so; with more room the same command goes on to the same bits.
#[cfg(target_os = "linux")]
#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn pipeline_on_a_full_disk_names_the_file_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (disk, kept, whole) = (dir.path().join("disk"), dir.path().join("kept"), dir.path().join("whole"));
    for folder in [&disk, &kept] {
        fs::create_dir(folder).expect("a folder can be made");
    }
    // A small disk of its own, which nobody outside of the script sees.
    let script = r#"
        mount -t tmpfs -o size=1500k none "$DISK" || exit 77
        "$@" 2>"$KEPT/message" && exit 1
        mount -o remount,size=200m "$DISK"
        "$@" || exit 2
        for stage in "$DISK"/run/*/; do
            mkdir "$KEPT/$(basename "$stage")" && cp "$stage/record.json" "$KEPT/$(basename "$stage")"
        done
    "#;
    let run = firebrick(&disk.join("run"), &["--quiet", "--until", "distill"]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(run.get_program()).args(run.get_args()).env("DISK", &disk).env("KEPT", &kept);
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.code() != Some(77) && output.status.code() != Some(1) => output,
        Ok(output) if output.status.code() == Some(1) && kept.join("message").exists() => {
            panic!("it succeeded on a full disk: {}", String::from_utf8_lossy(&output.stderr))
        }
        _ => {
            println!("skipped: no disk can be mounted here");
            return;
        }
    };
    let message = fs::read_to_string(kept.join("message")).expect("it said something");
    assert!(output.status.success(), "{message}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(message.contains("No space left on device") && message.contains("disk/run"), "{message}");
    succeed(&whole, &["--until", "distill"]);
    assert_eq!(digests(&whole), digests(&kept));
}

/// What the cache of the Hugging Face Hub holds is found without a network, and comparisons alone are enough for a run.
#[test]
fn pipeline_runs_on_a_cached_dataset_of_the_hub() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cache = dir.path().join("hub/datasets--some--set");
    let tranche = cache.join("snapshots/c0ffee/helpful-base");
    fs::create_dir_all(&tranche).expect("a folder can be made");
    fs::create_dir(cache.join("refs")).expect("a folder can be made");
    fs::write(cache.join("refs/main"), "c0ffee").expect("a file can be written");
    for (name, rows) in [("train", 0..120), ("test", 120..150)] {
        let row = |index: u32| {
            let asked = format!("\\n\\nHuman: What is {index} and {}?\\n\\nAssistant: It is", index % 7);
            format!(r#"{{"chosen": "{asked} {}.", "rejected": "{asked} not for me to say."}}"#, index + index % 7)
                + "\n"
        };
        let file = fs::File::create(tranche.join(format!("{name}.jsonl.gz"))).expect("a file can be made");
        let mut file = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        let rows = rows.map(row).collect::<String>();
        file.write_all(rows.as_bytes()).and_then(|()| file.finish().map(drop)).expect("a file can be written");
    }
    let small = [
        "data.prompt_conversations=1",
        "model.context=600",
        "pm.train.batch_size=8",
        "distill.texts=32",
        "pretrain.batch_size=2",
    ];
    let settings = small.iter().flat_map(|setting| ["--set", *setting]).collect::<Vec<_>>();
    let out = dir.path().join("run");
    let offline = |repo: &str| {
        let mut command = firebrick(&out, &[&["--data", repo], &settings[..]].concat());
        command.env("HF_HOME", dir.path()).env("HF_HUB_OFFLINE", "1");
        command.output().expect("the binary was built")
    };
    let output = offline("hub:some/set");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).expect("output is text");
    assert!(told.contains("helpful-base") && told.contains("report: "), "{told}");
    let report = fs::read_to_string(out.join("11-report/artifact/report.html")).expect("the report was written");
    assert!(report.contains("no ranked answers: preference models are not pretrained"), "the data's notes are told");

    let output = offline("hub:other/set");
    let message = String::from_utf8(output.stderr).expect("messages are text");
    assert!(!output.status.success() && message.contains("other/set"), "{message}");
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
        (&["--data", "no/such/folder"], "there is no such file or folder"),
        (&["--set", "data.documents=1"], "nothing is left of the held-out text"),
        (&["--set", "evaluate.documents=0"], "`evaluate.documents` is 0; it must be at least 1"),
        (&["--until", "pp"], "ppo"),
        (&["--set", "pretrain.learning_rate=1e30"], "last good checkpoint"),
    ] {
        let message = fail(&out, args);
        assert!(message.contains(expected), "{args:?}: {message}");
        let _ = fs::remove_dir_all(&out);
    }
}

/// `firebrick … | head` closes what the command writes to.
#[test]
fn a_closed_output_is_no_panic() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
    command.args(["pipeline", "run", "rlhf", "--plan"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("a child can be waited for");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
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

#[test]
fn vision_answers_its_questions_and_again_to_the_same_bits() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = |out: &Path, args: &[&str]| {
        let output = pipeline("vision", "glyphs-smoke", out, args).output().expect("the binary was built");
        (
            output.status.success(),
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()),
        )
    };
    let [first, again] = ["first", "again"].map(|name| dir.path().join(name));
    let (done, [told, errors]) = run(&first, &[]);
    assert!(done, "{errors}");
    assert!(told.contains("drop75   iterate") && told.contains("pictures of two shapes"), "{told}");
    let report = fs::read_to_string(first.join("09-report/artifact/report.html")).expect("the report was written");
    assert!(report.contains("What hides behind a mask") && report.contains("</svg>"), "the report holds its sections");
    assert!(run(&first, &[]).1[0].matches("finished before, skipped").count() == 9);
    assert!(run(&again, &[]).0);
    // No run takes as long as another, and the report tells how long.
    let timeless = |run: &Path| {
        let timed = |stage: &str| stage.ends_with("-cost") || stage.ends_with("-report");
        digests(run).into_iter().filter(|(stage, _)| !timed(stage)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(timeless(&first).len(), 7);
    assert_eq!(timeless(&first), timeless(&again));

    infer_answers_about_pictures(&first, dir.path());

    let (done, [_, errors]) = run(&dir.path().join("wrong"), &["--set", "cnn.size=4"]);
    assert!(!done && errors.contains("`cnn.size` = 4 is even"), "{errors}");
    let empty = tempfile::tempdir().expect("a temporary folder");
    let (done, [_, errors]) = run(&dir.path().join("none"), &["--data", empty.path().to_str().expect("text")]);
    assert!(!done && errors.contains("no images; looked for"), "{errors}");
}

/// A grey picture as a PNG file, white where the function says so.
fn png(path: &Path, size: usize, white: impl Fn(usize, usize) -> bool) {
    let pixel = |index: usize| if white(index / size, index % size) { 255 } else { 0 };
    let bytes = (0..size * size).map(pixel).collect::<Vec<u8>>();
    image::GrayImage::from_raw(size as u32, size as u32, bytes)
        .expect("a byte of each pixel")
        .save(path)
        .expect("a file");
}

fn infer_answers_about_pictures(run: &Path, dir: &Path) {
    let infer = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        let output = command.arg("infer").args(args).arg("--model").arg(run).current_dir(dir).output();
        let output = output.expect("the binary was built");
        (
            output.status.success(),
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()),
        )
    };
    const SIZE: usize = 28;
    png(&dir.join("in.png"), SIZE, |row, column| (8..20).contains(&row) && (12..15).contains(&column));
    png(&dir.join("hidden.png"), SIZE, |row, _| row >= SIZE / 2);
    png(&dir.join("small.png"), 20, |_, _| true);

    let (done, [told, errors]) = infer(&["complete", "--image", "in.png", "--mask", "hidden.png", "--out", "done.png"]);
    assert!(done && told.contains("392 of 784 pixels filled in, as class "), "{told}{errors}");
    // What is seen is left as it is.
    let [before, after] =
        ["in.png", "done.png"].map(|name| image::open(dir.join(name)).expect("a picture").into_luma8());
    assert!((0..14).all(|row| (0..28).all(|column| before.get_pixel(column, row) == after.get_pixel(column, row))));

    let (done, [told, errors]) = infer(&["explain", "--image", "in.png", "--label", "1", "--out", "explained"]);
    assert!(done && told.contains("class 1\n") && dir.join("explained/mask.png").is_file(), "{told}{errors}");
    let (done, [told, errors]) = infer(&["separate", "--image", "in.png", "--labels", "0,1"]);
    assert!(done && told.contains("classes 0 and 1, energy "), "{told}{errors}");
    assert!(dir.join("separated/1-class-0.png").is_file() && dir.join("separated/2-class-1-mask.png").is_file());
    for method in ["excitation", "grad-cam", "occlusion", "integrated-gradients"] {
        let (done, [told, errors]) = infer(&["attribute", "--image", "in.png", "--method", method]);
        assert!(done && told.contains("wrote attribution.png"), "{method}: {told}{errors}");
    }

    let refused = |args: &[&str], expected: &str| {
        let (done, [_, errors]) = infer(args);
        assert!(!done && errors.contains(expected) && !errors.contains("panicked"), "{errors}");
    };
    refused(&["explain", "--image", "small.png"], "small.png is 20 pixels high and 20 wide, the model reads 28 x 28");
    refused(&["explain", "--image", "in.png", "--label", "99"], "class 99: the classifier has");
    refused(&["attribute", "--image", "in.png", "--label", "99"], "--label 99: the classifier has");
    refused(&["separate", "--image", "in.png", "--labels", "1,2,3"], "--labels takes one class or two");
    refused(&["complete", "--image", "in.png", "--mask", "small.png", "--out", "x.png"], "small.png is 20 pixels");
    refused(&["explain", "--image", "none.png"], "none.png: cannot be read");

    // The same ink, gray on nothing: over black the same picture as on black, and black ink is nothing there.
    let ink = |path: &str, gray: u8| {
        let pixel = |column, row| image::LumaA([gray, before.get_pixel(column, row).0[0]]);
        let picture = image::ImageBuffer::from_fn(SIZE as u32, SIZE as u32, pixel);
        picture.save(dir.join(path)).expect("a file");
    };
    ink("white.png", 255);
    ink("black.png", 0);
    let (_, [plain, _]) = infer(&["explain", "--image", "in.png"]);
    let (done, [told, errors]) = infer(&["explain", "--image", "white.png"]);
    assert!(
        done && told == plain && errors.contains("white.png has transparent pixels: they lie over black"),
        "{errors}"
    );
    refused(&["explain", "--image", "black.png"], "alpha channel: choose another background by `--background`");
    refused(&["explain", "--image", "black.png", "--background", "grey"], "black, white or a number from 0 to 255");
    let (done, [_, errors]) = infer(&["explain", "--image", "black.png", "--background", "white"]);
    assert!(done && errors.contains("they lie over white"), "{errors}");
}
