//! What the measurements are made on.

use std::path::Path;
use std::process::Command;
use std::time::Instant;
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::spread::Spread;

/// What the page says of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Its cores that may be used.
    pub cores: usize,
    /// The widest instructions for numbers in f32 and bf16 that it has.
    pub instructions: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let value = |key: &str| {
            let line = info.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim())
        };
        let flags = value("flags").split(' ').collect::<Vec<_>>();
        let known = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"].into_iter().filter(|name| flags.contains(name));
        let family = ["cpu family", "model\t", "stepping"].map(value).join("/");
        Self {
            processor: format!("{} ({family})", value("model name")),
            cores: thread::available_parallelism().map_or(1, usize::from),
            instructions: known.collect::<Vec<_>>().join(", "),
        }
    }
}

/// Processes that wait for a core, the mean of the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// What a program prints, without the end of the line; empty where it does not run.
pub fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    output.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A command that runs on so many cores, where the system can bind it.
///
/// # Errors
/// If there are fewer cores.
pub fn bound(program: &Path, threads: usize) -> Result<Command> {
    let Some(allowed) = allowed_cores() else { return Ok(Command::new(program)) };
    if allowed.len() < threads {
        bail!("there are {} cores for {threads} threads", allowed.len());
    }
    let list = allowed[..threads].iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new("taskset");
    command.args(["-c", &list]).arg(program);
    Ok(command)
}

/// The cores that this process may use; none where the system does not tell.
pub fn allowed_cores() -> Option<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(cores)
}

/// The numbers in a list such as `0-2,5`.
fn cores(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// What a program weighs and how soon it answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Without symbols.
    pub bytes: u64,
    /// From the start to the end of `--help`, in seconds.
    pub help: Spread,
}

impl Program {
    /// Measures a program; a copy without symbols is left in the folder.
    ///
    /// # Errors
    /// If it does not run, or `strip` does not.
    pub fn measure(program: &Path, folder: &Path) -> Result<Self> {
        let copy = folder.join("stripped");
        let strip = Command::new("strip").arg("-o").arg(&copy).arg(program).status().context("cannot start `strip`")?;
        if !strip.success() {
            bail!("`strip` ended with {strip}");
        }
        let mut seconds = Vec::new();
        for _ in 0..21 {
            let start = Instant::now();
            let output = Command::new(&copy).arg("--help").output().context("cannot start the program")?;
            seconds.push(start.elapsed().as_secs_f64());
            if !output.status.success() {
                bail!("`{} --help` ended with {}", program.display(), output.status);
            }
        }
        let bytes = fs::metadata(&copy).context("cannot see the stripped program")?.len();
        Ok(Self { bytes, help: Spread::of(&seconds[1..]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_hold_ranges() {
        assert_eq!(cores("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(cores("3"), [3]);
    }

    #[test]
    fn more_threads_than_cores_are_refused() {
        let error = bound(Path::new("true"), 100_000).unwrap_err().to_string();
        assert!(error.ends_with("cores for 100000 threads"), "{error}");
    }
}
