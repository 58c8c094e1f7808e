//! What the stage `evaluate` measures, as it is kept.

use firebrick_stats::Interval;
use firebrick_types::Measured;
use serde::{Deserialize, Serialize};

use crate::metrics::measured;

/// An estimate and its 95 % interval.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Estimate {
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl From<Interval> for Estimate {
    fn from(Interval { estimate, low, high }: Interval) -> Self {
        Self { mean: estimate, low, high }
    }
}

impl Estimate {
    /// It as a metric of this name.
    pub(crate) fn measured(&self, name: impl Into<String>) -> Measured {
        measured(name, self.mean).interval(self.low, self.high)
    }

    /// The estimate with its interval.
    pub(crate) fn show(&self, decimals: usize) -> String {
        format!("{:.decimals$} [{:.decimals$}, {:.decimals$}]", self.mean, self.low, self.high)
    }
}

/// How often a preference model is right on the test comparisons of a tranche.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PmAccuracy {
    pub(crate) tranche: String,
    pub(crate) pairs: usize,
    pub(crate) train_pm: Estimate,
    pub(crate) test_pm: Estimate,
    /// The length-only baseline on the same pairs.
    pub(crate) length: Estimate,
    /// The same labels without noise, where the annotators are simulated.
    pub(crate) clean: Option<f64>,
    /// What the best possible predictor reaches on the noisy labels.
    pub(crate) ceiling: Option<f64>,
    /// How well the train preference model knows what it knows (B-12).
    pub(crate) calibration: Calibration,
}

impl PmAccuracy {
    /// Whether the train preference model beats the length-only baseline.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.train_pm.low > self.length.high {
            Verdict::Beats
        } else if self.train_pm.mean > self.length.mean {
            Verdict::Above
        } else {
            Verdict::DoesNot
        }
    }
}

/// A preference model beside the length-only baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Better, and the 95 % intervals do not overlap.
    Beats,
    /// Better, but the intervals overlap.
    Above,
    /// Not better.
    DoesNot,
}

impl Verdict {
    /// In a few words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Beats => "beats length",
            Self::Above => "above length, intervals overlap",
            Self::DoesNot => "does not beat length",
        }
    }
}

/// How close predicted probabilities are to observed frequencies.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Calibration {
    pub(crate) brier: f64,
    /// Expected calibration error.
    pub(crate) ece: f64,
    /// 1 is calibrated, below is over-confident; none where it is not defined.
    pub(crate) slope: Option<f64>,
}

/// How often the train preference model is right on conversations of so many human turns.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct TurnAccuracy {
    pub(crate) turns: usize,
    pub(crate) pairs: usize,
    pub(crate) accuracy: Estimate,
}

/// What a policy's answers to the held-out prompts are worth.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PolicyResult {
    pub(crate) name: String,
    pub(crate) train_pm: Estimate,
    pub(crate) test_pm: Estimate,
    pub(crate) oracle: Option<Oracle>,
    pub(crate) elo: f64,
    pub(crate) elo_error: f64,
    /// Share of answers that ended by themselves.
    pub(crate) finished: f64,
    /// Mean length of an answer, in tokens.
    pub(crate) length: f64,
    pub(crate) perplexity: f64,
    /// Accuracy on HHH items, over all and by category.
    pub(crate) hhh: Vec<Measured>,
}

/// The oracle's means over a policy's answers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Oracle {
    /// Mean of the three.
    pub(crate) score: Estimate,
    pub(crate) helpful: f64,
    pub(crate) honest: f64,
    pub(crate) harmless: f64,
}

/// A held-out dialogue answered before and after.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) prompt: String,
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) before_scores: Vec<(String, f64)>,
    pub(crate) after_scores: Vec<(String, f64)>,
}

/// Everything measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) pm: Vec<PmAccuracy>,
    pub(crate) by_turns: Vec<TurnAccuracy>,
    /// Predicted, observed, count.
    pub(crate) calibration_curve: Vec<(f64, f64, u64)>,
    /// Scores of the chosen and rejected test answers by the train preference model.
    pub(crate) chosen_scores: Vec<f64>,
    pub(crate) rejected_scores: Vec<f64>,
    pub(crate) policies: Vec<PolicyResult>,
    /// Share of prompts on which the test preference model prefers the final policy to the initial one.
    pub(crate) win_rate: Estimate,
    /// Divergence of the final policy from the initial one on its own answers, in nats an answer.
    pub(crate) kl: Estimate,
    /// Train-PM scores of the initial and the final policy's answers.
    pub(crate) before_scores: Vec<f64>,
    pub(crate) after_scores: Vec<f64>,
    pub(crate) shown: Vec<Shown>,
    /// Every number that may have a band.
    pub(crate) metrics: Vec<Measured>,
}

impl Results {
    /// The tables in plain text.
    pub(crate) fn summary(&self) -> String {
        let mut lines =
            vec![format!("{:12} {:>24} {:>24} {:>8} {:>24}", "policy", "train PM", "test PM", "Elo", "oracle")];
        for one in &self.policies {
            let oracle = one.oracle.map_or("–".to_owned(), |oracle| oracle.score.show(3));
            lines.push(format!(
                "{:12} {:>24} {:>24} {:>8.0} {:>24}",
                one.name,
                one.train_pm.show(2),
                one.test_pm.show(2),
                one.elo,
                oracle
            ));
        }
        lines.push(String::new());
        lines.push(format!(
            "{:30} {:>6} {:>22} {:>22} {:>8} {:>8}",
            "preference model on", "pairs", "accuracy", "length only", "ceiling", "clean"
        ));
        for one in &self.pm {
            let show = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.3}"));
            lines.push(format!(
                "{:30} {:>6} {:>22} {:>22} {:>8} {:>8}  {}",
                one.tranche,
                one.pairs,
                one.train_pm.show(3),
                one.length.show(3),
                show(one.ceiling),
                show(one.clean),
                one.verdict().text()
            ));
        }
        lines.push(format!(
            "\nthe final policy is preferred on {} of held-out prompts; KL {} nats",
            self.win_rate.show(3),
            self.kl.show(2)
        ));
        lines.join("\n")
    }
}
