//! The passes of a model: one backward, and down its energy.

mod descent;
#[cfg(test)]
mod exact;
mod sweep;

pub use descent::{Compose, Descent, Found, Instances, MapConfig};
pub use sweep::{Explanation, LayerPosterior, Reading, SweepConfig};
