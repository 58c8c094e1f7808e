#![doc = include_str!("../README.md")]

mod advantage;
#[cfg(feature = "train")]
mod error;
mod loss;
#[cfg(feature = "train")]
pub mod ppo;
#[cfg(feature = "train")]
mod prompt;
#[cfg(feature = "train")]
mod reward;
#[cfg(feature = "train")]
mod rollout;
mod shaping;

pub use advantage::gae;
#[cfg(feature = "train")]
pub use error::Error;
pub use firebrick_tensor::Mask;
pub use loss::{PolicyLoss, ValueLoss, policy_loss, value_loss};
#[cfg(feature = "train")]
pub use prompt::Prompt;
#[cfg(feature = "train")]
pub use reward::{Group, RenderedRewardModel, Response, Reward, RewardError, RewardModel};
#[cfg(feature = "train")]
pub use rollout::{Collection, Rollout, collect, judge};
pub use shaping::shaped_rewards;
