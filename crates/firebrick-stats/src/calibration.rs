//! How far a model's confidence can be believed.
//!
//! Of preference models all functions take D = score(chosen) − score(rejected) of each comparison, in logits; comparisons without
//! a choice are left out. The model's probability of the choice that was made is σ(D).

use crate::{Error, sample};

/// The probability of preferring A to B, given score(A) − score(B) in logits.
///
/// ```text
/// P(A ≻ B) = σ(D) = 1 / (1 + e^(−D))
/// ```
/// Bradley and Terry 1952; Bai et al. 2022, [arXiv:2204.05862](https://arxiv.org/abs/2204.05862), eq. 2.1.
/// Spec: B-12, B-18.
pub fn preference_probability(difference: f64) -> f64 {
    1.0 / (1.0 + (-difference).exp())
}

/// The mean squared distance of the predicted probabilities from what was chosen; lower is better, a coin scores ¼.
///
/// ```text
/// mean of (1 − σ(D))²
/// ```
/// Brier 1950, "Verification of Forecasts Expressed in Terms of Probability". Spec: B-12.
///
/// # Errors
/// [`Error::TooFew`] if there are no differences, [`Error::NotFinite`] if one is not finite.
pub fn brier_score(differences: &[f64]) -> Result<f64, Error> {
    sample::check("differences", differences, 1)?;
    let squares: f64 = differences.iter().map(|&difference| preference_probability(-difference).powi(2)).sum();
    Ok(squares / differences.len() as f64)
}

/// One bin of a calibration curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationBin {
    /// The middle of the bin, a probability.
    pub centre: f64,
    /// The mean predicted probability of the comparisons in the bin.
    pub mean_prediction: f64,
    /// The share of them in which the favourite was chosen.
    pub observed: f64,
    /// How many they are.
    pub count: u64,
}

/// Predicted against observed frequency with which the answer that the model favours is the one chosen.
///
/// ```text
/// prediction = σ(|D|)        observed = mean of [D > 0] + ½ [D = 0]
/// ```
/// Bai et al. 2022, [arXiv:2204.05862](https://arxiv.org/abs/2204.05862), §3.3 and figure 9. Spec: A-38, B-12.
///
/// `bins` bins of equal width divide the probabilities from ½ to 1; those without comparisons are left out. Where the
/// model scores both answers the same there is no favourite, and the comparison counts half.
///
/// # Errors
/// [`Error::TooFew`] if there are no differences, [`Error::NotFinite`] if one is not finite.
///
/// # Panics
/// If `bins` is 0.
pub fn calibration_curve(differences: &[f64], bins: usize) -> Result<Vec<CalibrationBin>, Error> {
    assert!(bins > 0, "a calibration curve needs at least 1 bin");
    sample::check("differences", differences, 1)?;
    let favoured = differences.iter().map(|&difference| {
        let observed = if difference == 0.0 { 0.5 } else { f64::from(difference > 0.0) };
        (preference_probability(difference.abs()), observed)
    });
    Ok(binned(favoured, 0.5, bins))
}

/// Predictions from `least` to 1 and what was observed, in bins of equal width; those without any are left out.
fn binned(predicted: impl Iterator<Item = (f64, f64)>, least: f64, bins: usize) -> Vec<CalibrationBin> {
    let width = (1.0 - least) / bins as f64;
    let centre = |bin: usize| least + (bin as f64 + 0.5) * width;
    let empty = |bin| CalibrationBin { centre: centre(bin), mean_prediction: 0.0, observed: 0.0, count: 0 };
    let mut curve = (0..bins).map(empty).collect::<Vec<_>>();
    for (prediction, observed) in predicted {
        // A prediction of exactly 1 belongs to the last bin.
        let bin = &mut curve[(((prediction - least) / width) as usize).min(bins - 1)];
        bin.mean_prediction += prediction;
        bin.observed += observed;
        bin.count += 1;
    }
    curve.retain(|bin| bin.count > 0);
    for bin in &mut curve {
        bin.mean_prediction /= bin.count as f64;
        bin.observed /= bin.count as f64;
    }
    curve
}

/// The mean distance between predicted and observed frequency over the bins of [`calibration_curve`].
///
/// ```text
/// ECE = Σ_bins (count / N) |observed − mean prediction|
/// ```
/// Guo et al. 2017, [arXiv:1706.04599](https://arxiv.org/abs/1706.04599), eq. 3. Spec: A-38, B-12. It grows with the
/// number of bins and falls with N even for a calibrated model: compare only values of equal `bins` and similar N.
///
/// # Errors
/// As for [`calibration_curve`].
///
/// # Panics
/// If `bins` is 0.
pub fn expected_calibration_error(differences: &[f64], bins: usize) -> Result<f64, Error> {
    Ok(mean_gap(&calibration_curve(differences, bins)?))
}

