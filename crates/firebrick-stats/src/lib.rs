#![doc = include_str!("../README.md")]

mod auroc;
mod calibration;
mod elo;
mod error;
mod estimators;
#[cfg(test)]
mod goldens;
mod interval;
mod normal;
mod regression;
mod sample;

pub use auroc::auroc;
pub use calibration::{
    CalibrationBin, brier_score, calibration_curve, calibration_slope, expected_calibration_error,
    preference_probability, top_label_calibration_error,
};
pub use elo::{ELO_PER_LOGIT, EloFit, EloRating, WinTable, elo_ratings, expected_score};
pub use error::Error;
pub use estimators::{acc_at_k, best_of_n_kl, pass_at_k};
pub use interval::{Interval, bootstrap_mean, bootstrap_mean_difference, bootstrap_weighted_mean, wilson};
pub use regression::{Line, least_squares_line, pearson};
