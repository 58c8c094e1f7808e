//! `cargo xtask test`: every test under one command.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::process;

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let rest = arguments.iter().copied().filter(|&argument| argument != "--no-nextest").collect::<Vec<_>>();
    let nextest = rest.len() == arguments.len() && nextest_is_installed();

    let (mut summary, mut failures) = (Vec::new(), Vec::new());
    for (what, arguments) in runs(nextest, &rest) {
        let started = Instant::now();
        let outcome = process::run(process::cargo().args(arguments));
        let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
        summary.push(format!("{what} {verdict} in {:.1} s", started.elapsed().as_secs_f64()));
        failures.extend(outcome.err());
    }
    eprintln!("test: {}", summary.join(", "));
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) => bail!(first),
    }
}

fn nextest_is_installed() -> bool {
    let probe = process::cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
}

/// The cargo commands of a test run, each with what it tests. One failure does not keep the other tests from running.
fn runs<'a>(nextest: bool, arguments: &[&'a str]) -> Vec<(&'static str, Vec<&'a str>)> {
    let names_packages = arguments.iter().any(|a| a.starts_with("-p") || a.starts_with("--package"));
    let scope: &[&str] = if names_packages { &[] } else { &["--workspace"] };
    if !nextest {
        let what = if arguments.is_empty() { "tests and doctests" } else { "chosen tests" };
        return vec![(what, [&["test", "--no-fail-fast"], scope, arguments].concat())];
    }
    let tests: Vec<&str> = [&["nextest", "run", "--no-fail-fast"], scope, arguments].concat();
    if arguments.is_empty() {
        vec![("tests", tests), ("doctests", vec!["test", "--no-fail-fast", "--workspace", "--doc"])]
    } else {
        vec![("chosen tests", tests)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(nextest: bool, arguments: &[&str], expected: &[&str]) {
        let lines = runs(nextest, arguments).into_iter().map(|(_, words)| words.join(" ")).collect::<Vec<_>>();
        assert_eq!(lines, expected);
    }

    #[test]
    fn without_arguments_everything_runs_doctests_too() {
        check(true, &[], &["nextest run --no-fail-fast --workspace", "test --no-fail-fast --workspace --doc"]);
        check(false, &[], &["test --no-fail-fast --workspace"]);
    }

    #[test]
    fn arguments_go_to_the_runner_and_packages_replace_the_workspace() {
        check(true, &["-p", "firebrick-rl", "gae"], &["nextest run --no-fail-fast -p firebrick-rl gae"]);
        check(true, &["gae"], &["nextest run --no-fail-fast --workspace gae"]);
        check(false, &["--package=xtask"], &["test --no-fail-fast --package=xtask"]);
    }
}
