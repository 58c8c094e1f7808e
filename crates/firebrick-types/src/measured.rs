//! What was measured.

use serde::{Deserialize, Serialize};

/// A number that was measured, and what a reader needs to judge it: the one form in which evaluations, summaries, reports, bands and
/// claims hand results on.
///
/// ```
/// use firebrick_types::{Better, Measured};
///
/// let accuracy = Measured::new("pm/accuracy", 0.716).interval(0.686, 0.744).unit("share of pairs").higher_is_better().chance(0.5);
/// assert_eq!(accuracy.show(3), "0.716 [0.686, 0.744]");
/// assert_eq!(accuracy.better, Better::Higher);
/// assert!(accuracy.beats_chance());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// What it is called, with the field's name, for instance `pm/accuracy`.
    pub name: String,
    /// The estimate.
    pub estimate: f64,
    /// The bounds of its confidence interval, if it has one.
    pub interval: Option<[f64; 2]>,
    /// What it counts, for instance `nats a response`; empty for a bare number.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// What guessing gives, if guessing gives something.
    pub chance: Option<f64>,
}

/// Which way a number is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Higher is.
    Higher,
    /// Lower is.
    Lower,
    /// Neither: it describes.
    #[default]
    Neither,
}

impl Measured {
    /// A bare number.
    pub fn new(name: impl Into<String>, estimate: f64) -> Self {
        let (interval, unit, better, chance) = (None, String::new(), Better::Neither, None);
        Self { name: name.into(), estimate, interval, unit, better, chance }
    }

    /// With the bounds of its confidence interval.
    #[must_use]
    pub fn interval(self, low: f64, high: f64) -> Self {
        Self { interval: Some([low, high]), ..self }
    }

    /// Counted in this unit.
    #[must_use]
    pub fn unit(self, unit: impl Into<String>) -> Self {
        Self { unit: unit.into(), ..self }
    }

    /// The higher the better.
    #[must_use]
    pub fn higher_is_better(self) -> Self {
        Self { better: Better::Higher, ..self }
    }

    /// The lower the better.
    #[must_use]
    pub fn lower_is_better(self) -> Self {
        Self { better: Better::Lower, ..self }
    }

    /// Guessing gives this.
    #[must_use]
    pub fn chance(self, chance: f64) -> Self {
        Self { chance: Some(chance), ..self }
    }

    /// The estimate, with its interval where it has one.
    pub fn show(&self, decimals: usize) -> String {
        match self.interval {
            Some([low, high]) => format!("{:.decimals$} [{low:.decimals$}, {high:.decimals$}]", self.estimate),
            None => format!("{:.decimals$}", self.estimate),
        }
    }

    /// Whether its whole interval, or the estimate where it has none, is on the better side of chance.
    pub fn beats_chance(&self) -> bool {
        let [low, high] = self.interval.unwrap_or([self.estimate; 2]);
        self.chance.is_some_and(|chance| match self.better {
            Better::Higher => low > chance,
            Better::Lower => high < chance,
            Better::Neither => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_that_holds_chance_does_not_beat_it() {
        let accuracy = Measured::new("accuracy", 0.6).higher_is_better().chance(0.5);
        assert!(accuracy.beats_chance());
        assert!(accuracy.clone().interval(0.52, 0.68).beats_chance());
        assert!(!accuracy.clone().interval(0.45, 0.75).beats_chance());
        let error = Measured { better: Better::Lower, ..accuracy.interval(0.3, 0.4) };
        assert!(error.beats_chance());
        assert!(!Measured { chance: None, ..error.clone() }.beats_chance());
        assert!(!Measured { better: Better::Neither, ..error }.beats_chance());
    }

    #[test]
    fn a_number_without_an_interval_shows_none() {
        assert_eq!(Measured::new("kl", 1.284).show(2), "1.28");
        assert_eq!(Measured::new("kl", 1.284).interval(1.23, 1.34).show(2), "1.28 [1.23, 1.34]");
    }
}
