//! Runs both sides in turn and keeps what they took.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use anyhow::{Context, Result, bail};
use firebrick_kernels::Precision;
use serde::{Deserialize, Serialize};

use crate::agree::agreement;
use crate::cell::{CELLS, Cell, Job, Task};
use crate::machine::{Machine, Program, bound, load, says};
use crate::page;
use crate::protocol::{Answers, Memory, Peak, Request, Side, Times};
use crate::spread::Spread;
use crate::turns::{Round, Turns};
use crate::work::Cut;

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cells; none for all.
    pub cells: Vec<String>,
    /// Numbers of threads, each measured by itself.
    pub threads: Vec<usize>,
    /// How often each side runs.
    pub rounds: usize,
    /// Leaves out the other settings of PyTorch, and shortens the rounds.
    pub quick: bool,
    /// The interpreter that PyTorch is installed for.
    pub python: PathBuf,
    /// A GGUF file of SmolLM2-135M; none asks the interpreter for a package that holds it.
    pub gguf: Option<PathBuf>,
    /// The `firebrick` command, whose size and start are measured.
    pub program: Option<PathBuf>,
    /// Where jobs, logs and results are kept.
    pub folder: PathBuf,
    /// The page that is written.
    pub page: PathBuf,
}

/// Everything that was measured, in this run and in earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Where.
    pub machine: Machine,
    /// Names and versions.
    pub about: Vec<(String, String)>,
    /// Of the `firebrick` command.
    pub program: Option<Program>,
    /// In the order of the cells, then of the threads.
    pub rows: Vec<Row>,
}

/// A cell on so many threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The cell's name.
    pub cell: String,
    /// Threads of each side.
    pub threads: usize,
    /// The day, year first.
    pub date: String,
    /// The commit that was measured.
    pub commit: String,
    /// Processes that waited for a core before and after.
    pub load: [f64; 2],
    /// What came out.
    pub outcome: Outcome,
}

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Both sides ran.
    Measured(Box<Measured>),
    /// Why there are no numbers.
    Failed(String),
}

/// The numbers of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// How our work was cut.
    pub cut: String,
    /// Seconds a step, of each round.
    pub ours: Spread,
    /// The same of PyTorch.
    pub theirs: Spread,
    /// PyTorch's time over ours, round by round.
    pub ratio: Spread,
    /// PyTorch's work over ours, in seconds of processor, round by round.
    pub work_ratio: Spread,
    /// The share of the cores that others took meanwhile, at the most.
    pub taken: f64,
    /// Tokens of a step.
    pub tokens: usize,
    /// Floating-point operations of a step.
    pub operations: f64,
    /// Floating-point operations a second of the faster side's large product.
    pub peak: f64,
    /// The most memory that each side held, in bytes: ours, theirs.
    pub memory: [u64; 2],
    /// Whether something is learnt.
    pub trains: bool,
    /// How well the sides agreed.
    pub agreement: String,
    /// How many times as fast ours is in BF16 as in f32, where it is faster and other settings are measured against it.
    pub bf16: Option<Spread>,
    /// PyTorch in other settings.
    pub settings: Vec<Setting>,
}

/// PyTorch in another setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// What it is called.
    pub name: String,
    /// Its time over ours, and its seconds a step; or why there are none.
    pub outcome: std::result::Result<(Spread, Spread), String>,
}

