#![doc = include_str!("../README.md")]

mod chat;
mod data;
mod device;
mod generate;
mod infer;
mod log;
mod model;
mod picture;
mod pipeline;
mod progress;
mod say;
mod score;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::say::remark;

/// Align models: train, compare, measure and understand them without a cluster.
#[derive(Parser)]
#[command(name = "firebrick", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline from raw data to its report.
    #[command(subcommand)]
    Pipeline(pipeline::Command),
    /// Look at a checkpoint, convert it, or score text with it.
    #[command(subcommand)]
    Model(model::Command),
    /// Look at one's own data, find what is wrong with it, or convert it.
    #[command(subcommand)]
    Data(data::Command),
    /// Score comparisons, conversations or text with a reward model.
    #[command(after_help = score::EXAMPLES)]
    Score(score::Score),
    /// Continue a text with a checkpoint.
    #[command(after_help = generate::EXAMPLES)]
    Generate(generate::Generate),
    /// Talk with a checkpoint in the terminal.
    #[command(after_help = chat::EXAMPLES)]
    Chat(chat::Chat),
    /// Serve a checkpoint over HTTP as OpenAI does.
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Serve),
    /// Ask a generative model of a classifier's activations about a picture.
    #[command(subcommand)]
    Infer(infer::Command),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    log::show(match &command {
        Command::Pipeline(pipeline::Command::Run(run)) => run.voice(),
        _ => log::Voice::Normal,
    });
    firebrick_kernels::keep_freed_memory();
    if matches!(command, Command::Pipeline(_)) {
        // Micro-batches keep the cores busy: operations that split themselves as well would wait for each other.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
        pool.build_global().expect("no other pool was made before");
    }
    let done = match command {
        Command::Pipeline(command) => pipeline::execute(command),
        Command::Model(command) => model::execute(command),
        Command::Data(command) => data::execute(&command),
        Command::Score(command) => score::execute(&command),
        Command::Generate(command) => generate::execute(&command),
        Command::Chat(command) => chat::execute(&command),
        Command::Serve(command) => serve::execute(command),
        Command::Infer(command) => infer::execute(&command),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            remark(format_args!("error: {error}"));
            for cause in error.chain().skip(1) {
                // Many errors already quote what caused them.
                if !error.to_string().contains(&cause.to_string()) {
                    remark(format_args!("  because: {cause}"));
                }
            }
            // 1 is for what failed although it could have worked.
            if is_bad_input(&error) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether something that was given cannot work: an argument, a recipe, a model or a file of data.
fn is_bad_input(error: &anyhow::Error) -> bool {
    fn is_among(cause: &(dyn std::error::Error + 'static)) -> bool {
        // An error of the run itself keeps what went wrong in a stage to itself.
        if let Some(firebrick_pipeline::Error::Stage { error, .. }) = cause.downcast_ref() {
            return std::iter::successors(Some(&**error as &(dyn std::error::Error + 'static)), |one| one.source())
                .any(is_among);
        }
        cause.is::<firebrick_stages::BadInput>()
            || cause.is::<firebrick_data::Error>()
            || cause.is::<firebrick_models::Error>()
            || cause.is::<firebrick_text::Error>()
            || matches!(
                cause.downcast_ref(),
                Some(
                    firebrick_pipeline::Error::OtherPipeline { .. }
                        | firebrick_pipeline::Error::Changed { .. }
                        | firebrick_pipeline::Error::UnknownStage { .. }
                        | firebrick_pipeline::Error::NoRun { .. }
                )
            )
    }
    error.chain().any(is_among)
}
