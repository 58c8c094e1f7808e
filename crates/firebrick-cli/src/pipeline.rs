//! `firebrick pipeline …`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Subcommand, value_parser};
use firebrick_data::hub;
use firebrick_pipeline::{Event, Options, Pipeline, read_record};
use firebrick_stages::bands::Bands;
use firebrick_stages::pipelines::{self, Entry, Goes, Input};
use firebrick_stages::{BadInput, Env, Speed};
use indicatif::{ProgressBar, ProgressStyle};

use crate::device::On;
use crate::log::{self, Voice};
use crate::progress::Progress;
use crate::say::{remark, say};

/// `firebrick pipeline`: a command for every pipeline, with the options of its inputs.
pub(crate) enum Command {
    List,
    Bands { runs: Vec<PathBuf> },
    Run(Box<Run>),
}

/// How a pipeline is run.
pub(crate) struct Run {
    entry: &'static Entry,
    /// The inputs that are given, each with its values.
    given: Vec<(&'static Input, String)>,
    options: RunOptions,
}

#[derive(Args)]
struct RunOptions {
    /// A built-in recipe or a .toml file.
    #[arg(long)]
    recipe: Option<String>,
    /// Lay one number over the recipe, for instance seed=18; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    on: On,
    /// Where the run lives; default: runs/PIPELINE-RECIPE.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Take over the finished stages of another run that are the same.
    #[arg(long, value_name = "RUN")]
    from: Option<PathBuf>,
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

impl Subcommand for Command {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        // `run NAME` is `NAME`.
        let run = clap::Command::new("run").hide(true).about("Run a pipeline");
        let run =
            run.subcommand_required(true).arg_required_else_help(true).subcommands(pipelines::ALL.iter().map(one));
        let runs = Arg::new("runs").value_name("RUN").help("The folders of the runs").required(true).num_args(1..);
        let bands = clap::Command::new("bands").arg(runs.value_parser(value_parser!(PathBuf)));
        command
            .subcommands(pipelines::ALL.iter().map(one))
            .subcommand(clap::Command::new("list").about("Name the pipelines and their recipes"))
            .subcommand(
                bands.about("Print the bands of metrics that finished runs of one recipe with different seeds give"),
            )
            .subcommand(run)
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        ["list", "bands", "run"].contains(&name) || pipelines::named(name).is_some()
    }
}

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some(("list", _)) => Ok(Self::List),
            Some(("bands", matches)) => {
                let runs = matches.get_many("runs").into_iter().flatten();
                Ok(Self::Bands { runs: runs.cloned().collect() })
            }
            Some(("run", matches)) => Self::from_arg_matches(matches),
            Some((name, matches)) => {
                let entry = pipelines::named(name).expect("every other command is a pipeline's");
                let values = |input: &'static Input| {
                    let values = matches.get_many::<String>(input.name).into_iter().flatten();
                    values.map(move |value| (input, value.clone()))
                };
                let given = entry.inputs.iter().flat_map(values).collect();
                Ok(Self::Run(Box::new(Run { entry, given, options: RunOptions::from_arg_matches(matches)? })))
            }
            None => Err(clap::Error::new(ErrorKind::MissingSubcommand)),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The command of a pipeline.
fn one(entry: &Entry) -> clap::Command {
    let input = |input: &Input| {
        let action = if input.goes.is_many() { ArgAction::Append } else { ArgAction::Set };
        let required = input.required;
        Arg::new(input.name)
            .long(input.name)
            .value_name(input.value)
            .help(input.about)
            .required(required)
            .action(action)
    };
    let example = |(line, what): &(&str, &str)| format!("  # {what}\n  firebrick pipeline {line}\n");
    let examples = entry.examples.iter().map(example).collect::<String>();
    let command = clap::Command::new(entry.name).args(entry.inputs.iter().map(input));
    let recipes = names(entry.built_in);
    RunOptions::augment_args(command)
        .about(entry.about)
        .mut_arg("recipe", |recipe| recipe.help(format!("A built-in recipe ({recipes}) or a .toml file")))
        .after_help(format!("Examples:\n{}", examples.trim_end()))
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
    let Run { entry, given, options } = run;
    let names = given.iter().map(|(input, _)| input.name).collect::<Vec<_>>();
    let name = options.recipe.as_deref().unwrap_or_else(|| entry.usual(&names));
    let recipe = entry.load(name, &run.settings())?;
    let (out, env) = (run.place(name), run.env()?);
    let pipeline = recipe.pipeline(&env)?;
    if options.plan {
        say(pipeline.plan(&out, &env)?.to_string().trim_end());
        say(format_args!("\n{}", [recipe.derived()?.join("\n"), recipe.to_toml()?].join("\n\n").trim()));
        return Ok(ExitCode::SUCCESS);
    }
    let _log = log::to_file(&out.join("run.log.jsonl"))?;
    let Some(stages) = run.carry_out(&pipeline, &out, &env)? else { return Ok(ExitCode::SUCCESS) };
    run.conclude(name, &out, &stages)
}

