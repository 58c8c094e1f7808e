//! How the sides are asked: a line of JSON each way, over standard input and output.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use firebrick_types::TokenId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a side is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// What must agree; the gradients go into this file.
    Check {
        /// A safetensors file.
        gradients: PathBuf,
    },
    /// The seconds of so many steps.
    Run {
        /// How many.
        steps: usize,
    },
    /// The greatest memory that the process has held.
    Memory,
    /// The floating-point operations a second of a large product in f32.
    Peak,
}

/// What a side says when it is ready: names and versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// What runs, for the page.
    pub about: Vec<(String, String)>,
}

/// The answer to [`Request::Check`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Losses in nats, or other numbers that must agree.
    pub losses: Vec<f64>,
    /// Tokens that were chosen greedily.
    pub tokens: Vec<Vec<TokenId>>,
}

/// The answer to [`Request::Run`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Of each step.
    pub seconds: Vec<f64>,
}

/// The answer to [`Request::Memory`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The most that the process has held in memory.
    pub bytes: u64,
}

/// The answer to [`Request::Peak`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// Floating-point operations a second.
    pub flops: f64,
}

/// A process that measures one cell in one setting.
#[derive(Debug)]
pub struct Side {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Where its standard error goes.
    log: PathBuf,
    /// What it said of itself.
    pub ready: Ready,
}

impl Side {
    /// Starts a process and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot start, or says that it cannot do this.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let errors = std::fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let input = child.stdin.take().expect("it is a pipe");
        let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut side = Self { child, input, output, log: log.to_owned(), ready: Ready::default() };
        side.ready = side.answer()?;
        Ok(side)
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// If the side fails, or ends.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        let line = serde_json::to_string(request).expect("requests can be written as JSON");
        writeln!(self.input, "{line}").and_then(|()| self.input.flush()).context("the other process has ended")?;
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read from the other process")?;
        if line.is_empty() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            bail!("the process ended: {last} ({})", self.log.display());
        }
        parse(&line)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// An answer, or the error that stands in its place.
///
/// # Errors
/// If the line is an error, or not the answer that was expected.
pub fn parse<T: DeserializeOwned>(line: &str) -> Result<T> {
    #[derive(Deserialize)]
    struct Failure {
        error: String,
    }
    if let Ok(Failure { error }) = serde_json::from_str(line) {
        bail!("{error}");
    }
    serde_json::from_str(line).with_context(|| format!("unexpected answer `{}`", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_takes_the_place_of_any_answer() {
        assert_eq!(parse::<Times>(r#"{"seconds": [0.5]}"#).unwrap().seconds, [0.5]);
        assert_eq!(parse::<Times>(r#"{"error": "no compiler"}"#).unwrap_err().to_string(), "no compiler");
        assert!(parse::<Times>("{}\n").unwrap_err().to_string().contains("unexpected answer `{}`"));
    }

    #[test]
    fn requests_name_their_command() {
        let json = serde_json::to_string(&Request::Run { steps: 3 }).unwrap();
        assert_eq!(json, r#"{"command":"run","steps":3}"#);
    }

    #[test]
    fn a_process_that_ends_is_an_error_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'no such module' >&2; exit 1"]);
        let error = Side::start(command, &dir.path().join("log")).unwrap_err().to_string();
        assert!(error.contains("no such module"), "{error}");
    }
}
