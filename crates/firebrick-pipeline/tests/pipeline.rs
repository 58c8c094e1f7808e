//! Whole pipelines on disk: skipped, changed, rebuilt, killed at any moment, refused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use firebrick_pipeline::{
    Artifact, BoxError, Error, Event, Options, Output, Pipeline, Stage, StageContext, Status, open, read_record,
};
use serde::Serialize;
use tempfile::TempDir;

/// A text, one line for each thing that went into it.
#[derive(Debug, PartialEq)]
struct Text(String);

impl Artifact for Text {
    const KIND: &'static str = "text";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        let path = folder.join("text");
        Ok(Self(fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?))
    }
}

#[derive(Debug)]
struct Length(usize);

impl Artifact for Length {
    const KIND: &'static str = "length";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        Ok(Self(fs::read_to_string(folder.join("length"))?.parse()?))
    }
}

/// How stages are executed in these tests; never identity.
#[derive(Default)]
struct Env {
    /// Stages that ran, with the number of steps that each took.
    ran: RefCell<Vec<(String, usize)>>,
    /// The stage and step at which to fail.
    fail: Option<(&'static str, usize)>,
    /// The stage and step at which to tell the parent process so, and wait to be killed.
    hang: Option<(&'static str, usize)>,
    /// What the outside data holds.
    outside: BTreeMap<String, String>,
}

impl Env {
    fn ran(&self) -> Vec<String> {
        self.ran.borrow().iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Takes `steps` steps and saves its place after each, in its work folder.
fn steps(steps: usize, ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
    let checkpoint = ctx.work().join("step");
    let begin = fs::read_to_string(&checkpoint).map_or(Ok(0), |text| text.parse())?;
    env.ran.borrow_mut().push((ctx.stage().to_owned(), 0));
    for step in begin..steps {
        fs::write(ctx.artifact().join("unfinished"), "")?;
        if env.fail.is_some_and(|place| place == (ctx.stage(), step)) {
            return Err(format!("loss is not finite at step {step}").into());
        }
        if env.hang.is_some_and(|place| place == (ctx.stage(), step)) {
            std::io::stdout().write_all(b"\nhanging\n")?;
            std::io::stdout().flush()?;
            std::io::stdin().read_line(&mut String::new())?;
            return Err("nobody killed this process".into());
        }
        firebrick_pipeline::atomic_write(&checkpoint, (step + 1).to_string().as_bytes())?;
        env.ran.borrow_mut().last_mut().unwrap().1 += 1;
    }
    if begin < steps {
        fs::remove_file(ctx.artifact().join("unfinished"))?;
    }
    Ok(())
}

#[derive(Clone, Serialize)]
struct Data {
    text: String,
    files: Vec<String>,
}

impl Stage<Env> for Data {
    const VERSION: u32 = 1;
    type Inputs = ();
    type Output = Text;

    fn external(&self, env: &Env) -> Result<BTreeMap<String, String>, BoxError> {
        let digest = |name: &String| env.outside.get(name).ok_or_else(|| format!("data file {name} is missing"));
        self.files.iter().map(|name| Ok((name.clone(), digest(name)?.clone()))).collect()
    }

    fn run(&self, _: (), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        steps(1, ctx, env)?;
        Ok(fs::write(ctx.artifact().join("text"), &self.text)?)
    }
}

#[derive(Clone, Serialize)]
struct Train {
    learning_rate: f32,
    steps: usize,
}

impl Stage<Env> for Train {
    const VERSION: u32 = 1;
    type Inputs = (Output<Text>,);
    type Output = Text;

    fn run(&self, (text,): (Text,), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        steps(self.steps, ctx, env)?;
        Ok(fs::write(ctx.artifact().join("text"), format!("{}\n{} {}", text.0, self.learning_rate, self.steps))?)
    }
}

#[derive(Serialize)]
struct Measure {}

impl Stage<Env> for Measure {
    const VERSION: u32 = 1;
    type Inputs = (Output<Text>, Output<Text>);
    type Output = Length;

    fn run(&self, (a, b): (Text, Text), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        steps(1, ctx, env)?;
        Ok(fs::write(ctx.artifact().join("length"), (10 * a.0.len() + b.0.len()).to_string())?)
    }
}

/// The same stage after a change of its code.
#[derive(Serialize)]
struct MeasureAgain {}

impl Stage<Env> for MeasureAgain {
    const VERSION: u32 = 2;
    type Inputs = (Output<Text>, Output<Text>);
    type Output = Length;

    fn run(&self, inputs: (Text, Text), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        Measure {}.run(inputs, ctx, env)
    }
}

fn data() -> Data {
    Data { text: "abc".into(), files: vec![] }
}

fn train() -> Train {
    Train { learning_rate: 0.001, steps: 4 }
}

/// data → pretrain → measure(data, pretrain), and data → other.
fn graph(data: Data, train: Train) -> Pipeline<Env> {
    let mut p = Pipeline::new("hh");
    let text = p.add("data", data, ());
    let lm = p.add("pretrain", train, (text,));
    p.add("measure", Measure {}, (text, lm));
    p.add("other", Train { learning_rate: 0.5, steps: 1 }, (text,));
    p
}

fn standard() -> Pipeline<Env> {
    graph(data(), train())
}

fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn run(pipeline: &Pipeline<Env>, root: &Path, env: &Env) -> Result<(), Error> {
    pipeline.run(root, env, &Options::default(), &mut |_| {})
}

/// What a run of the standard pipeline ran, after `prepare` had changed what the first run left.
fn after(prepare: impl FnOnce(&Path)) -> Vec<(String, usize)> {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let digest = read_record(root.path(), "measure").unwrap().digest;
    prepare(root.path());
    let env = Env::default();
    run(&standard(), root.path(), &env).unwrap();
    assert_eq!(read_record(root.path(), "measure").unwrap().digest, digest);
    let again = Env::default();
    run(&standard(), root.path(), &again).unwrap();
    assert_eq!(again.ran(), [""; 0]);
    let names: Vec<_> = names(root.path()).into_iter().filter(|name| name != ".lock").collect();
    assert_eq!(names, ["01-data", "02-pretrain", "03-measure", "04-other", "pipeline.json"], "nothing stale is left");
    env.ran.into_inner()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn rebuild(stages: &[&str]) -> Options {
    Options { rebuild: stages.iter().map(|&stage| stage.to_owned()).collect(), ..Options::default() }
}

fn statuses(pipeline: &Pipeline<Env>, root: &Path) -> Vec<Status> {
    pipeline.plan(root, &Env::default()).unwrap().stages.iter().map(|stage| stage.status).collect()
}

#[test]
fn a_first_run_makes_everything_and_describes_it() {
    let root = root();
    let env = Env::default();
    let mut events = Vec::new();
    let versions = BTreeMap::from([("burn".to_owned(), "0.22.1".to_owned())]);
    let options = Options { versions: versions.clone(), ..Options::default() };
    standard().run(root.path(), &env, &options, &mut |event| events.push(told(&event))).unwrap();
    assert_eq!(
        events,
        [
            "planned 4",
            "started 1/4 data resumed=false",
            "finished 1/4 data",
            "started 2/4 pretrain resumed=false",
            "finished 2/4 pretrain",
            "started 3/4 measure resumed=false",
            "finished 3/4 measure",
            "started 4/4 other resumed=false",
            "finished 4/4 other",
        ]
    );
    // "abc" has 3 bytes, "abc\n0.001 4" has 3 + 1 + 7 = 11: 10 * 3 + 11.
    assert_eq!(open::<Length>(root.path(), "measure").unwrap().0, 41);

    let record = read_record(root.path(), "measure").unwrap();
    assert_eq!(record.identity.stage, "measure");
    assert_eq!(record.kind, "length");
    assert_eq!(record.versions, versions);
    assert_eq!(record.fingerprint, record.identity.fingerprint());
    let inputs: Vec<_> =
        record.identity.inputs.iter().map(|input| (input.stage.clone(), input.digest.clone())).collect();
    let digest = |stage| read_record(root.path(), stage).unwrap().digest;
    assert_eq!(inputs, [("data".into(), digest("data")), ("pretrain".into(), digest("pretrain"))]);
    assert_eq!(record.digest, firebrick_pipeline::digest(&root.path().join("03-measure/artifact")).unwrap());
    // Written as it was meant: not 0.0010000000474974513, the `f64` next to the `f32`.
    assert_eq!(read_record(root.path(), "pretrain").unwrap().identity.recipe["learning_rate"], 0.001);

    let listing: serde_json::Value =
        serde_json::from_slice(&fs::read(root.path().join("pipeline.json")).unwrap()).unwrap();
    assert_eq!(
        listing,
        serde_json::json!({"schema": 1, "name": "hh", "stages": ["data", "pretrain", "measure", "other"]})
    );
    assert_eq!(names(&root.path().join("02-pretrain")), ["artifact", "record.json", "work"]);
    assert_eq!(names(&root.path().join("02-pretrain/work")), ["fingerprint.json", "step"]);
}

fn told(event: &Event<'_>) -> String {
    match event {
        Event::Planned(plan) => format!("planned {}", plan.stages.len()),
        Event::Skipped { index, total, name } => format!("skipped {index}/{total} {name}"),
        Event::Started { index, total, name, resumed } => format!("started {index}/{total} {name} resumed={resumed}"),
        Event::Finished { index, total, name, .. } => format!("finished {index}/{total} {name}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_second_run_skips_everything() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let env = Env::default();
    let mut events = Vec::new();
    standard().run(root.path(), &env, &Options::default(), &mut |event| events.push(told(&event))).unwrap();
    assert_eq!(
        events,
        ["planned 4", "skipped 1/4 data", "skipped 2/4 pretrain", "skipped 3/4 measure", "skipped 4/4 other"]
    );
    assert_eq!(env.ran(), [""; 0]);
}

#[test]
fn another_recipe_stops_with_the_difference_and_the_ways_on() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let env = Env::default();
    let edited = graph(data(), Train { learning_rate: 3e-4, steps: 4 });
    let error = run(&edited, root.path(), &env).unwrap_err();
    let expected = format!(
        "stage `pretrain` in {} was made from something else:\n  \
           pretrain.learning_rate: was 0.001, now 0.0003\n\
         to make it again, and all that depends on it: `--rebuild pretrain`\n\
         to keep it: give another folder with `--out`",
        root.path().display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(env.ran(), [""; 0]);
    assert_eq!(
        statuses(&edited, root.path()),
        [Status::Finished, Status::Changed, Status::Finished, Status::Finished],
        "planning finds the same"
    );
    run(&standard(), root.path(), &env).unwrap();
    assert_eq!(env.ran(), [""; 0], "what was there is as it was");
}

#[test]
fn all_changes_are_told_at_once_with_the_fewest_stages_to_rebuild() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let edited = graph(Data { text: "abcd".into(), files: vec![] }, Train { learning_rate: 0.001, steps: 5 });
    let Error::Changed { stages, differences, .. } = run(&edited, root.path(), &Env::default()).unwrap_err() else {
        panic!("it must stop for the changes")
    };
    assert_eq!(stages, ["data"], "pretrain is rebuilt with it");
    let told: Vec<_> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["data.text: was \"abc\", now \"abcd\"", "pretrain.steps: was 4, now 5"]);
}

#[test]
fn a_change_late_in_the_graph_stops_before_anything_runs() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    fs::remove_dir_all(root.path().join("01-data")).unwrap();
    let env = Env::default();
    let error = run(&graph(data(), Train { learning_rate: 0.1, steps: 4 }), root.path(), &env).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert_eq!(env.ran(), [""; 0]);
}

#[test]
fn an_input_that_turns_out_different_stops_there() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    fs::remove_dir_all(root.path().join("01-data")).unwrap();
    let env = Env::default();
    let error = run(&graph(Data { text: "new".into(), files: vec![] }, train()), root.path(), &env).unwrap_err();
    let Error::Changed { stages, differences, .. } = &error else { panic!("{error}") };
    assert_eq!(stages, &["pretrain"]);
    assert_eq!(differences[0].to_string(), "pretrain: the artifact of `data` changed");
    assert_eq!(env.ran(), ["data"]);
}

#[test]
fn a_stage_made_again_with_the_same_result_leaves_the_rest_finished() {
    assert_eq!(after(|root| fs::remove_dir_all(root.join("01-data")).unwrap()), [("data".to_owned(), 1)]);
}

#[test]
fn another_version_of_the_code_is_a_change() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let mut p = Pipeline::new("hh");
    let text = p.add("data", data(), ());
    let lm = p.add("pretrain", train(), (text,));
    p.add("measure", MeasureAgain {}, (text, lm));
    let error = run(&p, root.path(), &Env::default()).unwrap_err().to_string();
    assert!(error.contains("\n  measure: the stage's version was 1, now 2\n"), "{error}");
}

#[test]
fn swapped_inputs_of_one_type_are_a_change() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let mut p = Pipeline::new("hh");
    let text = p.add("data", data(), ());
    let lm = p.add("pretrain", train(), (text,));
    p.add("measure", Measure {}, (lm, text));
    let error = run(&p, root.path(), &Env::default()).unwrap_err().to_string();
    assert!(error.contains("\n  measure: the inputs were data, pretrain, now pretrain, data\n"), "{error}");
}

#[test]
fn other_outside_data_is_a_change() {
    let root = root();
    let name = "helpful-base/train.jsonl.gz";
    let pipeline = || graph(Data { files: vec![name.to_owned()], ..data() }, train());
    let env = |digest: &str| Env { outside: BTreeMap::from([(name.to_owned(), digest.to_owned())]), ..Env::default() };
    run(&pipeline(), root.path(), &env("a")).unwrap();
    run(&pipeline(), root.path(), &env("a")).unwrap();
    let error = run(&pipeline(), root.path(), &env("b")).unwrap_err().to_string();
    assert!(error.contains("\n  data: data file helpful-base/train.jsonl.gz changed\n"), "{error}");
    let error = run(&pipeline(), root.path(), &Env::default()).unwrap_err().to_string();
    assert_eq!(error, "stage `data`: data file helpful-base/train.jsonl.gz is missing");
}

#[test]
fn a_rebuild_is_of_the_stage_and_its_dependants() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let before = read_record(root.path(), "measure").unwrap().fingerprint;
    let edited = graph(data(), Train { learning_rate: 3e-4, steps: 4 });
    let env = Env::default();
    edited.run(root.path(), &env, &rebuild(&["pretrain"]), &mut |_| {}).unwrap();
    let ran = env.ran.into_inner();
    assert_eq!(ran, [("pretrain".into(), 4), ("measure".into(), 1)], "from the first step: work is removed too");
    assert_ne!(read_record(root.path(), "measure").unwrap().fingerprint, before);

