//! `cargo xtask pipeline`: builds the `firebrick` command and becomes it.

use anyhow::{Result, bail};

use crate::process;

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut command = firebrick(&command_line(arguments)?);
    process::become_command(&mut command)
}

/// `cargo run` of the `firebrick` command. Without `--quiet`: the first build takes minutes, and shows its progress.
fn firebrick(arguments: &[&str]) -> std::process::Command {
    let mut command = process::cargo();
    command.args(["run", "--package", "firebrick-cli", "--bin", "firebrick", "--"]).args(arguments);
    command
}

/// The arguments of `firebrick` for those of `cargo xtask pipeline`.
fn command_line<'a>(arguments: &[&'a str]) -> Result<Vec<&'a str>> {
    match arguments {
        [] => bail!("which pipeline? `cargo xtask pipeline list` names them"),
        [option, ..] if option.starts_with('-') => bail!("the pipeline's name comes first, before `{option}`"),
        ["list", rest @ ..] => Ok([&["pipeline", "list"], rest].concat()),
        [name, rest @ ..] => Ok([&["pipeline", "run", name], rest].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_runs_and_everything_after_it_is_passed_on() {
        assert_eq!(
            command_line(&["rlhf", "--plan", "--", "-x"]).unwrap(),
            ["pipeline", "run", "rlhf", "--plan", "--", "-x"]
        );
        assert_eq!(command_line(&["list"]).unwrap(), ["pipeline", "list"]);
    }

    #[test]
    fn a_missing_name_is_an_error() {
        assert!(command_line(&[]).is_err());
        assert!(command_line(&["--plan", "rlhf"]).unwrap_err().to_string().contains("--plan"));
    }
}
