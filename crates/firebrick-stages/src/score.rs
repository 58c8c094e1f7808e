//! Scores of one's own rows by one's own reward model.

use std::path::Path;

use anyhow::{Context, Result};
use firebrick_data::layout::Layout;
use firebrick_data::{comparisons, conversations};
use firebrick_models::ScoredDecoder;
use firebrick_models::checkpoint::Text;
use firebrick_tensor::{Workers, scores};
use firebrick_text::Renderer;
use firebrick_types::{Example, TokenId};
use serde::Serialize;

use crate::Env;
use crate::error::BadInput;
use crate::judge::Judged;
use crate::language::Base;
use crate::measurements::Measurements;
use crate::recipe::JudgeRecipe;

/// A reward model with how it reads.
pub struct Scorer {
    model: ScoredDecoder,
    renderer: Renderer,
    recipe: JudgeRecipe,
    workers: Workers,
}

/// The scores of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Score {
    /// Of a comparison.
    Pair {
        /// The preferred response's.
        chosen: f64,
        /// The other one's.
        rejected: f64,
    },
    /// Of a conversation or a text.
    One {
        /// Its score.
        score: f64,
    },
}

impl Scorer {
    /// The reward model of a folder, or of `hub:OWNER/NAME`.
    ///
    /// # Errors
    /// If there is none, or it brings no tokenizer.
    pub fn open(source: &str, env: &Env, recipe: JudgeRecipe) -> Result<Self> {
        let base = Base::reward_model("--model", source)?;
        let (model, config) = base.checkpoint().reward_model(&env.device)?;
        let text = base.checkpoint().text(config.vocab)?;
        let Text { renderer, .. } =
            text.with_context(|| format!("{source} brings no tokenizer; put its tokenizer.json beside it"))?;
        Ok(Self { model, renderer, recipe, workers: env.workers })
    }

    /// The scores of the rows of a file, in their order; of comparisons also what they say of the reward model.
    ///
    /// # Errors
    /// If the file cannot be read, or holds nothing that has a score.
    pub fn score(&self, data: &Path) -> Result<(Vec<Score>, Option<Measurements>)> {
        match Layout::of(data)? {
            Layout::Comparisons => {
                let (rows, hygiene) = comparisons::read(data, &data.file_name().unwrap_or_default().to_string_lossy())?;
                let judged = Judged::of(&self.model, &rows, &rows, &self.renderer, &self.recipe, self.workers)?;
                let pair = |&(chosen, rejected): &(f64, f64)| Score::Pair { chosen, rejected };
                let mut measurements = judged.measurements(&self.recipe)?;
                measurements.remarks.push(format!("rows: {hygiene}"));
                Ok((judged.scores.iter().map(pair).collect(), Some(measurements)))
            }
            Layout::Conversations | Layout::Text => {
                let (rows, _) = conversations::read(data, usize::MAX)?;
                let sequences = rows.iter().map(|row| self.sequence(row)).collect::<Result<Vec<_>>>()?;
                let found = scores(&self.model, &sequences, self.recipe.micro_batch_size, &self.workers);
                Ok((found.into_iter().map(|score| Score::One { score }).collect(), None))
            }
            layout => {
                let message =
                    format!("{}: it holds {layout}; a score is of comparisons, conversations or text", data.display());
                Err(BadInput::new(message).into())
            }
        }
    }

    /// A row as the reward model reads it, its end last.
    fn sequence(&self, row: &Example) -> Result<Vec<TokenId>> {
        Ok(match row {
            Example::Text(text) => self.renderer.scored_text(text)?,
            Example::Conversation(dialogue) => {
                let (last, before) = dialogue.messages.split_last().context("a conversation has a turn")?;
                let prompt = self.renderer.prompt(&firebrick_types::Dialogue::new(before.to_vec()))?;
                [prompt, self.renderer.response(&last.text)?, vec![self.renderer.end()]].concat()
            }
        })
    }
}