/// The mean distance, over bins, of the probability that a classifier of any number of classes gives to its answer from how often that is
/// right.
///
/// Guo et al. 2017, [arXiv:1706.04599](https://arxiv.org/abs/1706.04599), eq. 3, with bins from 0 to 1.
///
/// # Errors
/// [`Error::TooFew`] if there are no answers, [`Error::NotFinite`] if a probability is not finite.
///
/// # Panics
/// If `bins` is 0, a probability is none, or there is not one verdict of each answer.
pub fn top_label_calibration_error(probabilities: &[f64], right: &[bool], bins: usize) -> Result<f64, Error> {
    assert!(bins > 0, "calibration needs at least 1 bin");
    assert_eq!(probabilities.len(), right.len(), "one verdict of each answer");
    sample::check("probabilities", probabilities, 1)?;
    assert!(probabilities.iter().all(|probability| (0.0..=1.0).contains(probability)), "probabilities from 0 to 1");
    let answers = probabilities.iter().copied().zip(right.iter().map(|&right| f64::from(right)));
    Ok(mean_gap(&binned(answers, 0.0, bins)))
}

/// The mean distance of the bins' observations from their predictions.
fn mean_gap(curve: &[CalibrationBin]) -> f64 {
    let count = curve.iter().map(|bin| bin.count as f64).sum::<f64>();
    curve.iter().map(|bin| bin.count as f64 * (bin.observed - bin.mean_prediction).abs()).sum::<f64>() / count
}

