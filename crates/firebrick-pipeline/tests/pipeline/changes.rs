//! What is skipped, what is made again, and what stops a run.

use super::*;

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

#[test]
fn an_interrupted_stage_that_left_nothing_begins_anew_with_another_recipe() {
    let root = root();
    let env = Env { fail: Some(("pretrain", 0)), ..Env::default() };
    run(&standard(), root.path(), &env).unwrap_err();
    assert_eq!(names(&root.path().join("02-pretrain/work")), ["fingerprint.json"]);
    let edited = graph(data(), Train { learning_rate: 0.001, steps: 40 });
    assert_eq!(statuses(&edited, root.path()), [Status::Finished, Status::ToDo, Status::ToDo, Status::ToDo]);
    let env = Env::default();
    run(&edited, root.path(), &env).unwrap();
    assert_eq!(env.ran.borrow()[0], ("pretrain".to_owned(), 40));
}

#[test]
fn finished_stages_of_another_run_that_were_made_from_the_same_are_taken_over() {
    let (first, second) = (root(), root());
    run(&standard(), first.path(), &Env::default()).unwrap();
    let edited = graph(data(), Train { learning_rate: 0.001, steps: 40 });
    let options = Options { from: Some(first.path().to_owned()), ..Options::default() };
    let env = Env::default();
    let mut taken = Vec::new();
    let mut note = |event: Event<'_>| {
        if let Event::TakenOver { name, .. } = event {
            taken.push(name.to_owned());
        }
    };
    edited.run(second.path(), &env, &options, &mut note).unwrap();
    assert_eq!((taken, env.ran()[0].as_str()), (vec!["data".to_owned(), "other".to_owned()], "pretrain"));
    let digest = |run: &Path| read_record(run, "data").unwrap().digest;
    assert_eq!(digest(second.path()), digest(first.path()));
    assert_eq!(statuses(&edited, second.path()), [Status::Finished; 4]);

    fs::write(first.path().join("01-data/artifact/text"), "other").unwrap();
    let error = edited.run(root().path(), &Env::default(), &options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Altered { .. }), "{error}");
    let nowhere = Options { from: Some(root().path().to_owned()), ..Options::default() };
    let error = edited.run(root().path(), &Env::default(), &nowhere, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NoRun { .. }), "{error}");
}

// Each moment at which a process may be killed, as it looks on disk afterwards.

/// The joined text of however many there are, behind that of one.
#[derive(Serialize)]
struct Join {}

impl Stage<Env> for Join {
    const VERSION: u32 = 1;
    type Inputs = (Output<Text>, Vec<Output<Text>>);
    type Output = Text;

    fn run(&self, (first, rest): (Text, Vec<Text>), ctx: &StageContext, _env: &Env) -> Result<(), BoxError> {
        let all = [first].into_iter().chain(rest).map(|text| text.0).collect::<Vec<_>>();
        Ok(fs::write(ctx.artifact().join("text"), all.join("|"))?)
    }
}

#[test]
fn a_stage_reads_a_list_of_artifacts_in_its_order() {
    let joined = |rates: &[f32]| {
        let mut p = Pipeline::new("lists");
        let text = p.add("data", data(), ());
        let train = |(index, &learning_rate): (usize, &f32)| {
            p.add(format!("train-{index}"), Train { learning_rate, steps: 1 }, (text,))
        };
        let models = rates.iter().enumerate().map(train).collect::<Vec<_>>();
        p.add("join", Join {}, (text, models));
        p
    };
    let root = root();
    run(&joined(&[0.5, 0.25]), root.path(), &Env::default()).unwrap();
    assert_eq!(open::<Text>(root.path(), "join").unwrap().0, "abc|abc\n0.5 1|abc\n0.25 1");
    let inputs = read_record(root.path(), "join").unwrap().identity.inputs;
    assert_eq!(inputs.iter().map(|input| input.stage.as_str()).collect::<Vec<_>>(), ["data", "train-0", "train-1"]);
    // None is a list too, and another list is another stage.
    let empty = self::root();
    run(&joined(&[]), empty.path(), &Env::default()).unwrap();
    assert_eq!(open::<Text>(empty.path(), "join").unwrap().0, "abc");
    assert!(matches!(run(&joined(&[0.5]), root.path(), &Env::default()), Err(Error::Changed { .. })));
}
