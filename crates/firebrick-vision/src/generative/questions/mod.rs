//! What a model is asked, each question a function.

mod complete;
mod detect;
mod explain;
mod impute;
mod overlap;
mod separate;
mod uncover;

pub use complete::complete;
pub use detect::{DetectConfig, Detection, detect};
pub use explain::{Found, most_probable_explanation};
pub use impute::{ImputeConfig, Imputed, impute};
pub use overlap::overlapping_labels;
pub use separate::separate;
pub use uncover::{UncoverConfig, Uncovered, uncover, uncover_by_exemplars};
