//! Learning rates over samples.

use serde::{Deserialize, Serialize};

/// The factor on a learning rate after a number of samples.
///
/// Schedules count samples, never optimiser steps, so they do not depend on batch size or passes (T-20). Every length is in
/// samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Always 1.
    #[default]
    Constant,
    /// Linear from 0 to 1 over `warmup`, then half a cosine down to `floor` at `total` (GPT-3's).
    Cosine {
        /// Samples to reach 1.
        warmup: u64,
        /// Samples to reach the floor.
        total: u64,
        /// The last factor.
        floor: f64,
    },
    /// Linear from 0 to 1 over `warmup`, then linear to 0 at `total` (A-07 without warm-up).
    Linear {
        /// Samples to reach 1.
        warmup: u64,
        /// Samples to reach 0.
        total: u64,
    },
    /// Linear from 0 to 1 over `warmup`, then 1 (B-26's robustness runs).
    Warmup {
        /// Samples to reach 1.
        warmup: u64,
    },
    /// Halved after every `every` samples (B-26's online runs).
    Halving {
        /// Samples between halvings.
        every: u64,
    },
}

impl Schedule {
    /// The factor for the samples that follow the first `samples`.
    pub fn factor(&self, samples: u64) -> f64 {
        let ramp = |warmup: u64| if warmup == 0 { 1.0 } else { ((samples + 1) as f64 / warmup as f64).min(1.0) };
        let decay = |warmup: u64, total: u64| {
            let length = total.saturating_sub(warmup).max(1);
            (samples.saturating_sub(warmup) as f64 / length as f64).min(1.0)
        };
        match *self {
            Self::Constant => 1.0,
            Self::Cosine { warmup, total, floor } => {
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * decay(warmup, total)).cos());
                ramp(warmup) * (floor + (1.0 - floor) * cosine)
            }
            Self::Linear { warmup, total } => ramp(warmup) * (1.0 - decay(warmup, total)),
            Self::Warmup { warmup } => ramp(warmup),
            Self::Halving { every } => 0.5_f64.powi((samples / every.max(1)) as i32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_by_hand() {
        let schedule = Schedule::Cosine { warmup: 10, total: 110, floor: 0.1 };
        assert!((schedule.factor(4) - 0.5).abs() < 1e-12); // half way up the ramp
        assert!((schedule.factor(10) - 1.0).abs() < 1e-12);
        assert!((schedule.factor(60) - 0.55).abs() < 1e-12); // 0.1 + 0.9 · ½
        assert!((schedule.factor(1000) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn linear_halving_and_warmup_by_hand() {
        assert!((Schedule::Linear { warmup: 0, total: 100 }.factor(25) - 0.75).abs() < 1e-12);
        assert!((Schedule::Halving { every: 100 }.factor(250) - 0.25).abs() < 1e-12);
        assert!((Schedule::Warmup { warmup: 4 }.factor(1) - 0.5).abs() < 1e-12);
        assert_eq!(Schedule::Constant.factor(7), 1.0);
    }

    /// The factor is a function of samples alone: two ways to cut 120 samples into steps meet at every common count.
    #[test]
    fn t20_schedules_count_samples_not_steps() {
        let schedule = Schedule::Cosine { warmup: 24, total: 120, floor: 0.1 };
        let by =
            |batch: u64| (0..120 / batch).map(|step| (step * batch, schedule.factor(step * batch))).collect::<Vec<_>>();
        let fine = by(4);
        assert!(by(12).iter().all(|point| fine.contains(point)));
    }
}
