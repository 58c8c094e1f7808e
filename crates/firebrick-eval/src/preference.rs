//! How often the chosen answer is found.

use serde::{Deserialize, Serialize};

/// 1 for each pair whose chosen member scores higher, ½ for a tie, 0 otherwise; their mean is the accuracy.
pub fn accuracy(scores: &[(f64, f64)]) -> Vec<f64> {
    let right = |&(chosen, rejected): &(f64, f64)| {
        if chosen > rejected {
            1.0
        } else if chosen == rejected {
            0.5
        } else {
            0.0
        }
    };
    scores.iter().map(right).collect()
}

/// The baseline that looks at length alone: what a preference model must beat to have learnt more (T-33).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthBaseline {
    /// Whether the longer answer was preferred more often in training.
    pub prefers_longer: bool,
}

impl LengthBaseline {
    /// The better of "longer" and "shorter" on training pairs, given as lengths of the chosen and the rejected answer.
    pub fn fit(pairs: &[(usize, usize)]) -> Self {
        let longer = pairs.iter().filter(|(chosen, rejected)| chosen > rejected).count();
        let shorter = pairs.iter().filter(|(chosen, rejected)| chosen < rejected).count();
        Self { prefers_longer: longer >= shorter }
    }

    /// [`accuracy`] of the baseline on pairs of lengths.
    pub fn outcomes(&self, pairs: &[(usize, usize)]) -> Vec<f64> {
        let sign = if self.prefers_longer { 1.0 } else { -1.0 };
        let scores = pairs.iter().map(|&(chosen, rejected)| (sign * chosen as f64, sign * rejected as f64));
        accuracy(&scores.collect::<Vec<_>>())
    }
}
