//! What a model is asked.

mod detect;
mod impute;
mod separate;
mod uncover;

pub use detect::{DetectConfig, Detection};
pub use impute::{ImputeConfig, Imputed};
pub use uncover::{UncoverConfig, Uncovered};
