//! Our side of a cell: checked once, then run for so many steps.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use firebrick_kernels::Precision;
use firebrick_tensor::Parameters;
use firebrick_types::TokenId;

use crate::cell::{Job, Task};

mod generate;
mod ppo;
mod train;

/// What a side computes before it is timed.
#[derive(Debug, Default)]
pub struct Checked {
    /// Losses in nats, or other numbers that must agree.
    pub losses: Vec<f64>,
    /// The gradient of the first loss, parameter by parameter; none where nothing is learnt.
    pub gradients: Parameters,
    /// The tokens that were chosen greedily.
    pub tokens: Vec<Vec<TokenId>>,
}

/// A cell that is ready to run.
pub trait Bench {
    /// What must agree with the other side; it may leave the models changed.
    fn check(&mut self) -> Checked;

    /// The seconds of each of so many steps.
    fn run(&mut self, steps: usize) -> Vec<f64>;
}

/// How the work is cut for the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Micro-batches of so many rows, each on one thread.
    Rows(usize),
    /// All rows at once; every operation uses all threads.
    Inside,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "rows:{rows}"),
            Self::Inside => write!(f, "inside"),
        }
    }
}

impl FromStr for Cut {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "inside" => Ok(Self::Inside),
            Some(("rows", rows)) => Ok(Self::Rows(rows.parse().with_context(|| format!("`{rows}` is no number"))?)),
            _ => bail!("`{text}` is no way to cut; `inside` or `rows:N`"),
        }
    }
}

impl Cut {
    /// Those worth trying for so many rows on so many threads.
    pub fn candidates(rows: usize, threads: usize) -> Vec<Self> {
        let each = rows.div_ceil(threads);
        let mut sizes = std::iter::successors(Some(each), |size| (*size > 1).then(|| size.div_ceil(2)));
        let mut found = sizes.by_ref().take(4).map(Self::Rows).collect::<Vec<_>>();
        if threads > 1 {
            found.push(Self::Inside);
        }
        found
    }

    /// Rows of a micro-batch.
    fn micro_batch(self, rows: usize) -> usize {
        match self {
            Self::Rows(each) => each.clamp(1, rows.max(1)),
            Self::Inside => rows,
        }
    }

    /// Sets what the operations themselves may use; once in a process.
    ///
    /// # Errors
    /// If it was set before.
    pub fn prepare(self, threads: usize) -> Result<()> {
        let inside = if self == Self::Inside { threads } else { 1 };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(inside);
        pool.build_global().context("the threads were set before")
    }
}

/// The job of a folder, ready to run, with the factors of linear maps rounded to this.
///
/// # Errors
/// If a model cannot be read.
pub fn open(job: &Job, dir: &Path, cut: Cut, precision: Precision) -> Result<Box<dyn Bench>> {
    let micro_batch = cut.micro_batch(job.rows());
    Ok(match &job.task {
        Task::Lm { .. } => train::lm(job, dir, micro_batch, precision)?,
        Task::Pairs { .. } => train::pairs(job, dir, micro_batch, precision)?,
        Task::Ppo { .. } => Box::new(ppo::Ppo::open(job, dir, micro_batch, precision)?),
        Task::Images { .. } => train::images(job, dir, micro_batch, precision)?,
        Task::Generate { .. } => Box::new(generate::Generate::open(job, dir, micro_batch, precision)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_read_as_it_is_written() {
        for cut in [Cut::Inside, Cut::Rows(3)] {
            assert_eq!(cut.to_string().parse::<Cut>().unwrap(), cut);
        }
        assert!("rows:x".parse::<Cut>().is_err() && "columns:2".parse::<Cut>().is_err());
    }

    #[test]
    fn rows_are_divided_among_the_threads_and_halved_from_there() {
        let rows = |sizes: &[usize]| sizes.iter().map(|&size| Cut::Rows(size)).collect::<Vec<_>>();
        assert_eq!(Cut::candidates(8, 1), rows(&[8, 4, 2, 1]));
        assert_eq!(Cut::candidates(8, 2), [rows(&[4, 2, 1]), vec![Cut::Inside]].concat());
        assert_eq!(Cut::candidates(1, 1), rows(&[1]));
        assert_eq!(Cut::candidates(1, 2), [Cut::Rows(1), Cut::Inside]);
    }
}
