//! A reward of one's own: a closure that reads text. A policy that babbles is paid for every `o` that it writes, and learns to write little else.
//!
//! `cargo run -p firebrick-examples --example reward`
#![allow(clippy::print_stdout)]

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use firebrick_models::{Architecture, DecoderConfig};
use firebrick_rl::ppo::{self, PpoConfig};
use firebrick_rl::{Collection, Group, Prompt, RewardError, Rollout, collect};
use firebrick_tensor::Workers;
use firebrick_text::{Renderer, Tokenizer};
use firebrick_train::{AdamWConfig, Run, Schedule};
use firebrick_types::Seed;

fn main() -> Result<()> {
    let (seed, workers) = (Seed::new(17), Workers::default());
    let renderer = Renderer::dialogues(Tokenizer::train(["o to go so no on do", "a cat sat at a mat"], 280)?);
    let (format, vocab) = (renderer.response_format(), renderer.tokenizer().vocab_size());
    let architecture = Architecture::gpt();
    let shape = DecoderConfig { vocab, context: 24, n_layer: 1, d_model: 32, heads: 2, d_ff: 64, architecture };
    let device = Device::flex().autodiff();
    let (policy, critic) = (shape.init(seed, &device), shape.init_scored(seed, &device).with_zero_head());
    let prompts = ["a", "go"].map(|text| Prompt::new(text, renderer.text(text).expect("it holds no added token")));

    let paid = |text: &str| text.matches('o').count() as f64;
    let reward = move |groups: &[Group<'_>]| -> Result<Vec<f64>, RewardError> {
        Ok(groups.iter().flat_map(|group| &group.responses).map(|response| paid(response.text)).collect())
    };
    let config = PpoConfig {
        iterations: 60,
        prompts_per_iteration: 16,
        samples_per_prompt: 4,
        sequences_per_update: 32,
        micro_batch_size: 16,
        passes: 2,
        max_response_tokens: 8,
        temperature: 1.0,
        kl_coefficient: 0.01,
        gamma: 1.0,
        lambda: 0.95,
        policy_clip: 0.2,
        value_clip: 10.0,
        policy_learning_rate: 5e-3,
        value_learning_rate: 5e-3,
        schedule: Schedule::Constant,
        clip_norm: 1.0,
        adamw: AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() },
    };
    let sampling = Collection { samples_per_prompt: 64, max_response_tokens: 8, temperature: 1.0 };
    let mean = |rollouts: Vec<Rollout>| rollouts.iter().map(|one| paid(&one.text)).sum::<f64>() / rollouts.len() as f64;
    let before = mean(collect(&policy.valid(), &prompts, 0..2, &format, &sampling, seed, &workers));
    let (policy, _) = ppo::train(policy, critic, &reward, &prompts, &format, &config, Run::new(seed))?;
    let after = mean(collect(&policy.valid(), &prompts, 0..2, &format, &sampling, seed, &workers));
    println!("`o`s in a response: {before:.2} before, {after:.2} after");
    assert!(after > before + 2.0, "the reward was not learnt");
    Ok(())
}
