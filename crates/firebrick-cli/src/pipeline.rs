//! `firebrick pipeline …`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use firebrick_data::hub;
use firebrick_pipeline::{Event, Options, Pipeline, read_record};
use firebrick_stages::bands::Bands;
use firebrick_stages::pipelines::{self, Entry};
use firebrick_stages::{Env, Speed};
use indicatif::{ProgressBar, ProgressStyle};

use crate::device::On;
use crate::log::{self, Voice};
use crate::progress::Progress;
use crate::say::{remark, say};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Name the pipelines and their recipes.
    List,
    /// Run a pipeline; what is finished is skipped, what was interrupted goes on.
    #[command(after_help = EXAMPLES)]
    Run(Box<Run>),
    /// Print the bands of metrics that finished runs of one recipe with different seeds give.
    Bands {
        /// The folders of the runs.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
    },
}

const EXAMPLES: &str = "Examples:
  firebrick pipeline run rlhf                                  the built-in world
  firebrick pipeline run rlhf --recipe tiny --data ../data         comparisons, questions and text from a folder
  firebrick pipeline run rlhf --data hub:Anthropic/hh-rlhf         from the Hugging Face Hub
  firebrick pipeline run vision --data hub:ylecun/mnist          the same of pictures
  firebrick pipeline run rlhf --plan --set ppo.kl_coefficient=0.01 what would be run
  firebrick pipeline run rlhf --rebuild ppo                        make a stage again, and what depends on it
  firebrick pipeline run vision                                  built-in pictures
  firebrick pipeline run vision --data ../mnist                  pictures from a folder of IDX files";

#[derive(Args)]
pub(crate) struct Run {
    /// Which pipeline: rlhf or vision.
    pipeline: String,
    /// A built-in recipe or a .toml file; default: of rlhf world, or tiny with --data; of vision glyphs, or mnist with --data.
    #[arg(long)]
    recipe: Option<String>,
    /// Lay one number over the recipe, for instance ppo.iterations=10; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A folder of data, or hub:OWNER/NAME for a dataset of the Hugging Face Hub; default: the built-in world.
    #[arg(long, value_name = "DIR|hub:REPO")]
    data: Option<String>,
    #[command(flatten)]
    on: On,
    /// Where the run lives; default: runs/PIPELINE-RECIPE.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Stop after this stage.
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// Make this stage again, and what depends on it; may be repeated.
    #[arg(long, value_name = "STAGE")]
    rebuild: Vec<String>,
    /// Show the stages and the numbers, and run nothing.
    #[arg(long)]
    plan: bool,
    /// Hold the results against the expected band of every metric; outside is a failure.
    #[arg(long)]
    check_bands: bool,
    /// Seconds between checkpoints.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    checkpoint_every: f64,
    /// Say nothing but errors and where the report is.
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,
    /// Say every step's metrics.
    #[arg(long, short)]
    verbose: bool,
}