/// Measures, and writes the page.
///
/// # Errors
/// If a cell is unknown, or nothing can be started or written. A cell that fails is told on the page instead.
pub fn run(options: &Options) -> Result<()> {
    let cells = chosen(&options.cells)?;
    fs::create_dir_all(&options.folder).with_context(|| format!("cannot create {}", options.folder.display()))?;
    let kept = options.folder.join("results.json");
    let known = fs::read(&kept).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let mut results: Results = known.unwrap_or_default();
    let bench = Bench { options, program: env::current_exe().context("cannot tell the path of this program")? };
    results.machine = Machine::here();
    if let Some(path) = &options.program {
        results.program = Some(Program::measure(path, &options.folder)?);
    }
    for cell in cells {
        let dir = options.folder.join("cells").join(cell.name);
        let job = (cell.plan)(bench.gguf(cell.name)?.as_deref()).and_then(|plan| Job::create(cell, plan, &dir));
        for &threads in &options.threads {
            say(format_args!("{} on {threads}", cell.name));
            let before = load();
            let outcome = match &job {
                Ok(job) => bench.measure(job, &dir, threads, &mut results),
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            let outcome = match outcome {
                Ok(measured) => Outcome::Measured(Box::new(measured)),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            };
            let row = Row {
                cell: cell.name.to_owned(),
                threads,
                date: says("date", &["-u", "+%F"]),
                commit: says("git", &["rev-parse", "--short", "HEAD"]),
                load: [before, load()],
                outcome,
            };
            say(format_args!("  {}", page::line(&row)));
            results.rows.retain(|known| (known.cell.as_str(), known.threads) != (cell.name, threads));
            results.rows.push(row);
            let place = |row: &Row| (CELLS.iter().position(|cell| cell.name == row.cell), row.threads);
            results.rows.sort_by_key(place);
            // After every row, so that an interrupted run loses none.
            keep(&results, &kept, &options.page)?;
        }
    }
    say(format_args!("wrote {}", options.page.display()));
    Ok(())
}

/// Writes the results, and the page that they make.
fn keep(results: &Results, kept: &Path, page: &Path) -> Result<()> {
    let json = serde_json::to_vec_pretty(results).expect("results can be written as JSON");
    fs::write(kept, json).with_context(|| format!("cannot write {}", kept.display()))?;
    if let Some(parent) = page.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(page, page::render(results)).with_context(|| format!("cannot write {}", page.display()))
}

/// The cells of these names, in the table's order; all where there are none.
fn chosen(names: &[String]) -> Result<Vec<&'static Cell>> {
    if let Some(unknown) = names.iter().find(|name| CELLS.iter().all(|cell| cell.name != name.as_str())) {
        bail!("there is no cell `{unknown}`; there are {}", CELLS.map(|cell| cell.name).join(", "));
    }
    Ok(CELLS.iter().filter(|cell| names.is_empty() || names.iter().any(|name| name == cell.name)).collect())
}

fn say(what: impl Display) {
    // Nobody is left to be told where standard error is closed.
    _ = writeln!(io::stderr(), "{what}");
}

struct Bench<'a> {
    options: &'a Options,
    program: PathBuf,
}

/// The eager f32 that every PyTorch user has.
const EAGER: &str = "eager";

