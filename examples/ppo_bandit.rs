//! PPO on a bandit whose best policy is known in closed form.
//!
//! There is one prompt, and an answer is one token: one of a few actions `a` with fixed rewards `r`. PPO maximises
//! `E[r] − β KL(π ‖ π₀)`, which is largest at `π*(a) ∝ π₀(a) exp(r(a) / β)`. The loop is the one that trains language
//! models; the models are tables, which implement no more than what the loop asks of them.
//!
//! `cargo run -p firebrick-examples --example ppo_bandit`
#![allow(clippy::print_stdout)]

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use firebrick_rl::ppo::{PpoConfig, train};
use firebrick_rl::{Error, Group, Prompt, RewardError};
use firebrick_tensor::{CausalLm, Feed, Incremental, TokenBatch, TokenValues, softmax};
use firebrick_text::ResponseFormat;
use firebrick_train::{AdamWConfig, Run, Schedule};
use firebrick_types::{Seed, TokenId};

const ACTIONS: usize = 6;
/// π₀, the policy before training.
const INITIAL: [f32; ACTIONS] = [0.40, 0.25, 0.15, 0.10, 0.07, 0.03];
const REWARDS: [f32; ACTIONS] = [0.0, 0.5, 1.0, 0.2, 1.5, 2.0];
/// β, in reward per nat.
const KL_COEFFICIENT: f32 = 0.5;
/// Stands before an answer and after it; the tokens below it are the actions.
const END_OF_CONTEXT: TokenId = ACTIONS as TokenId;

/// A language model with the same next-token distribution whatever it has read.
#[derive(Module, Debug)]
struct Policy {
    logits: Param<Tensor<1>>,
}

impl Policy {
    /// One copy of the logits for each row, `[rows, vocab]`.
    fn next_token(&self, rows: usize) -> Tensor<2> {
        self.logits.val().reshape([1, ACTIONS]).expand([rows, ACTIONS])
    }
}

impl CausalLm for Policy {
    fn logits(&self, batch: &TokenBatch) -> Tensor<2> {
        self.next_token(batch.tokens())
    }

    fn vocab(&self) -> usize {
        ACTIONS
    }

    fn context(&self) -> usize {
        3 // the prompt, an action, the end of context
    }
}

impl Incremental for Policy {
    // It remembers nothing of what it reads.
    type Cache = ();

    fn cache(&self, _slots: usize, _capacity: usize) {}

    fn extend(&self, _cache: &mut (), feeds: &[Feed<'_>]) -> Tensor<2> {
        self.next_token(feeds.len())
    }

    fn forget(&self, _cache: &mut (), _slot: usize) {}

    fn copy(&self, _cache: &mut (), _from: usize, _to: usize) {}
}

/// A critic that expects the same reward everywhere.
#[derive(Module, Debug)]
struct Critic {
    value: Param<Tensor<1>>,
}

impl TokenValues for Critic {
    fn values(&self, batch: &TokenBatch) -> Tensor<1> {
        self.value.val().expand([batch.tokens()])
    }
}

/// Looks the rewards of the actions up.
fn reward(groups: &[Group<'_>]) -> Result<Vec<f64>, RewardError> {
    let actions = groups.iter().flat_map(|group| &group.responses).map(|response| response.tokens[0] as usize);
    Ok(actions.map(|action| f64::from(REWARDS[action])).collect())
}

/// Half the sum of the absolute differences: 0 for equal distributions, 1 for disjoint ones.
fn total_variation(p: &[f32], q: &[f32]) -> f32 {
    0.5 * p.iter().zip(q).map(|(p, q)| (p - q).abs()).sum::<f32>()
}

fn main() -> Result<(), Error> {
    let device = Device::flex();
    let training = device.clone().autodiff();
    let policy = Policy { logits: Param::from_tensor(Tensor::from_floats(INITIAL.map(f32::ln), &training)) };
    let critic = Critic { value: Param::from_tensor(Tensor::zeros([1], &training)) };
    let format = ResponseFormat::ending_with(END_OF_CONTEXT);
    let config = PpoConfig {
        iterations: 100,
        prompts_per_iteration: 1,
        samples_per_prompt: 256,
        sequences_per_update: 64,
        micro_batch_size: 32,
        passes: 2,
        max_response_tokens: 1,
        temperature: 1.0,
        kl_coefficient: f64::from(KL_COEFFICIENT),
        gamma: 1.0,
        lambda: 1.0,
        policy_clip: 0.2,
        value_clip: 0.2,
        policy_learning_rate: 0.05,
        value_learning_rate: 0.05,
        schedule: Schedule::Linear { warmup: 0, total: 100 * 256 },
        clip_norm: 1.0,
        adamw: AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() },
    };
    let prompts = [Prompt::new("the only one", vec![0])];
    let (policy, _) = train(policy, critic, &reward, &prompts, &format, &config, Run::new(Seed::new(17)))?;

    let learnt = softmax(policy.valid().logits.val()).into_data().try_to_vec::<f32>().expect("tensors are f32");
    let weights: [f32; ACTIONS] = std::array::from_fn(|a| INITIAL[a] * (REWARDS[a] / KL_COEFFICIENT).exp());
    let best = weights.map(|weight| weight / weights.iter().sum::<f32>());
    println!("action  reward     π₀     π*    PPO");
    for a in 0..ACTIONS {
        println!("{a:6}  {:6.1}  {:.3}  {:.3}  {:.3}", REWARDS[a], INITIAL[a], best[a], learnt[a]);
    }
    println!("distance from π* in total variation, 0 to 1:");
    let (before, after) = (total_variation(&INITIAL, &best), total_variation(&learnt, &best));
    println!("before {before:.3}, after {after:.3}");
    assert!(after < 0.1 * before, "PPO ends far from the best policy");
    Ok(())
}
