//! What a model is asked, each question a function.

mod complete;
mod detect;
mod explain;
mod impute;
mod overlap;
mod separate;
mod uncover;

pub use complete::{CompleteConfig, complete};
pub use detect::{DetectConfig, Detection, detect};
pub use explain::{MapEstimate, most_probable_explanation};
pub use impute::{Imputation, ImputeConfig, impute};
pub use overlap::overlapping_labels;
pub use separate::separate;
pub use uncover::{UncoverConfig, Visibility, uncover, uncover_by_exemplars};