impl Bench<'_> {
    /// The weights of the cells that need some.
    fn gguf(&self, cell: &str) -> Result<Option<PathBuf>> {
        if !cell.starts_with("smollm2") || self.options.gguf.is_some() {
            return Ok(self.options.gguf.clone());
        }
        let mut command = Command::new(&self.options.python);
        let output = command.arg(scripts().join("peers.py")).arg("--gguf").output().context("cannot start Python")?;
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((output.status.success() && !path.is_empty()).then(|| path.into()))
    }

    fn ours(&self, dir: &Path, threads: usize, cut: Cut, precision: Precision) -> Result<Side> {
        let mut command = bound(&self.program, threads)?;
        command.arg("serve").arg("--job").arg(dir);
        command.args(["--threads", &threads.to_string(), "--cut", &cut.to_string()]);
        if precision == Precision::Bf16 {
            command.arg("--bf16");
        }
        Side::start(command, &self.options.folder.join("ours.log"))
    }

    fn theirs(&self, dir: &Path, threads: usize, setting: &str) -> Result<Side> {
        let mut command = bound(&self.options.python, threads)?;
        command.arg(scripts().join("peers.py")).arg("--job").arg(dir);
        command.args(["--threads", &threads.to_string(), "--setting", setting]);
        command.env("OMP_NUM_THREADS", threads.to_string()).env("TOKENIZERS_PARALLELISM", "false");
        // Processes that compile beside would take the cores.
        command.env("TORCHINDUCTOR_COMPILE_THREADS", "1");
        Side::start(command, &self.options.folder.join(format!("{setting}.log")))
    }

    fn measure(&self, job: &Job, dir: &Path, threads: usize, results: &mut Results) -> Result<Measured> {
        let cut = self.best_cut(job, dir, threads, Precision::F32)?;
        say(format_args!("  our work is cut into {cut}"));
        let agreement = self.agreement(dir, threads, cut)?;
        say(format_args!("  agreed: {agreement}"));
        let (mut ours, mut theirs) = (self.ours(dir, threads, cut, Precision::F32)?, self.theirs(dir, threads, EAGER)?);
        for (name, version) in ours.ready.about.iter().chain(&theirs.ready.about) {
            results.about.retain(|(known, _)| known != name);
            results.about.push((name.clone(), version.clone()));
        }
        let turns = self.alternate(&mut ours, &mut theirs, threads, self.options.rounds)?;
        let memory: [Memory; 2] = [ours.ask(&Request::Memory)?, theirs.ask(&Request::Memory)?];
        let peaks: [Peak; 2] = [ours.ask(&Request::Peak)?, theirs.ask(&Request::Peak)?];
        drop(theirs);
        let mut settings = Vec::new();
        let mut best = None;
        if !self.options.quick {
            let of_rounded = self.best_cut(job, dir, threads, Precision::Bf16)?;
            best = self.rounded(&mut ours, dir, threads, of_rounded)?;
            if best.is_some() {
                ours = self.ours(dir, threads, of_rounded, Precision::Bf16)?;
                self.warm_up(&mut ours)?;
            }
        }
        let others = if self.options.quick { &[] } else { settings_of(job) };
        // Against ours in BF16 the eager one is another rival.
        let again = best.is_some().then_some(&EAGER);
        for &name in again.into_iter().chain(others) {
            if hopeless(&results.rows, name) {
                say(format_args!("  {name}: hopeless elsewhere, not tried"));
                continue;
            }
            let outcome = self.setting(&mut ours, dir, threads, name, &turns).map_err(|error| format!("{error:#}"));
            match &outcome {
                Ok((ratio, _)) => say(format_args!("  {name}: {:.2}", ratio.median)),
                Err(reason) => say(format_args!("  {name}: {reason}")),
            }
            settings.push(Setting { name: name.to_owned(), outcome });
        }
        Ok(Measured {
            cut: cut.to_string(),
            ours: turns.ours(),
            theirs: turns.theirs(),
            ratio: turns.ratio(),
            work_ratio: turns.work_ratio(),
            taken: turns.taken(),
            tokens: job.tokens(),
            operations: job.operations(),
            peak: peaks[0].flops.max(peaks[1].flops),
            memory: memory.map(|memory| memory.bytes),
            trains: job.trains(),
            agreement,
            bf16: best,
            settings,
        })
    }

    /// The way to cut our work that is fastest on this machine; of those that take hardly longer, the one that takes the least memory.
    fn best_cut(&self, job: &Job, dir: &Path, threads: usize, precision: Precision) -> Result<Cut> {
        /// A difference that the machine's own disturbances hide.
        const HARDLY: f64 = 1.05;
        const TURNS: usize = 5;
        let candidates = Cut::candidates(job.rows(), threads);
        if let [only] = candidates[..] {
            return Ok(only);
        }
        let mut tried = Vec::new();
        for cut in candidates {
            let mut side = self.ours(dir, threads, cut, precision)?;
            let steps = self.warm_up(&mut side)?.div_ceil(2);
            tried.push((cut, side, steps, Vec::new()));
        }
        for _ in 0..TURNS {
            for (_, side, steps, seconds) in &mut tried {
                seconds.push(Round::run(side, threads, *steps)?.seconds);
            }
        }
        let first = tried[0].3.clone();
        let mut told = Vec::new();
        for (cut, side, _, seconds) in &mut tried {
            // Turn by turn: what slows the machine for a while slows them all.
            let beside = seconds.iter().zip(&first).map(|(seconds, first)| seconds / first).collect::<Vec<_>>();
            told.push((*cut, Spread::of(&beside).median, side.ask::<Memory>(&Request::Memory)?.bytes));
        }
        let fastest = told.iter().map(|&(_, beside, _)| beside).fold(f64::INFINITY, f64::min);
        let close = told.into_iter().filter(|&(_, beside, _)| beside <= HARDLY * fastest);
        Ok(close.min_by_key(|&(_, _, bytes)| bytes).expect("the fastest is close").0)
    }

    /// How well the sides agree, in processes of their own, so that the check adds nothing to peak memory.
    fn agreement(&self, dir: &Path, threads: usize, cut: Cut) -> Result<String> {
        let paths = ["ours", "theirs"].map(|name| dir.join(format!("{name}.safetensors")));
        for path in &paths {
            if path.exists() {
                fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        let [ours, theirs] = paths.clone().map(|gradients| Request::Check { gradients });
        let ours: Answers = self.ours(dir, threads, cut, Precision::F32)?.ask(&ours)?;
        let theirs: Answers = self.theirs(dir, threads, EAGER)?.ask(&theirs)?;
        Ok(agreement(&ours, &theirs, [&paths[0], &paths[1]])?.to_string())
    }

    /// How many times as fast our work is with its factors rounded to BF16; none where it is not faster, or learns something else.
    fn rounded(&self, ours: &mut Side, dir: &Path, threads: usize, cut: Cut) -> Result<Option<Spread>> {
        /// What eight bits of a number may change of a loss.
        const NEAR: f64 = 0.02;
        let check = |precision| -> Result<Answers> {
            self.ours(dir, threads, cut, precision)?.ask(&Request::Check { gradients: dir.join("rounded.safetensors") })
        };
        let [exact, near] = [check(Precision::F32)?, check(Precision::Bf16)?];
        if let Some((a, b)) = exact.losses.iter().zip(&near.losses).find(|(a, b)| (*a - *b).abs() > NEAR * a.abs()) {
            say(format_args!("  ours in bf16: a loss of {a} becomes {b}, not taken"));
            return Ok(None);
        }
        let mut half = self.ours(dir, threads, cut, Precision::Bf16)?;
        // What takes less time stands where ours does.
        let gain = self.alternate(&mut half, ours, threads, self.options.rounds.min(5))?.ratio();
        say(format_args!("  ours in bf16, cut into {cut}: {:.2} times as fast as in f32", gain.median));
        Ok((gain.median > 1.0).then_some(gain))
    }

    /// Steps of a round, after some that do not count.
    fn warm_up(&self, side: &mut Side) -> Result<usize> {
        let round = if self.options.quick { 0.5 } else { 1.0 };
        let times: Times = side.ask(&Request::Run { steps: 2 })?;
        let last = times.seconds.last().copied().unwrap_or(round);
        Ok(((round / last).ceil() as usize).clamp(1, 200))
    }

    /// Both sides in rounds that take turns.
    fn alternate(&self, ours: &mut Side, theirs: &mut Side, threads: usize, rounds: usize) -> Result<Turns> {
        let steps = [self.warm_up(ours)?, self.warm_up(theirs)?];
        Turns::take(rounds, || Ok([Round::run(ours, threads, steps[0])?, Round::run(theirs, threads, steps[1])?]))
    }

    /// Another setting's time over ours, and its seconds a step.
    fn setting(
        &self,
        ours: &mut Side,
        dir: &Path,
        threads: usize,
        name: &str,
        eager: &Turns,
    ) -> Result<(Spread, Spread)> {
        let mut theirs = self.theirs(dir, threads, name)?;
        // What is compiled is compiled in the first steps.
        let first: Times = theirs.ask(&Request::Run { steps: 2 })?;
        if let Some(&step) = first.seconds.last().filter(|step| **step > HOPELESS * eager.theirs().median) {
            return Ok((Spread::of(&[step / eager.ours().median]), Spread::of(&[step])));
        }
        let turns = self.alternate(ours, &mut theirs, threads, self.options.rounds.min(5))?;
        Ok((turns.ratio(), turns.theirs()))
    }
}

/// A setting that takes so many times as long as the eager one is no rival: one step tells enough.
const HOPELESS: f64 = 4.0;

/// Whether a setting was no rival in one of these rows.
fn hopeless(rows: &[Row], setting: &str) -> bool {
    rows.iter().any(|row| {
        let Outcome::Measured(measured) = &row.outcome else { return false };
        let known = measured.settings.iter().filter(|known| known.name == setting);
        let mut times = known.filter_map(|known| known.outcome.as_ref().ok());
        times.any(|(_, seconds)| seconds.median > HOPELESS * measured.theirs.median)
    })
}

/// The other settings of PyTorch.
fn settings_of(job: &Job) -> &'static [&'static str] {
    match job.task {
        Task::Lm { .. } | Task::Pairs { .. } => &["compile", "bf16", "bf16-compile"],
        Task::Ppo { .. } => &["bf16", "loop"],
        Task::Images { .. } => &["compile", "bf16", "channels-last"],
        Task::Generate { .. } => &["bf16", "compile", "loop", "bf16-loop", "compile-loop"],
    }
}

/// Where PyTorch's side lies.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_chosen_by_name_in_the_tables_order() {
        let names = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            chosen(&names).map(|cells| cells.iter().map(|cell| cell.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["pm", "lm-small"]).unwrap(), ["lm-small", "pm"]);
        assert_eq!(names(&[]).unwrap().len(), CELLS.len());
        assert!(names(&["lm"]).unwrap_err().to_string().starts_with("there is no cell `lm`; there are lm-small, "));
    }
}
