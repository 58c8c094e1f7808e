//! Each moment at which a process may be killed.

use super::*;

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
        .args(["--exact", "kills::the_child_to_kill", "--nocapture"])
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