    let env = Env::default();
    edited.run(root.path(), &env, &rebuild(&["data"]), &mut |_| {}).unwrap();
    assert_eq!(env.ran(), ["data", "pretrain", "measure", "other"]);
}

#[test]
fn a_rebuild_removes_dependants_after_until() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let options = Options { until: Some("pretrain".into()), ..rebuild(&["pretrain"]) };
    standard().run(root.path(), &Env::default(), &options, &mut |_| {}).unwrap();
    assert_eq!(
        statuses(&standard(), root.path()),
        [Status::Finished, Status::Finished, Status::ToDo, Status::Finished]
    );
}

#[test]
fn until_stops_after_the_stage() {
    let root = root();
    let env = Env::default();
    let options = Options { until: Some("pretrain".into()), ..Options::default() };
    standard().run(root.path(), &env, &options, &mut |_| {}).unwrap();
    assert_eq!(env.ran(), ["data", "pretrain"]);
    let error = open::<Length>(root.path(), "measure").unwrap_err().to_string();
    let expected = "is not finished; run the pipeline until it with `--until measure`";
    assert_eq!(error, format!("stage `measure` in {} {expected}", root.path().display()));
}

#[test]
fn unknown_names_are_refused_before_anything_is_touched() {
    let root = root();
    let below = root.path().join("run");
    let options = Options { until: Some("pretrian".into()), ..Options::default() };
    for options in [options, rebuild(&["data", "pretrian"])] {
        let error = standard().run(&below, &Env::default(), &options, &mut |_| {}).unwrap_err().to_string();
        assert_eq!(
            error,
            "no stage is called `pretrian` (did you mean `pretrain`?); the stages are data, pretrain, measure, other"
        );
    }
    assert!(!below.exists());
    run(&standard(), &below, &Env::default()).unwrap();
    let error = read_record(&below, "masure").unwrap_err().to_string();
    assert!(error.starts_with("no stage is called `masure` (did you mean `measure`?)"), "{error}");
}

