//! What data can make impossible to compute.

/// Why a statistic cannot be computed from the data at hand.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sample is too small for the statistic to exist.
    #[error("{sample}: {got} given, at least {needed} needed; collect more, or leave this statistic out")]
    TooFew {
        /// Which argument.
        sample: &'static str,
        /// The smallest number that will do.
        needed: usize,
        /// How many there were.
        got: usize,
    },
    /// A value is infinite or not a number.
    #[error("{sample}[{index}] is {value}; remove it, or find out what computed it")]
    NotFinite {
        /// Which argument.
        sample: &'static str,
        /// The position, counted from 0.
        index: usize,
        /// The value.
        value: f64,
    },
    /// All values are the same, so that no line or correlation is determined.
    #[error("{sample}: all values are {value}; a line or correlation needs values that vary")]
    Constant {
        /// Which argument.
        sample: &'static str,
        /// The value they all have.
        value: f64,
    },
    /// Some players never lost to the others, so that their ratings have no finite maximum-likelihood value (T-32).
    #[error(
        "{} never lost to {}; compare them more, or give `prior_wins` above 0",
        unbeaten.join(", "), beaten.join(", ")
    )]
    Separable {
        /// Those who never lost to the others.
        unbeaten: Vec<String>,
        /// The others.
        beaten: Vec<String>,
    },
    /// Some players never met the others, so that nothing relates their ratings (T-32).
    #[error(
        "{} never met {}; compare them, rate them apart, or give `prior_wins` above 0",
        group.join(", "), rest.join(", ")
    )]
    Disconnected {
        /// Players who met only each other.
        group: Vec<String>,
        /// The others.
        rest: Vec<String>,
    },
    /// The ratings did not settle.
    #[error(
        "ratings did not settle in {iterations} Newton steps; drop win counts that are next to 0, or raise `prior_wins`"
    )]
    NotConverged {
        /// The steps taken.
        iterations: usize,
    },
    /// Every score difference has the same sign (or is 0), so that the slope has no finite maximum-likelihood value.
    #[error("none of the {count} score differences is {missing}, so no slope fits best; calibrate on more comparisons")]
    OneSided {
        /// How many differences there were.
        count: usize,
        /// The sign that is missing.
        missing: &'static str,
    },
}