/// # Errors
/// If the command cannot be carried out.
pub(crate) fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::List => {
            for entry in pipelines::ALL {
                say(format_args!("{}  {}", entry.name, entry.about));
                say(format_args!("    recipes: {}", names(entry.built_in)));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(run) => execute_run(&run),
        Command::Bands { runs } => {
            say(Bands::of(&runs)?.to_toml().trim_end());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The names of recipes, for a sentence.
fn names(recipes: &[(&str, &str)]) -> String {
    recipes.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn execute_run(run: &Run) -> Result<ExitCode> {
    let Some(entry) = pipelines::named(&run.pipeline) else {
        let names = pipelines::ALL.iter().map(|entry| entry.name).collect::<Vec<_>>().join(" and ");
        bail!("no pipeline `{}`; there are {names} (see `firebrick pipeline list`)", run.pipeline)
    };
    // The recipe's name: the one that was asked for, or what is usual with or without data.
    let name = run.recipe.as_deref().unwrap_or(entry.usual[usize::from(run.data.is_some())]);
    let recipe = entry.load(name, &run.set)?;
    let (out, env) = (run.place(name), run.env(entry.data)?);
    let pipeline = recipe.pipeline(&env)?;
    if run.plan {
        say(pipeline.plan(&out, &env)?.to_string().trim_end());
        say(format_args!("\n{}", [recipe.derived().join("\n"), recipe.to_toml()?].join("\n\n").trim()));
        return Ok(ExitCode::SUCCESS);
    }
    let _log = log::to_file(&out.join("run.log.jsonl"))?;
    let Some(stages) = run.carry_out(&pipeline, &out, &env)? else { return Ok(ExitCode::SUCCESS) };
    run.conclude(entry, name, &out, &stages)
}

impl Run {
    /// Where the run lives.
    fn place(&self, recipe: &str) -> PathBuf {
        let stem = Path::new(recipe).file_stem().unwrap_or_default().to_string_lossy();
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("{}-{stem}", self.pipeline)))
    }

    /// How much is said.
    pub(crate) fn voice(&self) -> Voice {
        match (self.quiet, self.verbose) {
            (true, _) => Voice::Quiet,
            (_, true) => Voice::Verbose,
            _ => Voice::Normal,
        }
    }

    fn env(&self, wanted: hub::Wanted) -> Result<Env> {
        let voice = self.voice();
        let mut env = Env::new(self.on.device.clone()).display(move |stage| Box::new(Progress::new(stage, voice)));
        env.data = self.data.as_deref().map(|data| folder(data, wanted, voice)).transpose()?;
        env.checkpoint_every = Duration::from_secs_f64(self.checkpoint_every.max(0.0));
        Ok(env)
    }

    /// Runs the stages; their names once the last of them is done, none if the run stops before.
    fn carry_out(&self, pipeline: &Pipeline<Env>, out: &Path, env: &Env) -> Result<Option<Vec<String>>> {
        let versions = [("firebrick", env!("CARGO_PKG_VERSION")), ("burn", "0.22.1")];
        let options = Options {
            until: self.until.clone(),
            rebuild: self.rebuild.clone(),
            versions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        };
        let mut stages = Vec::new();
        pipeline.run(out, env, &options, &mut |event| {
            if let Event::Planned(plan) = event {
                stages = plan.stages.iter().map(|stage| stage.name.clone()).collect();
            }
            tell(&event, self.voice());
        })?;
        Ok(self.until.as_deref().is_none_or(|stage| stage == "report").then_some(stages))
    }

    /// Tells the results and where the report is, and holds the metrics against the recipe's bands if that was asked for.
    fn conclude(&self, entry: &Entry, recipe: &str, out: &Path, stages: &[String]) -> Result<ExitCode> {
        let results = entry.results(out)?;
        if !self.quiet {
            say(format_args!("\n{}\n{}", results.summary, times(out, stages)?));
        }
        say(format_args!("report: {}", stage_folder(out, "report")?.join("artifact/report.html").display()));
        if self.check_bands {
            let text = entry.bands.iter().find(|(known, _)| *known == recipe).map(|(_, text)| *text);
            let text = text.with_context(|| match entry.bands {
                [] => format!("pipeline `{}` has no bands", entry.name),
                known => format!("recipe `{recipe}` has no bands; they exist for {}", names(known)),
            })?;
            let (table, within) = Bands::parse(text)?.check(&results.metrics);
            say(format_args!("\n{table}"));
            if !within {
                remark("error: a metric lies outside its band");
                return Ok(ExitCode::FAILURE);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The folder of data that an argument means, downloaded if need be.
fn folder(data: &str, wanted: hub::Wanted, voice: Voice) -> Result<PathBuf> {
    let Some(repo) = data.strip_prefix("hub:") else {
        if !Path::new(data).is_dir() {
            bail!("--data {data}: there is no such folder; give a folder of data, or hub:OWNER/NAME");
        }
        return Ok(PathBuf::from(data));
    };
    let bar = if voice > Voice::Quiet { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("  {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}")?;
    bar.set_style(style);
    let dir = hub::dataset(repo, wanted, &hub::Hub::from_env(), |file, done, total| {
        bar.set_message(file.to_owned());
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(dir)
}

fn stage_folder(out: &Path, stage: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(out)?;
    let found = entries.filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split_once('-'))
            .is_some_and(|(_, name)| name == stage)
    });
    found.ok_or_else(|| anyhow::anyhow!("{}: there is no stage `{stage}`", out.display()))
}

/// What every stage took, and how fast it went.
fn times(out: &Path, stages: &[String]) -> Result<String> {
    let mut lines = vec![format!("{:12} {:>9}", "stage", "seconds")];
    let mut total = 0.0;
    for stage in stages {
        let seconds = read_record(out, stage)?.wall_seconds;
        total += seconds;
        let speed = Speed::read(&stage_folder(out, stage)?.join("work"));
        let speed = speed.map_or(String::new(), |speed| format!("  {:.0} {}/s", speed.rate(), speed.unit));
        lines.push(format!("{stage:12} {seconds:>9.1}{speed}"));
    }
    lines.push(format!("{:12} {total:>9.1}", "all"));
    Ok(lines.join("\n"))
}

fn tell(event: &Event<'_>, voice: Voice) {
    if voice == Voice::Quiet {
        return;
    }
    match event {
        Event::Skipped { index, total, name } => {
            say(format_args!("[{index}/{total}] {name}: finished before, skipped"))
        }
        Event::Started { index, total, name, resumed } => {
            let resumed = if *resumed { ": goes on where it was interrupted" } else { "" };
            say(format_args!("[{index}/{total}] {name}{resumed}"));
        }
        Event::Finished { index, total, name, wall, digest } => {
            say(format_args!("[{index}/{total}] {name}: {:.1} s, {}", wall.as_secs_f64(), &digest[..12]));
        }
        _ => {}
    }
}
