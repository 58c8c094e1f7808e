//! How often the better answer is found.

use serde::{Deserialize, Serialize};

/// 1 for each pair whose better member scores higher, ½ for a tie, 0 otherwise; their mean is the accuracy.
pub fn accuracy(scores: &[(f64, f64)]) -> Vec<f64> {
    let right = |&(better, worse): &(f64, f64)| {
        if better > worse {
            1.0
        } else if better == worse {
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
    /// The better of "longer" and "shorter" on training pairs, given as lengths of the better and the worse answer.
    pub fn fit(pairs: &[(usize, usize)]) -> Self {
        let longer = pairs.iter().filter(|(better, worse)| better > worse).count();
        let shorter = pairs.iter().filter(|(better, worse)| better < worse).count();
        Self { prefers_longer: longer >= shorter }
    }

    /// [`accuracy`] of the baseline on pairs of lengths.
    pub fn outcomes(&self, pairs: &[(usize, usize)]) -> Vec<f64> {
        let sign = if self.prefers_longer { 1.0 } else { -1.0 };
        let scores = pairs.iter().map(|&(better, worse)| (sign * better as f64, sign * worse as f64));
        accuracy(&scores.collect::<Vec<_>>())
    }
}
