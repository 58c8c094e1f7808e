//! Greedy continuations.

use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::Device;
use firebrick_kernels::Precision;
use firebrick_models::{Decoder, open_decoder};
use firebrick_sampling::{Sampler, Stop, generate};
use firebrick_tensor::{Incremental, TokenBatch, Workers};
use firebrick_train::lm;
use firebrick_types::{Seed, TokenId};

use super::train::timed;
use super::{Bench, Checked};
use crate::cell::{Job, Task};

/// Prompts are divided among threads, or all are one batch whose operations are.
pub(super) struct Generate {
    model: Decoder,
    prompts: Vec<Vec<TokenId>>,
    stop: Stop,
    together: usize,
}

impl Generate {
    pub(super) fn open(job: &Job, dir: &Path, together: usize, precision: Precision) -> Result<Self> {
        let Task::Generate { prompts, new_tokens } = &job.task else { bail!("the job holds no prompts") };
        let (model, _) = open_decoder(&dir.join("model"), &Device::flex())?;
        let model = model.in_precision(precision).prepacked();
        let stop = Stop { max_tokens: *new_tokens, ..Stop::default() };
        Ok(Self { model, prompts: prompts.clone(), stop, together })
    }

    fn continuations(&self) -> Vec<Vec<TokenId>> {
        let chunks = self.prompts.chunks(self.together).map(|prompts| (self.model.clone(), prompts)).collect();
        let samples = Workers::default().map(chunks, |(model, prompts): (Decoder, &[Vec<TokenId>])| {
            generate(&model, prompts, &vec![Seed::new(0); prompts.len()], &Sampler::greedy(), &self.stop)
        });
        samples.into_iter().flatten().map(|sample| sample.tokens).collect()
    }
}

impl Bench for Generate {
    fn check(&mut self) -> Checked {
        let loss = lm::token_losses(&self.model, &TokenBatch::of(&self.prompts, &Device::flex())).mean();
        let losses = vec![f64::from(loss.into_scalar::<f32>())];
        Checked { losses, tokens: self.continuations(), ..Checked::default() }
    }

    fn run(&mut self, steps: usize) -> Vec<f64> {
        timed(steps, || _ = self.continuations())
    }
}
