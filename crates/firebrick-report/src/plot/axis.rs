//! The range of an axis, its ticks and their labels.

/// Whether a number can be drawn: finite, and not so large that a range of such numbers overflows.
pub(super) fn drawable(value: f64) -> bool {
    value.abs() < 1e300
}

/// Returns the smallest and the largest of some drawable values, drawn apart if they are (nearly) equal.
pub(super) fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .into_iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (value.min(low), value.max(high)));
    let largest = low.abs().max(high.abs());
    if low > high {
        None
    } else if largest < 1e-300 {
        Some((-1.0, 1.0))
    } else if high - low <= 1e-9 * largest {
        Some((low - 0.05 * largest, high + 0.05 * largest))
    } else {
        Some((low, high))
    }
}

/// One axis: what it measures, its range and its ticks.
pub(super) struct Axis<'a> {
    pub(super) name: &'a str,
    pub(super) low: f64,
    pub(super) high: f64,
    step: f64,
}

impl<'a> Axis<'a> {
    /// Returns an axis over `low..high` with about `ticks` ticks at multiples of 1, 2 or 5 times a power of ten.
    pub(super) fn new(name: &'a str, (low, high): (f64, f64), ticks: usize) -> Self {
        let raw = (high - low) / ticks as f64;
        let power = 10f64.powf(raw.log10().floor());
        let step = match raw / power {
            // Halfway between two candidates, on the logarithmic scale.
            ..1.414 => power,
            ..3.162 => 2.0 * power,
            ..7.071 => 5.0 * power,
            _ => 10.0 * power,
        };
        Self { name, low, high, step }
    }

    /// Returns an axis over an extent with 3 % of room at both ends.
    pub(super) fn around(name: &'a str, (low, high): (f64, f64), ticks: usize) -> Self {
        let room = 0.03 * (high - low);
        Self::new(name, (low - room, high + room), ticks)
    }

    /// Returns the ticks, from low to high.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let (first, last) = ((self.low / self.step).ceil() as i64, (self.high / self.step).floor() as i64);
        (first..=last).map(|index| index as f64 * self.step).collect()
    }

    /// Returns the label of a tick: `2.5`, `40k`, `1.2M`, `3e-5`, with as many decimals as the ticks need.
    pub(super) fn label(&self, tick: f64) -> String {
        if tick.abs() < 1e-6 * self.step {
            return "0".into();
        }
        let largest = self.low.abs().max(self.high.abs());
        let exponent = largest.log10().floor();
        let (unit, suffix) = match exponent {
            -3.0..4.0 => (1.0, String::new()),
            4.0..6.0 => (1e3, "k".into()),
            6.0..9.0 => (1e6, "M".into()),
            9.0..12.0 => (1e9, "G".into()),
            _ => (10f64.powf(exponent), format!("e{exponent}")),
        };
        let decimals = (unit / self.step).log10() - 1e-9;
        let digits = format!("{:.*}", decimals.ceil().max(0.0) as usize, (tick / unit).abs());
        format!("{}{digits}{suffix}", if tick < 0.0 { "−" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        let axis = Axis::new("x", (low, high), 6);
        axis.ticks().into_iter().map(|tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_their_labels_short() {
        // (1 − 0) / 6 = 0.167, nearest to 0.2.
        assert_eq!(labels(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(-3.0, 2.0), ["−3", "−2", "−1", "0", "1", "2"]);
        assert_eq!(labels(0.0, 50_000.0), ["0", "10k", "20k", "30k", "40k", "50k"]);
        assert_eq!(labels(0.0, 1_200_000.0), ["0", "0.2M", "0.4M", "0.6M", "0.8M", "1.0M", "1.2M"]);
        assert_eq!(labels(0.0, 1e-5), ["0", "0.2e-5", "0.4e-5", "0.6e-5", "0.8e-5", "1.0e-5"]);
        assert_eq!(labels(2e15, 7e15), ["2e15", "3e15", "4e15", "5e15", "6e15", "7e15"]);
        assert_eq!(labels(0.501, 0.504), ["0.5010", "0.5015", "0.5020", "0.5025", "0.5030", "0.5035", "0.5040"]);
    }

    #[test]
    fn equal_values_are_drawn_apart() {
        assert_eq!(extent([0.0, 0.0]), Some((-1.0, 1.0)));
        assert_eq!(extent([2.0]), Some((1.9, 2.1)));
        assert_eq!(extent([1.0, 3.0, 2.0]), Some((1.0, 3.0)));
        assert_eq!(extent([]), None);
    }

    proptest! {
        #[test]
        fn every_range_has_a_few_ticks_with_different_labels(a in prop::num::f64::ANY, b in prop::num::f64::ANY) {
            prop_assume!(drawable(a) && drawable(b));
            let axis = Axis::around("x", extent([a, b]).unwrap(), 6);
            let ticks = axis.ticks();
            prop_assert!((4..=10).contains(&ticks.len()), "{ticks:?}");
            let mut labels: Vec<_> = ticks.iter().map(|&tick| axis.label(tick)).collect();
            prop_assert!(labels.iter().all(|label| label.len() < 20), "{labels:?}");
            labels.dedup();
            prop_assert_eq!(labels.len(), ticks.len());
        }
    }
}
