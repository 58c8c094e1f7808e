//! Iterations of PPO, by the loop that users call.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use burn::tensor::Device;
use firebrick_kernels::Precision;
use firebrick_models::{Decoder, ScoredDecoder, open_decoder, open_scored};
use firebrick_rl::ppo::{PpoConfig, train};
use firebrick_rl::{Prompt, RewardModel};
use firebrick_tensor::{SequenceScorer, TokenBatch, TokenValues, Workers};
use firebrick_text::ResponseFormat;
use firebrick_train::{Event, Loss, Observer, ObserverError, Run, gradients_of, lm};
use firebrick_types::{Seed, TokenId};

use super::train::named;
use super::{Bench, Checked};
use crate::cell::{Job, Task};

pub(super) struct Ppo {
    policy: Decoder,
    critic: ScoredDecoder,
    scorer: ScoredDecoder,
    prompts: Vec<Vec<TokenId>>,
    format: ResponseFormat,
    config: PpoConfig,
}

impl Ppo {
    pub(super) fn open(job: &Job, dir: &Path, micro_batch: usize, precision: Precision) -> Result<Self> {
        let Task::Ppo { prompts, ppo, eoc } = &job.task else { bail!("the job holds no PPO") };
        let learning = Device::flex().autodiff();
        Ok(Self {
            policy: open_decoder(&dir.join("model"), &learning)?.0.in_precision(precision),
            critic: open_scored(&dir.join("critic"), &learning)?.0.in_precision(precision),
            scorer: open_scored(&dir.join("scorer"), &Device::flex())?.0.in_precision(precision),
            prompts: prompts.clone(),
            format: ResponseFormat::ending_with(*eoc),
            config: PpoConfig { micro_batch_size: micro_batch, ..*ppo },
        })
    }
}

impl Bench for Ppo {
    /// Samples cannot agree, so the models are compared on the prompts: the policy's loss and gradient, values and scores.
    fn check(&mut self) -> Checked {
        let batch = TokenBatch::of(&self.prompts, &self.policy.device());
        let loss = |policy: &Decoder, (): &()| Loss::new(lm::token_losses(policy, &batch).mean(), 0);
        let (gradients, values, _) = gradients_of(&self.policy, vec![()], &Workers::default(), loss);
        let squares = self.critic.values(&batch).square().mean().into_scalar::<f32>();
        let plain = TokenBatch::of(&self.prompts, &Device::flex());
        let scores = self.scorer.scores(&plain).square().mean().into_scalar::<f32>();
        let losses = vec![values[0].1, f64::from(squares), f64::from(scores)];
        Checked { losses, gradients: named(&self.policy, &gradients), tokens: Vec::new() }
    }

    fn run(&mut self, steps: usize) -> Vec<f64> {
        let mut clock = Clock { last: Instant::now(), seconds: Vec::new() };
        let config = PpoConfig { iterations: steps, ..self.config };
        let (policy, critic) = (self.policy.clone(), self.critic.clone());
        let run = Run::new(Seed::new(13)).observer(&mut clock);
        let (scorer, format, micro_batch_size) = (&self.scorer, &self.format, config.micro_batch_size);
        let reward = RewardModel { scorer, format, micro_batch_size, workers: run.workers };
        let prompts = self.prompts.iter().map(|tokens| Prompt::new("", tokens.clone())).collect::<Vec<_>>();
        let trained = train(policy, critic, &reward, &prompts, format, &config, run);
        trained.expect("the losses of a small learning rate are finite");
        clock.seconds
    }
}

/// The time between the ends of steps.
struct Clock {
    last: Instant,
    seconds: Vec<f64>,
}

impl Observer for Clock {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        let now = Instant::now();
        if let Event::Step { .. } = event {
            self.seconds.push((now - self.last).as_secs_f64());
        }
        self.last = now;
        Ok(())
    }
}
