//! Straight lines and linear correlation.

use crate::{Error, sample};

/// A straight line fitted to points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// The rise in y for a rise of 1 in x.
    pub slope: f64,
    /// y where x is 0.
    pub intercept: f64,
    /// R², the share of the variance of y that the line explains.
    pub r_squared: f64,
}

/// The line that minimises the squared vertical distances to the points.
///
/// ```text
/// slope = Sxy / Sxx      intercept = ȳ − slope · x̄      R² = Sxy² / (Sxx Syy)      Sxy = Σ (x − x̄)(y − ȳ)
/// ```
/// Ordinary least squares. Spec: B-28 (reward against √KL and against KL: the larger R² names the law).
///
/// # Errors
/// [`Error::TooFew`] if there are fewer than 2 points, [`Error::NotFinite`] if a coordinate is not finite,
/// [`Error::Constant`] if x or y does not vary (then the slope or R² is 0/0).
///
/// # Panics
/// If `x` and `y` differ in length.
pub fn least_squares_line(x: &[f64], y: &[f64]) -> Result<Line, Error> {
    let Moments { mean_x, mean_y, xx, xy, yy } = moments(x, y)?;
    let slope = xy / xx;
    Ok(Line { slope, intercept: mean_y - slope * mean_x, r_squared: (slope * (xy / yy)).min(1.0) })
}

/// The product-moment correlation of two samples, from −1 to 1.
///
/// ```text
/// r = Sxy / √(Sxx Syy)
/// ```
/// Pearson 1895. Spec: T-33 (score against length: a reward model that has learnt to like long answers shows here).
///
/// # Errors
/// As for [`least_squares_line`].
///
/// # Panics
/// If `x` and `y` differ in length.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64, Error> {
    let Moments { xx, xy, yy, .. } = moments(x, y)?;
    Ok((xy / xx.sqrt() / yy.sqrt()).clamp(-1.0, 1.0))
}

/// Means and sums of squared and mixed deviations.
struct Moments {
    mean_x: f64,
    mean_y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

/// The moments of two samples that both vary.
fn moments(x: &[f64], y: &[f64]) -> Result<Moments, Error> {
    assert_eq!(x.len(), y.len(), "x and y must have one length");
    for (sample, values) in [("x", x), ("y", y)] {
        sample::check(sample, values, 2)?;
        // Asked of the values, not of their deviations, which rounding keeps from being exactly 0.
        if values.iter().all(|&value| value == values[0]) {
            return Err(Error::Constant { sample, value: values[0] });
        }
    }
    let (mean_x, mean_y) = (sample::mean(x), sample::mean(y));
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (dx, dy) = (x - mean_x, y - mean_y);
        xx += dx * dx;
        xy += dx * dy;
        yy += dy * dy;
    }
    Ok(Moments { mean_x, mean_y, xx, xy, yy })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::goldens::{close, golden, numbers};

    #[test]
    fn line_by_hand() {
        // x̄ = 1, ȳ = 2; Sxx = 2, Sxy = 3, Syy = 1 + 1 + 4 = 6: slope 3/2, intercept 1/2, R² = 9/12.
        let line = least_squares_line(&[0.0, 1.0, 2.0], &[1.0, 1.0, 4.0]).unwrap();
        assert_eq!(line, Line { slope: 1.5, intercept: 0.5, r_squared: 0.75 });
        let correlation = pearson(&[0.0, 1.0, 2.0], &[1.0, 1.0, 4.0]).unwrap();
        assert!((correlation - 0.75f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn line_and_correlation_match_the_golden_values() {
        let case = golden("regression");
        let (x, y) = (numbers(&case["x"]), numbers(&case["y"]));
        let line = least_squares_line(&x, &y).unwrap();
        close(line.slope, &case["slope"], 1e-12);
        close(line.intercept, &case["intercept"], 1e-12);
        close(line.r_squared, &case["r_squared"], 1e-12);
        close(pearson(&x, &y).unwrap(), &case["pearson"], 1e-12);
    }

    #[test]
    fn a_reward_that_grows_with_root_kl_fits_root_kl_better() {
        let kl_nats: Vec<f64> = (1..30).map(f64::from).collect();
        let root_kl: Vec<f64> = kl_nats.iter().map(|kl| kl.sqrt()).collect();
        let reward: Vec<f64> = root_kl.iter().map(|root| 0.7 * root - 0.2).collect();
        let line = least_squares_line(&root_kl, &reward).unwrap();
        assert!((line.slope - 0.7).abs() < 1e-12 && (line.intercept + 0.2).abs() < 1e-12);
        assert!((line.r_squared - 1.0).abs() < 1e-12);
        assert!(least_squares_line(&kl_nats, &reward).unwrap().r_squared < 0.97);
    }

    #[test]
    fn t33_a_length_bias_shows_in_the_correlation() {
        // Quality alternates and length does not know of it: only the planted 0.1 a token correlates.
        let length: Vec<f64> = (0..100).map(f64::from).collect();
        let quality: Vec<f64> = (0..100).map(|i| f64::from(i % 4 / 2)).collect();
        let biased: Vec<f64> = length.iter().zip(&quality).map(|(length, quality)| quality + 0.1 * length).collect();
        assert!(pearson(&length, &quality).unwrap().abs() < 0.1);
        assert!(pearson(&length, &biased).unwrap() > 0.95);
    }

    #[test]
    fn samples_without_a_line_are_errors() {
        assert_eq!(least_squares_line(&[1.0], &[1.0]), Err(Error::TooFew { sample: "x", needed: 2, got: 1 }));
        // 0.1 three times has a mean that is not 0.1.
        assert_eq!(pearson(&[0.1; 3], &[1.0, 2.0, 3.0]), Err(Error::Constant { sample: "x", value: 0.1 }));
        assert_eq!(pearson(&[1.0, 2.0, 3.0], &[0.1; 3]), Err(Error::Constant { sample: "y", value: 0.1 }));
        assert!(matches!(pearson(&[1.0, 2.0], &[1.0, f64::NAN]), Err(Error::NotFinite { sample: "y", index: 1, .. })));
    }

    #[test]
    #[should_panic(expected = "x and y must have one length")]
    fn unequal_lengths_panic() {
        let _ = pearson(&[1.0, 2.0], &[1.0]);
    }

    proptest! {
        #[test]
        fn r_squared_is_the_squared_correlation_and_a_shift_changes_neither(
            points in prop::collection::vec((-10.0..10.0f64, -10.0..10.0f64), 3..20),
            shift in -100.0..100.0f64,
        ) {
            let (x, y): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
            let line = least_squares_line(&x, &y).unwrap();
            let correlation = pearson(&x, &y).unwrap();
            prop_assert!((line.r_squared - correlation * correlation).abs() < 1e-10);
            let moved: Vec<f64> = x.iter().map(|x| x + shift).collect();
            let moved_line = least_squares_line(&moved, &y).unwrap();
            prop_assert!((moved_line.slope - line.slope).abs() <= 1e-8 * (1.0 + line.slope.abs()));
            prop_assert!((pearson(&moved, &y).unwrap() - correlation).abs() < 1e-8);
        }
    }
}