impl Run {
    /// Where the run lives.
    fn place(&self, recipe: &str) -> PathBuf {
        let stem = Path::new(recipe).file_stem().unwrap_or_default().to_string_lossy();
        self.options.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("{}-{stem}", self.entry.name)))
    }

    /// How much is said.
    pub(crate) fn voice(&self) -> Voice {
        match (self.options.quiet, self.options.verbose) {
            (true, _) => Voice::Quiet,
            (_, true) => Voice::Verbose,
            _ => Voice::Normal,
        }
    }

    /// What is laid over the recipe: what its inputs say, then what was set.
    fn settings(&self) -> Vec<String> {
        let mut settings = Vec::new();
        for input in self.entry.inputs {
            let values = self.given.iter().filter(|(one, _)| one.name == input.name).map(|(_, value)| value);
            let mut values = values.map(|value| toml::Value::String(value.clone())).collect::<Vec<_>>();
            match input.goes {
                _ if values.is_empty() => {}
                Goes::Setting(key) => settings.push(format!("{key}={}", values.remove(0))),
                Goes::Settings(key) => settings.push(format!("{key}={}", toml::Value::Array(values))),
                Goes::Data(_) | Goes::File => {}
            }
        }
        settings.extend(self.options.set.iter().cloned());
        settings
    }

    fn env(&self) -> Result<Env> {
        let (voice, options) = (self.voice(), &self.options);
        let mut env = Env::new(options.on.device.clone()).display(move |stage| Box::new(Progress::new(stage, voice)));
        for (Input { name, goes, .. }, value) in &self.given {
            match goes {
                Goes::Data(wanted) => {
                    let place = data(name, value, *wanted, voice)?;
                    env = env.file(*name, place.clone()).data(place);
                }
                Goes::File => env = env.file(*name, there(name, value)?),
                Goes::Setting(_) | Goes::Settings(_) => {}
            }
        }
        env.checkpoint_every = Duration::from_secs_f64(options.checkpoint_every.max(0.0));
        Ok(env)
    }

    /// Runs the stages; their names once the last of them is done, none if the run stops before.
    fn carry_out(&self, pipeline: &Pipeline<Env>, out: &Path, env: &Env) -> Result<Option<Vec<String>>> {
        let versions = [("firebrick", env!("CARGO_PKG_VERSION")), ("burn", "0.22.1")];
        let options = Options {
            until: self.options.until.clone(),
            rebuild: self.options.rebuild.clone(),
            from: self.options.from.clone(),
            versions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        };
        let mut stages = Vec::new();
        pipeline.run(out, env, &options, &mut |event| {
            if let Event::Planned(plan) = event {
                stages = plan.stages.iter().map(|stage| stage.name.clone()).collect();
            }
            tell(&event, self.voice());
        })?;
        Ok(self.options.until.as_deref().is_none_or(|stage| stage == "report").then_some(stages))
    }

    /// Tells the results and where the report is, and holds the metrics against the recipe's bands if that was asked for.
    fn conclude(&self, recipe: &str, out: &Path, stages: &[String]) -> Result<ExitCode> {
        let entry = self.entry;
        let results = entry.results(out)?;
        if !self.options.quiet {
            say(format_args!("\n{}\n{}", results.summary, times(out, stages)?));
        }
        if let Some(made) = entry.made {
            say(format_args!("model: {}", pipelines::export(out, made)?.display()));
        }
        say(format_args!("report: {}", stage_folder(out, "report")?.join("artifact/report.html").display()));
        if self.options.check_bands {
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

/// The file or folder that an option names.
fn there(option: &str, path: &str) -> Result<PathBuf> {
    if !Path::new(path).exists() {
        return Err(BadInput::new(format!("--{option} {path}: there is no such file or folder")).into());
    }
    Ok(PathBuf::from(path))
}

/// The data that an option names, downloaded if need be.
fn data(option: &str, data: &str, wanted: hub::Wanted, voice: Voice) -> Result<PathBuf> {
    let Some(repo) = data.strip_prefix("hub:") else { return there(option, data) };
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
    let width = stages.iter().map(String::len).max().unwrap_or_default().max(12);
    let mut lines = vec![format!("{:width$} {:>9}", "stage", "seconds")];
    let mut total = 0.0;
    for stage in stages {
        let seconds = read_record(out, stage)?.wall_seconds;
        total += seconds;
        let speed = Speed::read(&stage_folder(out, stage)?.join("work"));
        let speed = speed.map_or(String::new(), |speed| format!("  {:.0} {}/s", speed.rate(), speed.unit));
        lines.push(format!("{stage:width$} {seconds:>9.1}{speed}"));
    }
    lines.push(format!("{:width$} {total:>9.1}", "all"));
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
        Event::TakenOver { index, total, name } => {
            say(format_args!("[{index}/{total}] {name}: finished in the other run, taken over"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_every_pipeline_are_commands() {
        let command = Command::augment_subcommands(clap::Command::new("pipeline"));
        for entry in pipelines::ALL {
            assert!(!entry.examples.is_empty(), "{}", entry.name);
            for (line, _) in entry.examples {
                let words = std::iter::once("pipeline").chain(line.split_whitespace());
                let matches =
                    command.clone().try_get_matches_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
                let Command::Run(run) = Command::from_arg_matches(&matches).expect("it matched") else {
                    panic!("{line}")
                };
                assert_eq!(run.entry.name, entry.name);
            }
        }
    }

    #[test]
    fn what_is_given_becomes_settings_and_what_is_set_counts_more() {
        let command = Command::augment_subcommands(clap::Command::new("pipeline"));
        let words = [
            "pipeline",
            "run",
            "evaluate",
            "--model",
            "3",
            "--compare",
            "a",
            "--compare",
            "b",
            "--data",
            "d",
            "--set",
            "seed=1",
        ];
        let matches = command.try_get_matches_from(words).expect("it is a command");
        let Command::Run(run) = Command::from_arg_matches(&matches).expect("it matched") else { panic!("a run") };
        assert_eq!(run.settings(), ["model=\"3\"", "compare=[\"a\", \"b\"]", "seed=1"]);
    }
}
