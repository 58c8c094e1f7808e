//! `cargo xtask pipeline`: builds the `firebrick` command and becomes it.

use anyhow::Result;

use crate::process;

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    process::become_command(&mut firebrick(arguments))
}

/// `cargo run` of `firebrick pipeline`. Without `--quiet`: the first build takes minutes, and shows its progress.
fn firebrick(arguments: &[&str]) -> std::process::Command {
    let mut command = process::cargo();
    command.args(["run", "--package", "firebrick-cli", "--bin", "firebrick", "--", "pipeline"]).args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_passed_on() {
        let line = process::line(&firebrick(&["rlhf", "--plan", "--", "-x"]));
        assert!(line.ends_with("--bin firebrick -- pipeline rlhf --plan -- -x"), "{line}");
    }
}
