//! What stops a run, and what it says.

use super::*;

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
