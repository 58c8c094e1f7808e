//! Whole pipelines on disk: skipped, changed, rebuilt, killed at any moment, refused.

mod changes;
mod failures;
mod kills;

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
