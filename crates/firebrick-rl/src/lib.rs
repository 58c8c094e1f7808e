#![doc = include_str!("../README.md")]

mod advantage;
mod loss;
#[cfg(feature = "train")]
pub mod ppo;
mod reward;

pub use advantage::gae;
pub use loss::{PolicyLoss, ValueLoss, policy_loss, value_loss};
pub use reward::shaped_rewards;
