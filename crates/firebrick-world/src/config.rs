//! The sizes of a world, and what its annotators value.

use serde::{Deserialize, Serialize};

use crate::knowledge::NAMES;

/// How big a world is, what is asked in it and what its annotators value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldConfig {
    /// Places the world has records of: 4 to 60.
    pub places: usize,
    /// Places nothing is recorded about: 1 to 60.
    pub unknown_places: usize,
    /// How often each kind of question is asked.
    pub kinds: Kinds,
    /// What the annotators value.
    pub weights: Weights,
    /// How often an annotator agrees with the noise-free order: above ½, below 1. The papers' workers: .63 to .75.
    pub agreement: f64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self { places: 20, unknown_places: 10, kinds: Kinds::default(), weights: Weights::default(), agreement: 0.75 }
    }
}

impl WorldConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// For the first field out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Kinds { known, unknown, harm } = self.kinds;
        let Weights { helpful, honest, harmless } = self.weights;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let weight = |value: f64| value.is_finite() && value > 0.0;
        let checks = [
            ("places", (4..=60).contains(&self.places), self.places as f64, "a number from 4 to 60"),
            (
                "unknown_places",
                (1..=60).contains(&self.unknown_places),
                self.unknown_places as f64,
                "a number from 1 to 60",
            ),
            ("kinds.known", share(known), known, "a share from 0 to 1"),
            ("kinds.unknown", share(unknown), unknown, "a share from 0 to 1"),
            ("kinds.harm", share(harm), harm, "a share from 0 to 1"),
            ("kinds", (known + unknown + harm - 1.0).abs() < 1e-6, known + unknown + harm, "shares that add up to 1"),
            ("weights.helpful", weight(helpful), helpful, "a positive number"),
            ("weights.honest", weight(honest), honest, "a positive number"),
            ("weights.harmless", weight(harmless), harmless, "a positive number"),
            ("agreement", self.agreement > 0.5 && self.agreement < 1.0, self.agreement, "above 0.5 and below 1"),
        ];
        const { assert!(60 + 60 + 10 <= NAMES, "there is a name for every place, ruler and river") };
        match checks.into_iter().find(|(_, holds, ..)| !holds) {
            None => Ok(()),
            Some((field, _, value, expected)) => Err(ConfigError { field, value, expected }),
        }
    }
}

/// The share of each kind of question; they add up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kinds {
    /// Questions with a recorded answer.
    pub known: f64,
    /// Questions nothing is recorded about.
    pub unknown: f64,
    /// Requests for help with harm.
    pub harm: f64,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { known: 0.5, unknown: 0.25, harm: 0.25 }
    }
}

/// What the annotators value: the weights of their hidden utility.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Of helpfulness.
    pub helpful: f64,
    /// Of honesty.
    pub honest: f64,
    /// Of harmlessness.
    pub harmless: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { helpful: 1.0, honest: 1.0, harmless: 1.5 }
    }
}

/// A field of a [`WorldConfig`] that is out of range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("world: `{field}` is {value}; set it to {expected}")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: f64,
    /// What it should be.
    pub expected: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(change: impl FnOnce(&mut WorldConfig)) -> String {
        let mut config = WorldConfig::default();
        change(&mut config);
        config.validate().expect_err("out of range").to_string()
    }

    #[test]
    fn errors_name_the_field_the_value_and_the_fix() {
        assert_eq!(message(|c| c.places = 3), "world: `places` is 3; set it to a number from 4 to 60");
        assert_eq!(message(|c| c.unknown_places = 0), "world: `unknown_places` is 0; set it to a number from 1 to 60");
        assert_eq!(message(|c| c.kinds.harm = 0.5), "world: `kinds` is 1.25; set it to shares that add up to 1");
        assert_eq!(message(|c| c.kinds.known = -0.5), "world: `kinds.known` is -0.5; set it to a share from 0 to 1");
        assert_eq!(message(|c| c.weights.honest = 0.0), "world: `weights.honest` is 0; set it to a positive number");
        assert_eq!(message(|c| c.agreement = 0.5), "world: `agreement` is 0.5; set it to above 0.5 and below 1");
        assert!(message(|c| c.agreement = f64::NAN).contains("`agreement` is NaN"));
        assert_eq!(WorldConfig::default().validate(), Ok(()));
    }
}
