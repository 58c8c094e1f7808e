//! `firebrick chat …`

use std::io::{BufRead, IsTerminal, stdin};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use firebrick_models::checkpoint::Pretrained;
use firebrick_serve::{Engine, Job, Limits, Piece, Update};
use firebrick_text::Renderer;
use firebrick_types::{Dialogue, Message, Seed};

use crate::generate::{Settings, Way, of_answers, show};
use crate::say::{remark, say};

pub(crate) const EXAMPLES: &str = "Examples:
  firebrick chat model.gguf
  firebrick chat runs/rlhf-world/09-ppo --temperature 0.7 --seed 7
  firebrick chat model.gguf --system 'You answer in one sentence.'
  echo 'What is the capital of France?' | firebrick chat model.gguf
Each line is a message. /reset begins a new conversation, /quit or Ctrl-D ends. What is not set is as the checkpoint's generation
settings say; where they say nothing, temperature 0.7 and top-p 0.9.";

#[derive(Args)]
pub(crate) struct Chat {
    /// A folder of transformers, a stage of a pipeline's run, a .gguf file, or hub:OWNER/NAME.
    model: String,
    /// A message of the system before the conversation.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    way: Way,
}

/// # Errors
/// If the command cannot be carried out.
pub(crate) fn execute(command: &Chat) -> Result<ExitCode> {
    let Pretrained { name, model, config, renderer, generation } = command.way.open(&command.model)?;
    let generation = of_answers(generation);
    let sampler = command.settings.sampler(&generation)?;
    let seed = Seed::new(command.settings.seed());
    let mut stops = command.settings.stop.clone();
    stops.extend(renderer.template().stops().iter().map(|&stop| stop.to_owned()));
    let context = config.context;
    let device = model.device();
    let engine = Engine::start(model, device, renderer.tokenizer().clone(), Limits { slots: 1, context, queue: 1 });
    let terminal = stdin().is_terminal();
    if terminal {
        remark(format_args!("{name}: /reset begins a new conversation, /quit or Ctrl-D ends"));
    }
    let begun = opening(command.system.as_deref(), &renderer)?;
    let mut dialogue = begun.clone();
    let mut turns = 0;
    let mut lines = stdin().lock().lines();
    loop {
        if terminal {
            show("> ").context("cannot write to the terminal")?;
        }
        let Some(line) = lines.next() else { break };
        let line = line.context("cannot read a line of text in UTF-8")?;
        match line.trim() {
            "" => continue,
            "/quit" => break,
            "/reset" => {
                dialogue.clone_from(&begun);
                continue;
            }
            command if command.starts_with('/') && !command.contains(' ') && terminal => {
                remark(format_args!("`{command}` is no command; there are /reset and /quit"));
                continue;
            }
            said => dialogue.messages.push(Message::human(said)),
        }
        let prompt = renderer.prompt(&dialogue)?;
        if prompt.len() >= context {
            let told = format!(
                "the conversation has {} tokens, and the context of {context} must hold an answer too",
                prompt.len()
            );
            if !terminal {
                bail!("{told}; say less, or begin a new one with a line /reset");
            }
            remark(format_args!("{told}; the message was dropped: say less, or begin a new one with /reset"));
            dialogue.messages.pop();
            continue;
        }
        let job = Job {
            prompts: vec![prompt],
            samples: 1,
            seed: seed.at(&[turns]),
            sampler: sampler.clone(),
            ends: renderer.turn_ends().tokens(),
            stops: stops.clone(),
            max_tokens: command.settings.max_tokens,
            top_log_probs: 0,
            score_prompts: false,
        };
        turns += 1;
        let Some(answer) = answer(&engine, job)? else { break };
        dialogue.messages.push(Message::assistant(answer));
    }
    Ok(ExitCode::SUCCESS)
}

/// A conversation in which nothing was said yet.
///
/// # Errors
/// If the template has no place for what the system says.
fn opening(system: Option<&str>, renderer: &Renderer) -> Result<Dialogue> {
    let Some(system) = system else { return Ok(Dialogue::default()) };
    let opening = Dialogue::new(vec![Message::system(system)]);
    renderer
        .prompt(&opening.with(Message::human("Hello.")))
        .context("--system: this model takes no message of the system; leave it out")?;
    Ok(opening)
}

/// Shows an answer while it grows; nothing where nobody reads it any more.
///
/// # Errors
/// If the model fails.
fn answer(engine: &Engine, job: Job) -> Result<Option<String>> {
    let mut updates = engine.submit(job)?;
    let mut answer = String::new();
    while let Some(update) = updates.wait() {
        let Update::Piece { piece: Piece { text, .. }, .. } = update else { continue };
        // Many models begin with a space.
        let text = if answer.is_empty() { text.trim_start() } else { &text };
        answer.push_str(text);
        if show(text).is_err() {
            return Ok(None);
        }
    }
    if updates.failed() {
        bail!("the model failed while it answered; its weights may be damaged");
    }
    say("");
    Ok(Some(answer))
}