#[test]
fn a_failed_stage_is_named_and_resumed() {
    let root = root();
    let env = Env { fail: Some(("pretrain", 2)), ..Env::default() };
    let error = run(&standard(), root.path(), &env).unwrap_err().to_string();
    assert_eq!(error, "stage `pretrain`: loss is not finite at step 2");
    assert_eq!(statuses(&standard(), root.path()), [Status::Finished, Status::Interrupted, Status::ToDo, Status::ToDo]);
    let env = Env::default();
    let mut events = Vec::new();
    standard().run(root.path(), &env, &Options::default(), &mut |event| events.push(told(&event))).unwrap();
    assert_eq!(events[2], "started 2/4 pretrain resumed=true");
    assert_eq!(env.ran.borrow()[0], ("pretrain".to_owned(), 2), "steps 2 and 3");
    assert_eq!(names(&root.path().join("02-pretrain/artifact")), ["text"], "what the failed run wrote is gone");
}

#[test]
fn an_interrupted_stage_with_another_recipe_stops() {
    let root = root();
    let env = Env { fail: Some(("pretrain", 2)), ..Env::default() };
    run(&standard(), root.path(), &env).unwrap_err();
    let edited = graph(data(), Train { learning_rate: 0.001, steps: 40 });
    let error = run(&edited, root.path(), &Env::default()).unwrap_err().to_string();
    assert!(error.contains("\n  pretrain.steps: was 4, now 40\n"), "{error}");
    let env = Env::default();
    edited.run(root.path(), &env, &rebuild(&["pretrain"]), &mut |_| {}).unwrap();
    assert_eq!(env.ran.borrow()[0], ("pretrain".to_owned(), 40));
}