/// The factor s by which all scores should be multiplied to be calibrated: 1 already are, less are over-confident.
///
/// ```text
/// s = argmax Σ ln σ(s D),   where   Σ D σ(−s D) = 0
/// ```
/// Logistic regression of the choice on D through the origin (Cox 1958); 1/s is the temperature of Guo et al. 2017,
/// [arXiv:1706.04599](https://arxiv.org/abs/1706.04599), §4.2. Spec: A-38, B-12.
///
/// # Errors
/// [`Error::TooFew`] if there are no differences, [`Error::NotFinite`] if one is not finite, [`Error::OneSided`] if no
/// difference is positive or none is negative (the model is always right or always wrong, and s unbounded).
pub fn calibration_slope(differences: &[f64]) -> Result<f64, Error> {
    sample::check("differences", differences, 1)?;
    for (missing, sign) in [("positive", 1.0), ("negative", -1.0)] {
        if !differences.iter().any(|&difference| sign * difference > 0.0) {
            return Err(Error::OneSided { count: differences.len(), missing });
        }
    }
    let derivative = |slope: f64| -> f64 {
        differences.iter().map(|&difference| difference * preference_probability(-slope * difference)).sum()
    };
    // The derivative falls strictly through its one root: enclose the root, then halve down to neighbouring floats.
    let mut far = derivative(0.0).signum();
    let mut near = 0.0;
    while derivative(far) * far > 0.0 {
        near = far;
        far *= 2.0;
    }
    loop {
        let middle = near + (far - near) / 2.0;
        if middle == near || middle == far {
            return Ok(middle);
        }
        if derivative(middle) * far > 0.0 { near = middle } else { far = middle }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::goldens::{close, golden, numbers};

    #[test]
    fn preference_probability_is_the_logistic_and_stays_finite() {
        assert_eq!([0.0, 1e4, -1e4].map(preference_probability), [0.5, 1.0, 0.0]);
        // σ(ln 3) = 3/4.
        assert!((preference_probability(3f64.ln()) - 0.75).abs() < 1e-15);
    }

    #[test]
    fn scores_match_the_golden_values() {
        let case = golden("calibration");
        let differences = numbers(&case["differences"]);
        close(brier_score(&differences).unwrap(), &case["brier"], 1e-12);
        close(expected_calibration_error(&differences, 10).unwrap(), &case["ece_10"], 1e-12);
        close(calibration_slope(&differences).unwrap(), &case["slope"], 1e-8);
        let curve = calibration_curve(&differences, 5).unwrap();
        let (predicted, observed) = (numbers(&case["curve_5_predicted"]), numbers(&case["curve_5_observed"]));
        assert_eq!(curve.len(), predicted.len());
        for (bin, (predicted, observed)) in curve.iter().zip(predicted.into_iter().zip(observed)) {
            assert!((bin.mean_prediction - predicted).abs() < 1e-12, "{bin:?}");
            assert!((bin.observed - observed).abs() < 1e-12, "{bin:?}");
        }
    }

    #[test]
    fn curve_by_hand() {
        // σ(ln 9) = 0.9. Two bins: [0.5, 0.75) with the undecided 0; [0.75, 1] with ln 9 (right, 0.9), −ln 9 (wrong,
        // 0.9) and 50 (right, 1): predicted 2.8/3, observed 2/3.
        let ln_9 = 9f64.ln();
        let differences = [0.0, ln_9, -ln_9, 50.0];
        let curve = calibration_curve(&differences, 2).unwrap();
        assert_eq!(curve[0], CalibrationBin { centre: 0.625, mean_prediction: 0.5, observed: 0.5, count: 1 });
        assert_eq!((curve[1].centre, curve[1].count), (0.875, 3));
        assert!((curve[1].mean_prediction - 2.8 / 3.0).abs() < 1e-12);
        assert!((curve[1].observed - 2.0 / 3.0).abs() < 1e-12);
        // ECE = ¼ · 0 + ¾ · (2.8 − 2)/3 = 0.2; Brier = (0.25 + 0.01 + 0.81 + 0) / 4 = 0.2675.
        assert!((expected_calibration_error(&differences, 2).unwrap() - 0.2).abs() < 1e-12);
        assert!((brier_score(&differences).unwrap() - 0.2675).abs() < 1e-12);
        // Empty bins are left out.
        assert_eq!(calibration_curve(&differences, 100).unwrap().len(), 3);
    }

    #[test]
    fn answers_of_a_classifier_by_hand() {
        // Bins [0, ½) with 0.4 (wrong) and [½, 1] with 0.8 (right), 0.6 (wrong) and 1 (right): gaps 0.4 and |2/3 − 0.8|.
        let found = top_label_calibration_error(&[0.4, 0.8, 0.6, 1.0], &[false, true, false, true], 2).unwrap();
        assert!((found - (0.25 * 0.4 + 0.75 * (0.8 - 2.0 / 3.0))).abs() < 1e-12);
        assert_eq!(top_label_calibration_error(&[1.0, 1.0], &[true, true], 10), Ok(0.0));
        assert!(top_label_calibration_error(&[], &[], 10).is_err());
    }

    #[test]
    fn slope_by_hand() {
        // Right 3 times in 4 at |D| = 2: σ(2 s) = ¾, s = ln 3 / 2. Wrong 3 times in 4: the same with a minus.
        let right = calibration_slope(&[2.0, 2.0, 2.0, -2.0]).unwrap();
        assert!((right - 3f64.ln() / 2.0).abs() < 1e-14);
        assert_eq!(calibration_slope(&[-2.0, -2.0, -2.0, 2.0]).unwrap(), -right);
        assert_eq!(calibration_slope(&[-1.0, 1.0]).unwrap(), 0.0);
        // Ties say nothing, and an outlier with the right sign hardly anything.
        assert_eq!(calibration_slope(&[2.0, 2.0, 2.0, -2.0, 0.0]).unwrap(), right);
        assert!((calibration_slope(&[2.0, 2.0, 2.0, -2.0, 1e6]).unwrap() - right).abs() < 1e-12);
    }

    #[test]
    fn slope_needs_both_signs() {
        let always_right = calibration_slope(&[1.0, 2.0, 0.0]);
        assert_eq!(always_right, Err(Error::OneSided { count: 3, missing: "negative" }));
        assert_eq!(calibration_slope(&[-1.0]), Err(Error::OneSided { count: 1, missing: "positive" }));
        assert_eq!(calibration_slope(&[0.0]), Err(Error::OneSided { count: 1, missing: "positive" }));
    }

    #[test]
    fn a_calibrated_model_is_found_calibrated_and_a_loud_one_over_confident() {
        let mut rng = ChaCha8Rng::seed_from_u64(17);
        let differences: Vec<f64> = (0..20_000)
            .map(|_| {
                let difference = rng.random_range(-3.0..3.0);
                if rng.random_bool(preference_probability(difference)) { difference } else { -difference }
            })
            .collect();
        // The standard error of the slope is 1/√Σ D²σ(1−σ), about 0.011.
        assert!((calibration_slope(&differences).unwrap() - 1.0).abs() < 0.04);
        assert!(expected_calibration_error(&differences, 10).unwrap() < 0.02);
        let loud: Vec<f64> = differences.iter().map(|difference| 4.0 * difference).collect();
        assert!((calibration_slope(&loud).unwrap() - 0.25).abs() < 0.01);
        assert!(expected_calibration_error(&loud, 10).unwrap() > 0.1);
        assert!(brier_score(&loud).unwrap() > brier_score(&differences).unwrap());
    }

    #[test]
    fn degenerate_differences_are_errors() {
        let empty = Error::TooFew { sample: "differences", needed: 1, got: 0 };
        assert_eq!(brier_score(&[]), Err(empty.clone()));
        assert_eq!(calibration_curve(&[], 5), Err(empty.clone()));
        assert_eq!(expected_calibration_error(&[], 5), Err(empty.clone()));
        assert_eq!(calibration_slope(&[]), Err(empty));
        assert!(matches!(brier_score(&[0.0, f64::NAN]), Err(Error::NotFinite { index: 1, .. })));
    }

    proptest! {
        #[test]
        fn rescaling_by_the_slope_leaves_a_slope_of_one(
            differences in prop::collection::vec(-4.0..4.0f64, 30..60),
        ) {
            let slope = calibration_slope(&differences).unwrap();
            prop_assume!(slope.abs() > 0.01);
            let rescaled: Vec<f64> = differences.iter().map(|difference| slope * difference).collect();
            prop_assert!((calibration_slope(&rescaled).unwrap() - 1.0).abs() < 1e-9);
            // σ(sD) is then right on average, weighted by D: no bin structure hides a fault in the root.
            let residual: f64 = rescaled.iter().map(|d| d * preference_probability(-d)).sum();
            prop_assert!(residual.abs() < 1e-9);
        }
    }
}
