//! `cargo xtask ci`: all that CI runs. Green here is green there.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use anyhow::{Context, Result};

use crate::process::{cargo, run as run_command, workspace_root};
use crate::{markdown, tidy};

type Step = (&'static str, fn() -> Result<()>);

/// Cheapest first, so that most failures show early.
const STEPS: [Step; 8] = [
    ("format", format),
    ("tidy", tidy::run),
    ("clippy", clippy),
    ("package", package),
    ("doc", doc),
    ("test", readme_test),
    ("examples", examples),
    ("smoke", smoke),
];

pub(crate) fn run() -> Result<()> {
    let mut times = Vec::new();
    let mut outcome = Ok(());
    for (name, step) in STEPS {
        eprintln!("\n=== {name}");
        let started = Instant::now();
        outcome = step().with_context(|| format!("ci stopped at `{name}`"));
        times.push((name, started.elapsed()));
        if outcome.is_err() {
            break;
        }
    }
    eprint!("\n{}", table(&times, outcome.is_ok()));
    outcome
}

fn format() -> Result<()> {
    run_command(cargo().args(["fmt", "--all", "--", "--check"]))
}

/// The backends of graphics cards: checked and documented, never run here. Clippy and rustdoc name the same features,
/// so that dependencies are checked once for both.
const GRAPHICS: &str = "firebrick-cli/vulkan,firebrick-cli/wgpu";

fn clippy() -> Result<()> {
    let targets = ["clippy", "--workspace", "--all-targets", "--features", GRAPHICS];
    run_command(cargo().args(targets).args(["--", "-D", "warnings"]))
}

/// Packs every crate as it would be published, without asking the registry for anything.
fn package() -> Result<()> {
    run_command(cargo().args(["package", "--workspace", "--no-verify", "--allow-dirty", "--offline"]))
}

fn doc() -> Result<()> {
    run_command(
        cargo().args(["doc", "--workspace", "--no-deps", "--features", GRAPHICS]).env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Runs the test command that the README tells people to type, so that it cannot go stale.
fn readme_test() -> Result<()> {
    let readme = fs::read_to_string(workspace_root().join("README.md")).context("cannot read README.md")?;
    let script = markdown::fenced_block(&readme, "sh test").context(
        "README.md has no fenced block with the info string `sh test`; mark the command that runs the tests",
    )?;
    run_command(Command::new("sh").args(["-eu", "-c", script.trim()]).current_dir(workspace_root()))
}

/// Runs every example; each ends in an assertion of what it shows. All are built in one go, with the features of the
/// whole workspace: built one by one, each would compile the framework with features of its own.
fn examples() -> Result<()> {
    run_command(cargo().args(["build", "--workspace", "--bins", "--examples"]))?;
    for example in names(&workspace_root().join("examples"), "rs")? {
        run_command(&mut built(&format!("examples/{example}"))?)?;
    }
    for alone in names(&workspace_root().join("examples/alone"), "")? {
        run_command(&mut built(&format!("alone-{alone}"))?)?;
    }
    Ok(())
}

/// A program of this workspace, which cargo leaves beside this one.
fn built(program: &str) -> Result<Command> {
    let folder = env::current_exe().context("cannot tell where this program lies")?.with_file_name("");
    Ok(Command::new(folder.join(format!("{program}{}", env::consts::EXE_SUFFIX))))
}

/// The names of what lies in a folder with this extension, without it, in order.
fn names(folder: &Path, extension: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().unwrap_or_default() == extension
            && let Some(stem) = path.file_stem()
        {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Runs the built-in pipeline at its smallest and holds its numbers to their bands. A failed run is kept to be looked at.
fn smoke() -> Result<()> {
    let folder = env::temp_dir().join(format!("firebrick-smoke-{}", process::id()));
    let mut command = built("firebrick")?;
    command.args(["pipeline", "run", "rlhf", "--recipe", "smoke", "--check-bands", "--out"]).arg(&folder);
    run_command(&mut command).with_context(|| format!("the run is in {}", folder.display()))?;
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// The steps and their times; the last step is the failed one unless all `passed`.
fn table(times: &[(&str, Duration)], passed: bool) -> String {
    let mut text = String::from("step         seconds\n");
    for (index, (name, time)) in times.iter().enumerate() {
        let failed = !passed && index + 1 == times.len();
        let verdict = if failed { "FAILED" } else { "ok" };
        text += &format!("{name:<10} {:>9.1}  {verdict}\n", time.as_secs_f64());
    }
    let total = times.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>();
    text + &format!("{:<10} {total:>9.1}\n", "total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_marks_the_step_that_failed() {
        let times = [("format", Duration::from_millis(1500)), ("clippy", Duration::from_secs(60))];
        let expected =
            "step         seconds\nformat           1.5  ok\nclippy          60.0  FAILED\ntotal           61.5\n";
        assert_eq!(table(&times, false), expected);
        assert!(!table(&times, true).contains("FAILED"));
    }
}