// Each moment at which a process may be killed, as it looks on disk afterwards.

#[test]
fn killed_before_the_first_stage() {
    let prepare = |root: &Path| {
        for name in names(root) {
            let path = root.join(name);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        fs::write(root.join(".lock"), "").unwrap();
        fs::write(root.join(".pipeline.json.partial"), "{\"sch").unwrap();
    };
    assert_eq!(after(prepare).len(), 4);
}

#[test]
fn killed_between_the_folder_and_its_fingerprint() {
    let prepare = |root: &Path| {
        fs::remove_dir_all(root.join("02-pretrain")).unwrap();
        fs::create_dir_all(root.join("02-pretrain/work")).unwrap();
        fs::write(root.join("02-pretrain/work/.fingerprint.json.partial"), "{").unwrap();
    };
    assert_eq!(after(prepare), [("pretrain".to_owned(), 4)]);
}

#[test]
fn killed_while_running() {
    let prepare = |root: &Path| {
        let folder = root.join("02-pretrain");
        fs::remove_file(folder.join("record.json")).unwrap();
        fs::rename(folder.join("artifact"), folder.join(".artifact.partial")).unwrap();
        fs::write(folder.join(".artifact.partial/stale"), "must not survive").unwrap();
        fs::write(folder.join("work/step"), "3").unwrap();
    };
    assert_eq!(after(prepare), [("pretrain".to_owned(), 1)]);
}

#[test]
fn killed_between_the_artifact_and_its_record() {
    let prepare = |root: &Path| {
        let folder = root.join("02-pretrain");
        fs::remove_file(folder.join("record.json")).unwrap();
        fs::write(folder.join(".record.json.partial"), "{\"schema\": 1").unwrap();
        fs::write(folder.join("artifact/text"), "not trusted").unwrap();
    };
    assert_eq!(after(prepare), [("pretrain".to_owned(), 0)]);
}

#[test]
fn killed_while_removing_an_untrusted_artifact() {
    let prepare = |root: &Path| {
        fs::remove_file(root.join("02-pretrain/record.json")).unwrap();
        fs::remove_file(root.join("02-pretrain/artifact/text")).unwrap();
    };
    assert_eq!(after(prepare), [("pretrain".to_owned(), 0)]);
}

#[test]
fn killed_while_removing_for_a_rebuild() {
    // A rebuild of pretrain, killed after its dependant went, in the middle of removing itself.
    let prepare = |root: &Path| {
        fs::remove_dir_all(root.join("03-measure")).unwrap();
        fs::rename(root.join("02-pretrain"), root.join(".removed-02-pretrain")).unwrap();
        fs::remove_file(root.join(".removed-02-pretrain/artifact/text")).unwrap();
    };
    assert_eq!(after(prepare), [("pretrain".to_owned(), 4), ("measure".to_owned(), 1)]);
}

#[test]
fn killed_rebuilds_can_be_asked_for_again() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    fs::rename(root.path().join("03-measure"), root.path().join(".removed-03-measure")).unwrap();
    let env = Env::default();
    let edited = graph(data(), Train { learning_rate: 3e-4, steps: 4 });
    edited.run(root.path(), &env, &rebuild(&["pretrain"]), &mut |_| {}).unwrap();
    assert_eq!(env.ran(), ["pretrain", "measure"]);
}

