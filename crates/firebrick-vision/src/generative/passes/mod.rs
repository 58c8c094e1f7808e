//! The passes of a model: up, one sweep up and down again, and down its energy.

mod descent;
#[cfg(test)]
mod exact;
mod sweep;
mod upward;

pub(super) use descent::descend_from;
pub use descent::{Composition, Descent, Instances, MapConfig, descend};
pub use sweep::{Explanation, LayerPosterior, SweepConfig, sweep};
pub(super) use sweep::{TopDown, bottom_up, bottom_up_of, hidden_share, top_down};
pub use upward::upward;
pub(crate) use upward::upward_from;
