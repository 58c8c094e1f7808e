#![doc = include_str!("../README.md")]

#[cfg(feature = "data")]
pub use firebrick_data as data;
#[cfg(feature = "eval")]
pub use firebrick_eval as eval;
#[cfg(feature = "kernels")]
pub use firebrick_kernels as kernels;
#[cfg(feature = "models")]
pub use firebrick_models as models;
#[cfg(feature = "pipeline")]
pub use firebrick_pipeline as pipeline;
#[cfg(feature = "preference")]
pub use firebrick_preference as preference;
#[cfg(feature = "report")]
pub use firebrick_report as report;
#[cfg(feature = "rl")]
pub use firebrick_rl as rl;
#[cfg(feature = "sampling")]
pub use firebrick_sampling as sampling;
#[cfg(feature = "stages")]
pub use firebrick_stages as stages;
#[cfg(feature = "stats")]
pub use firebrick_stats as stats;
#[cfg(feature = "tensor")]
pub use firebrick_tensor as tensor;
#[cfg(feature = "text")]
pub use firebrick_text as text;
#[cfg(feature = "train")]
pub use firebrick_train as train;
pub use firebrick_types as types;
#[cfg(feature = "vision")]
pub use firebrick_vision as vision;
#[cfg(feature = "world")]
pub use firebrick_world as world;