const CHILD_ROOT: &str = "FIREBRICK_PIPELINE_TEST_CHILD_ROOT";

/// The process that [`killed_in_earnest`] kills; by itself it does nothing.
#[test]
fn the_child_to_kill() {
    if let Some(root) = env::var_os(CHILD_ROOT) {
        let env = Env { hang: Some(("pretrain", 2)), ..Env::default() };
        run(&standard(), &PathBuf::from(root), &env).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn killed_in_earnest() {
    let root = root();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_child_to_kill", "--nocapture"])
        .env(CHILD_ROOT, root.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "hanging"), "the child reached the middle of pretrain");

    let error = run(&standard(), root.path(), &Env::default()).unwrap_err().to_string();
    let expected = "is in use by another run; wait until that ends, or give another folder with `--out`";
    assert_eq!(error, format!("{} {expected}", root.path().display()));
    assert_eq!(
        statuses(&standard(), root.path()),
        [Status::Finished, Status::Interrupted, Status::ToDo, Status::ToDo],
        "planning does not need the lock"
    );

    child.kill().unwrap(); // SIGKILL on Unix
    assert_eq!(child.wait().unwrap().code(), None, "it ended by the signal");
    let env = Env::default();
    run(&standard(), root.path(), &env).unwrap();
    assert_eq!(env.ran.borrow()[0], ("pretrain".to_owned(), 2), "it went on after its two steps");
    assert_eq!(open::<Length>(root.path(), "measure").unwrap().0, 41);
}

#[test]
fn a_damaged_record_is_named_with_the_way_on() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let path = root.path().join("02-pretrain/record.json");
    fs::write(&path, "{\"schema\": 1,").unwrap();
    let error = run(&standard(), root.path(), &Env::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{} is damaged: EOF while parsing a value at line 1 column 13; \
             put it back or make the stage again with `--rebuild pretrain`",
            path.display()
        )
    );
    standard().run(root.path(), &Env::default(), &rebuild(&["pretrain"]), &mut |_| {}).unwrap();
    fs::write(root.path().join("pipeline.json"), "[]").unwrap();
    let error = run(&standard(), root.path(), &Env::default()).unwrap_err().to_string();
    assert!(error.ends_with("; remove it: the next run writes it anew"), "{error}");
}

