//! The losses of a pair, one function an equation.

mod direct;
mod ranked;

pub use direct::dpo_loss;
pub use ranked::{pair_accuracy, ranked_loss};
