//! Our side as a process: reads requests, writes answers.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::{Device, Distribution, Tensor};
use firebrick_kernels::Precision;
use serde_json::{Value, json};

use crate::cell::Job;
use crate::protocol::{Answers, Memory, Peak, Ready, Request, Times};
use crate::work::{self, Bench, Checked, Cut};

/// Answers requests about the job of a folder until there are no more; the factors of its linear maps are rounded to this.
///
/// # Errors
/// If the job cannot be opened, or a request or an answer cannot be transferred.
pub fn serve(
    dir: &Path,
    threads: usize,
    cut: Cut,
    precision: Precision,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<()> {
    firebrick_kernels::keep_freed_memory();
    cut.prepare(threads)?;
    let mut bench = work::open(&Job::open(dir)?, dir, cut, precision)?;
    let version = env!("CARGO_PKG_VERSION");
    let mut say = move |answer: Value| writeln!(output, "{answer}").and_then(|()| output.flush());
    say(json!(Ready { about: vec![("Firebrick".into(), version.into())] }))?;
    for line in input.lines() {
        let request = serde_json::from_str(&line?).context("not a request")?;
        say(answer(bench.as_mut(), request)?)?;
    }
    Ok(())
}

fn answer(bench: &mut dyn Bench, request: Request) -> Result<Value> {
    Ok(match request {
        Request::Check { gradients: path } => {
            let Checked { losses, gradients, tokens } = bench.check();
            if gradients.count() > 0 {
                let bytes = gradients.to_bytes();
                std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            }
            json!(Answers { losses, tokens })
        }
        Request::Run { steps } => json!(Times { seconds: bench.run(steps) }),
        Request::Memory => json!(Memory { bytes: peak_memory()? }),
        Request::Peak => json!(Peak { flops: product_rate() }),
    })
}

/// The most memory that this process has held.
fn peak_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("peak memory is read from Linux alone")?;
    kibibytes(&status, "VmHWM:").map(|kibibytes| 1024 * kibibytes).context("the system does not tell peak memory")
}

/// The number after a key of `/proc/self/status`.
fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Floating-point operations a second of our own product of large matrices, the best of some.
fn product_rate() -> f64 {
    const SIZE: usize = 1536;
    let device = Device::flex();
    let matrix = || Tensor::<2>::random([SIZE, SIZE], Distribution::Default, &device);
    let (x, weight) = (matrix(), matrix());
    let seconds = |_| {
        let start = Instant::now();
        let product = firebrick_kernels::linear(x.clone(), weight.clone(), None);
        let seconds = start.elapsed().as_secs_f64();
        drop(product);
        seconds
    };
    2.0 * (SIZE as f64).powi(3) / (0..8).map(seconds).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_read_from_the_status_of_the_process() {
        assert_eq!(kibibytes("VmPeak:\t 7 kB\nVmHWM:\t   1234 kB\n", "VmHWM:"), Some(1234));
        assert_eq!(kibibytes("VmPeak:\t 7 kB\n", "VmHWM:"), None);
    }
}