#[test]
fn a_finished_artifact_that_does_not_open_is_named_with_the_way_on() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let artifact = root.path().join("02-pretrain/artifact");
    fs::remove_file(artifact.join("text")).unwrap();
    let error = run(&standard(), root.path(), &Env::default()).unwrap_err().to_string();
    let start = format!("cannot open the artifact of stage `pretrain`, {}: ", artifact.display());
    assert!(error.starts_with(&start), "{error}");
    assert!(error.ends_with("; put it back or make it again with `--rebuild pretrain`"), "{error}");
}

#[test]
fn an_artifact_of_another_kind_does_not_open() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let error = open::<Length>(root.path(), "data").unwrap_err().to_string();
    assert!(error.contains("made a `text`, not a `length`"), "{error}");
}

#[test]
fn a_root_belongs_to_one_pipeline() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let mut p = Pipeline::new("summaries");
    p.add("data", data(), ());
    let error = run(&p, root.path(), &Env::default()).unwrap_err().to_string();
    assert!(error.contains("holds a run of pipeline `hh`, not `summaries`"), "{error}");
}

#[test]
fn a_stage_put_in_between_renumbers_the_others() {
    let root = root();
    run(&standard(), root.path(), &Env::default()).unwrap();
    let mut p = Pipeline::new("hh");
    let text = p.add("data", data(), ());
    p.add("extra", train(), (text,));
    let lm = p.add("pretrain", train(), (text,));
    p.add("measure", Measure {}, (text, lm));
    let env = Env::default();
    run(&p, root.path(), &env).unwrap();
    assert_eq!(env.ran(), ["extra"]);
    let folders: Vec<_> = names(root.path()).into_iter().filter(|name| !name.contains("lock")).collect();
    assert_eq!(folders, ["01-data", "02-extra", "03-pretrain", "04-measure", "04-other", "pipeline.json"]);
}

