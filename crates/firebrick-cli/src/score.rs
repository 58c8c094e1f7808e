//! `firebrick score`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use firebrick_stages::Env;
use firebrick_stages::recipe::JudgeRecipe;
use firebrick_stages::score::Scorer;

use crate::device::On;
use crate::say::{remark, say};

pub(crate) const EXAMPLES: &str = "Examples:
  firebrick score --model runs/reward/model --data test.jsonl           comparisons: two scores a line, then accuracy beside length
  firebrick score --model runs/reward/model --data answers.jsonl        conversations: a score a line
  firebrick score --model hub:OWNER/REWARD-MODEL --data test.jsonl.gz   somebody else's, with one label
Scores are JSON, a row a line, in the order of the file; what they say of the model stands on standard error.";

#[derive(Args)]
pub(crate) struct Score {
    /// A reward model: a folder that `pipeline reward` or transformers wrote, or hub:OWNER/NAME.
    #[arg(long, value_name = "DIR|hub:REPO")]
    model: String,
    /// Comparisons, conversations or text.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Sequences computed at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    micro_batch_size: usize,
    #[command(flatten)]
    on: On,
}

/// # Errors
/// If the command cannot be carried out.
pub(crate) fn execute(score: &Score) -> Result<ExitCode> {
    let env = Env::new(score.on.device.clone());
    let micro_batch_size = score.micro_batch_size.max(1);
    let recipe = JudgeRecipe { micro_batch_size, confidence: 0.95, calibration_bins: 10 };
    let (scores, measurements) = Scorer::open(&score.model, &env, recipe)?.score(&score.data)?;
    for one in scores {
        say(serde_json::to_string(&one)?);
    }
    if let Some(measurements) = measurements {
        remark(measurements.summary());
    }
    Ok(ExitCode::SUCCESS)
}
