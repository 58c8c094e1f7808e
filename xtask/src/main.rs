//! The workspace's own commands; `cargo xtask help` lists them.
//!
//! Neither Burn nor a crate of the workspace is used here, so that this compiles in seconds.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks through its standard streams"
)]

use std::env;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};

mod bench;
mod ci;
mod ids;
mod markdown;
mod miri;
mod pipeline;
mod process;
mod test;
mod tidy;

const HELP: &str = "\
The workspace's own commands.

Usage: cargo xtask COMMAND [ARGUMENTS]

Commands:
  pipeline NAME [ARGUMENTS]   Build the `firebrick` command and run a pipeline; the arguments go to it
  pipeline list               List the pipelines
  test [ARGUMENTS]            Run every test, then the doctests; the arguments go to the test runner
  bench [FILTER]              Time kernels and a training step
  bench peers [OPTIONS]       Run the same work beside PyTorch; `bench --help` tells the options
  miri                        Run the matrix product's tests under Miri, which finds undefined behaviour
  ci                          Run all that CI runs, in its order, and stop at the first failure
  tidy                        Check what compilers do not: crate graph, headers, links, ids, duplicates, white space
  ids                         Write the book's page of ids from docs/ids.toml
  help                        Show this text

Options of `test`:
  --no-nextest                Use `cargo test` even where cargo-nextest is installed

With arguments, `test` leaves the doctests to `cargo test`; without `-p` it takes the whole workspace.

Examples:
  cargo xtask pipeline rlhf --recipe smoke --out runs/smoke
  cargo xtask pipeline rlhf --plan
  cargo xtask test
  cargo xtask test -p firebrick-rl gae
  cargo xtask ci
";

fn main() -> ExitCode {
    match arguments().and_then(|arguments| dispatch(&arguments.iter().map(String::as_str).collect::<Vec<_>>())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Vec<String>> {
    let text = |argument: std::ffi::OsString| argument.into_string().map_err(|raw| anyhow!("{raw:?} is not Unicode"));
    env::args_os().skip(1).map(text).collect()
}

fn dispatch(arguments: &[&str]) -> Result<()> {
    match arguments {
        []
        | ["help" | "--help" | "-h", ..]
        | ["pipeline" | "test" | "miri" | "ci" | "tidy" | "ids", "--help" | "-h", ..] => {
            print!("{HELP}");
            Ok(())
        }
        ["pipeline", rest @ ..] => pipeline::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["test", rest @ ..] => test::run(rest),
        ["miri"] => miri::run(),
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["ids"] => ids::run(),
        [command @ ("miri" | "ci" | "tidy" | "ids"), argument, ..] => {
            bail!("`{command}` takes no arguments, but was given `{argument}`")
        }
        [command, ..] => bail!("there is no command `{command}`; `cargo xtask help` lists them"),
    }
}
