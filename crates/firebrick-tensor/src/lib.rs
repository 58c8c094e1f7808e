#![doc = include_str!("../README.md")]

mod batch;
mod log_probs;
pub mod masked;
mod named;
mod parameters;
mod scores;
pub mod segment;
mod traits;
mod workers;

pub use batch::{Mask, ResponseBatch, TokenBatch};
pub use firebrick_kernels::token_log_probs;
pub use log_probs::{entropy, k1, k2, k3, kl, log_softmax, softmax};
pub use named::{ParameterMapper, ParameterVisitor, map_parameters, visit_parameters};
pub use parameters::{Parameters, ParametersError};
pub use scores::scores;
pub use traits::{CausalLm, Feed, Incremental, ScoringLm, SequenceScorer, TokenValues, indices};
pub use workers::Workers;

/// Panics with the name and both shapes unless the tensor has this shape.
#[macro_export]
macro_rules! assert_shape {
    ($tensor:expr, $shape:expr) => {
        assert_eq!($tensor.dims(), $shape, "shape of `{}`", stringify!($tensor))
    };
}
