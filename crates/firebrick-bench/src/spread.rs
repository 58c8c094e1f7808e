//! Medians and the middle half of repeated measurements.

use serde::{Deserialize, Serialize};

/// The middle of some numbers and of each half of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter is smaller.
    pub low: f64,
    /// Half is smaller.
    pub median: f64,
    /// A quarter is larger.
    pub high: f64,
}

impl Spread {
    /// The quartiles, interpolated linearly.
    ///
    /// # Panics
    /// If there are no numbers.
    pub fn of(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (sorted.len() - 1) as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Self { low: at(0.25), median: at(0.5), high: at(0.75) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Spread { low: 1.75, median: 2.5, high: 3.25 });
        assert_eq!(Spread::of(&[5.0]), Spread { low: 5.0, median: 5.0, high: 5.0 });
    }
}