#[test]
fn a_plan_needs_no_root() {
    let plan = standard().plan(Path::new("/nowhere/at/all"), &Env::default()).unwrap();
    assert_eq!(
        plan.to_string(),
        "  #  stage     status       makes   from\n  \
           1  data      to do        text    -\n  \
           2  pretrain  to do        text    data\n  \
           3  measure   to do        length  data, pretrain\n  \
           4  other     to do        text    data\n"
    );
}

#[test]
fn a_root_that_is_a_file_is_refused() {
    let root = root();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = run(&standard(), &file, &Env::default()).unwrap_err().to_string();
    let expected = "it is a file; give another folder with `--out`";
    assert_eq!(error, format!("cannot use {} for a run: {expected}", file.display()));
    let error = run(&standard(), &file.join("below"), &Env::default()).unwrap_err();
    assert!(matches!(error, Error::Root { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn a_root_that_is_read_only_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let root = root();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(root.path().join("probe"), "").is_ok() {
        std::io::stderr().write_all(b"skipped: this user may write everywhere\n").unwrap();
        return;
    }
    let error = run(&standard(), root.path(), &Env::default()).unwrap_err().to_string();
    assert!(error.starts_with("cannot use "), "{error}");
}

#[test]
fn a_file_in_the_way_is_named() {
    let root = root();
    fs::write(root.path().join("01-data"), "").unwrap();
    let error = run(&standard(), root.path(), &Env::default()).unwrap_err();
    let Error::Io { path, .. } = &error else { panic!("{error}") };
    assert!(path.starts_with(root.path().join("01-data")), "{error}");
}

#[derive(Serialize)]
struct Overflow {}

impl Stage<()> for Overflow {
    const VERSION: u32 = 1;
    type Inputs = ();
    type Output = Text;

    fn run(&self, _: (), _: &StageContext, _: &()) -> Result<(), BoxError> {
        Ok(fs::write("/dev/full", "does not fit")?)
    }
}

#[test]
fn a_full_disk_is_told_with_the_way_on() {
    if !Path::new("/dev/full").exists() {
        std::io::stderr().write_all(b"skipped: /dev/full not found\n").unwrap();
        return;
    }
    let mut p = Pipeline::new("full");
    p.add("overflow", Overflow {}, ());
    let error = p.run(root().path(), &(), &Options::default(), &mut |_| {}).unwrap_err();
    let Error::DiskFull { doing } = &error else { panic!("{error}") };
    assert!(doing.starts_with("go on with stage `overflow`: "), "{error}");
    assert!(
        error.to_string().ends_with("; free space and run the same command again: finished work is kept"),
        "{error}"
    );
}

#[derive(Serialize)]
struct Forgetful {}

impl Stage<()> for Forgetful {
    const VERSION: u32 = 1;
    type Inputs = ();
    type Output = Text;

    fn run(&self, _: (), _: &StageContext, _: &()) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn a_stage_that_writes_no_artifact_is_not_finished() {
    let root = root();
    let mut p = Pipeline::new("forgetful");
    p.add("forgetful", Forgetful {}, ());
    let error = p.run(root.path(), &(), &Options::default(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.starts_with("stage `forgetful`: it wrote an artifact that does not open: "), "{error}");
    assert!(matches!(read_record(root.path(), "forgetful").unwrap_err(), Error::Unfinished { .. }));
}

#[test]
#[should_panic(expected = "stage `pretrain` of pipeline `b` takes an output of another pipeline")]
fn an_output_of_another_pipeline_panics() {
    let text = Pipeline::new("a").add("data", data(), ());
    let mut p = Pipeline::new("b");
    p.add("data", data(), ());
    p.add("pretrain", train(), (text,));
}

#[test]
#[should_panic(expected = "pipeline `a` has a stage `data` already")]
fn a_name_taken_panics() {
    let mut p = Pipeline::new("a");
    p.add("data", data(), ());
    p.add("data", data(), ());
}

#[test]
#[should_panic(expected = "stage name `../data`: use small letters")]
fn a_name_that_is_a_path_panics() {
    Pipeline::new("a").add("../data", data(), ());
}
