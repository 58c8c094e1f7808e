//! Confidence intervals of a proportion, a mean and a paired difference.

use rand::{Rng, RngExt};

use crate::normal::critical_value;
use crate::{Error, sample};

/// An estimate with the ends of its confidence interval, in the unit of the estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The point estimate.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The Wilson score interval of a proportion; the estimate is the plain share of successes.
///
/// ```text
/// (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n)        p̂ = successes / n,  n = trials
/// ```
/// Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22. For win rates and
/// accuracies (A-15, B-12); unlike p̂ ± z·error it stays within 0 and 1 and has a width at 0 of n and n of n.
///
/// # Errors
/// [`Error::TooFew`] if there are no trials.
///
/// # Panics
/// If there are more successes than trials, or `confidence` is not between 0 and 1.
pub fn wilson(successes: u64, trials: u64, confidence: f64) -> Result<Interval, Error> {
    assert!(successes <= trials, "{successes} successes in {trials} trials");
    let z = critical_value(confidence);
    if trials == 0 {
        return Err(Error::TooFew { sample: "trials", needed: 1, got: 0 });
    }
    let n = trials as f64;
    let p = successes as f64 / n;
    let shrinkage = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / shrinkage;
    let reach = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt() / shrinkage;
    // At 0 of n and n of n one end is exactly 0 or 1; rounding must not push it past.
    Ok(Interval { estimate: p, low: (centre - reach).max(0.0), high: (centre + reach).min(1.0) })
}

/// The percentile bootstrap interval of a mean.
///
/// ```text
/// x̄*ᵦ = mean of n draws with replacement, b = 1 … resamples;  [quantile((1−c)/2), quantile((1+c)/2)] of the x̄*
/// ```
/// with c = `confidence` and quantiles interpolated linearly. Efron and Tibshirani 1993, "An Introduction to the
/// Bootstrap", chapter 13. The values must be independent: resample conversations, not the turns within them. Below
/// some 20 values the interval is too narrow.
///
/// # Errors
/// [`Error::TooFew`] if `values` is empty, [`Error::NotFinite`] if one of them is not finite.
///
/// # Panics
/// If `resamples` is 0, or `confidence` is not between 0 and 1.
pub fn bootstrap_mean(
    values: &[f64],
    resamples: usize,
    confidence: f64,
    rng: &mut impl Rng,
) -> Result<Interval, Error> {
    sample::check("values", values, 1)?;
    let n = values.len();
    let mean = |rng: &mut _| draw(n, rng).map(|place| values[place]).sum::<f64>() / n as f64;
    Ok(percentile(sample::mean(values), resamples, confidence, || mean(rng)))
}

/// The percentile bootstrap interval of a weighted mean Σ wᵢ xᵢ / Σ wᵢ, pairs of a value and its weight drawn together.
///
/// For instance of losses of texts, each weighed by its tokens: the mean loss a token, whose interval heeds that tokens of one text are
/// not independent. Efron and Tibshirani 1993, chapter 10 (ratio estimates).
///
/// # Errors
/// [`Error::TooFew`] if there is no value, [`Error::NotFinite`] if a value or weight is not finite.
///
/// # Panics
/// If there are not as many weights as values, a weight is not above 0, `resamples` is 0, or `confidence` is not between 0 and 1.
pub fn bootstrap_weighted_mean(
    values: &[f64],
    weights: &[f64],
    resamples: usize,
    confidence: f64,
    rng: &mut impl Rng,
) -> Result<Interval, Error> {
    assert_eq!(values.len(), weights.len(), "a weight for each value");
    sample::check("values", values, 1)?;
    sample::check("weights", weights, 1)?;
    assert!(weights.iter().all(|&weight| weight > 0.0), "weights are above 0");
    let of = |places: &mut dyn Iterator<Item = usize>| {
        let sums = places
            .fold((0.0, 0.0), |(sum, total), place| (sum + weights[place] * values[place], total + weights[place]));
        sums.0 / sums.1
    };
    let n = values.len();
    Ok(percentile(of(&mut (0..n)), resamples, confidence, || of(&mut draw(n, rng))))
}

/// The places of n draws with replacement.
fn draw(n: usize, rng: &mut impl Rng) -> impl Iterator<Item = usize> {
    (0..n).map(move |_| rng.random_range(0..n))
}

/// The interval between two quantiles of what the resamples give.
fn percentile(estimate: f64, resamples: usize, confidence: f64, mut resample: impl FnMut() -> f64) -> Interval {
    assert!(resamples > 0, "the bootstrap needs at least 1 resample");
    assert!(confidence > 0.0 && confidence < 1.0, "confidence must be between 0 and 1, not {confidence}");
    let mut found = (0..resamples).map(|_| resample()).collect::<Vec<_>>();
    found.sort_by(f64::total_cmp);
    let [low, high] = [1.0 - confidence, 1.0 + confidence].map(|share| quantile(&found, share / 2.0));
    Interval { estimate, low, high }
}

/// The percentile bootstrap interval of mean(`a`) − mean(`b`), where `a[i]` and `b[i]` belong to the same prompt.
///
/// ```text
/// dᵢ = aᵢ − bᵢ, then as for the mean of d
/// ```
/// Efron and Tibshirani 1993, chapter 13. What the two have in common, such as a hard prompt, cancels: the interval is
/// narrower than that of two separate samples.
///
/// # Errors
/// As for [`bootstrap_mean`]; the error names `a`, `b`, or their difference `values`.
///
/// # Panics
/// If `a` and `b` differ in length, `resamples` is 0, or `confidence` is not between 0 and 1.
pub fn bootstrap_mean_difference(
    a: &[f64],
    b: &[f64],
    resamples: usize,
    confidence: f64,
    rng: &mut impl Rng,
) -> Result<Interval, Error> {
    assert_eq!(a.len(), b.len(), "paired samples must have one length");
    sample::check("a", a, 1)?;
    sample::check("b", b, 1)?;
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    bootstrap_mean(&differences, resamples, confidence, rng)
}

/// The value below which the given share of sorted values lies, interpolated linearly between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor();
    let (low, high) = (sorted[below as usize], sorted[position.ceil() as usize]);
    low + (position - below) * (high - low)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;
    use crate::goldens::{close, golden, numbers};

    #[test]
    fn equal_weights_give_the_interval_of_the_mean() {
        let values = [0.5, 2.0, 1.0, 4.0, 3.5];
        let mut rngs = [(); 2].map(|()| ChaCha8Rng::seed_from_u64(1));
        let plain = bootstrap_mean(&values, 500, 0.9, &mut rngs[0]).unwrap();
        let weighted = bootstrap_weighted_mean(&values, &[2.0; 5], 500, 0.9, &mut rngs[1]).unwrap();
        for (a, b) in [(plain.estimate, weighted.estimate), (plain.low, weighted.low), (plain.high, weighted.high)] {
            assert!((a - b).abs() < 1e-12, "{plain:?} {weighted:?}");
        }
        let heavy = bootstrap_weighted_mean(&[1.0, 2.0], &[1.0, 3.0], 10, 0.9, &mut rngs[0]).unwrap();
        assert_eq!(heavy.estimate, 1.75);
    }

    #[test]
    fn wilson_matches_the_golden_values() {
        for case in golden("wilson").as_array().unwrap() {
            let count = |key: &str| case[key].as_u64().unwrap();
            let found = wilson(count("successes"), count("trials"), case["confidence"].as_f64().unwrap()).unwrap();
            close(found.low, &case["low"], 1e-12);
            close(found.high, &case["high"], 1e-12);
        }
    }

    #[test]
    fn wilson_by_hand() {
        // 1 of 1 at z = 1.959964: centre = (1 + z²/2) / (1 + z²) = 2.920729 / 4.841459 = 0.603275, reach = (z²/2) /
        // (1 + z²) = 1.920729 / 4.841459 = 0.396725: from 0.206549 to 1.
        let all = wilson(1, 1, 0.95).unwrap();
        assert_eq!((all.estimate, all.high), (1.0, 1.0));
        assert!((all.low - 0.206_549).abs() < 1e-6);
        // Successes and failures mirror each other.
        let (some, others) = (wilson(3, 10, 0.9).unwrap(), wilson(7, 10, 0.9).unwrap());
        assert!((some.low - (1.0 - others.high)).abs() < 1e-15);
        assert_eq!(wilson(0, 50, 0.95).unwrap().low, 0.0);
        assert_eq!(wilson(0, 0, 0.95), Err(Error::TooFew { sample: "trials", needed: 1, got: 0 }));
    }

    #[test]
    #[should_panic(expected = "3 successes in 2 trials")]
    fn more_successes_than_trials_panic() {
        let _ = wilson(3, 2, 0.95);
    }

    #[test]
    fn bootstrap_matches_the_golden_interval() {
        let case = golden("bootstrap");
        let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
        let rng = || ChaCha8Rng::seed_from_u64(17);
        // With 20 000 resamples an end scatters by √(0.05 · 0.95 / 20 000) / φ(1.645) = 0.015 standard errors. Both
        // standard errors are about 0.1, so two such ends differ by √2 · 0.0015 = 0.002: 0.01 is five times that.
        let found = bootstrap_mean(&a, 20_000, 0.9, &mut rng()).unwrap();
        close(found.estimate, &case["mean"], 1e-12);
        close(found.low, &case["low"], 0.01);
        close(found.high, &case["high"], 0.01);
        let paired = bootstrap_mean_difference(&a, &b, 20_000, 0.9, &mut rng()).unwrap();
        close(paired.estimate, &case["difference"], 1e-12);
        close(paired.low, &case["difference_low"], 0.01);
        close(paired.high, &case["difference_high"], 0.01);
        assert_eq!(found, bootstrap_mean(&a, 20_000, 0.9, &mut rng()).unwrap());
    }

    #[test]
    fn bootstrap_of_two_coins_is_the_binomial() {
        // Means of two draws from {0, 1} are 0, ½, 1 with chances ¼, ½, ¼: the middle 40% is ½ alone, the middle 60%
        // reaches from 0 to 1.
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let narrow = bootstrap_mean(&[0.0, 1.0], 4000, 0.4, &mut rng).unwrap();
        assert_eq!(narrow, Interval { estimate: 0.5, low: 0.5, high: 0.5 });
        let wide = bootstrap_mean(&[0.0, 1.0], 4000, 0.6, &mut rng).unwrap();
        assert_eq!(wide, Interval { estimate: 0.5, low: 0.0, high: 1.0 });
    }

    #[test]
    fn pairing_cancels_what_the_pairs_share() {
        let hard: Vec<f64> = (0..40).map(f64::from).collect();
        let easier: Vec<f64> = hard.iter().map(|value| value + 0.25).collect();
        let gain = bootstrap_mean_difference(&easier, &hard, 200, 0.95, &mut ChaCha8Rng::seed_from_u64(2)).unwrap();
        assert_eq!(gain, Interval { estimate: 0.25, low: 0.25, high: 0.25 });
    }

    #[test]
    fn bootstrap_refuses_samples_without_a_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        assert_eq!(bootstrap_mean(&[], 10, 0.95, &mut rng), Err(Error::TooFew { sample: "values", needed: 1, got: 0 }));
        let broken = bootstrap_mean_difference(&[0.0], &[f64::INFINITY], 10, 0.95, &mut rng);
        assert_eq!(broken, Err(Error::NotFinite { sample: "b", index: 0, value: f64::INFINITY }));
    }

    #[test]
    fn quantiles_interpolate() {
        let sorted = [0.0, 10.0, 20.0];
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|share| quantile(&sorted, share)), [0.0, 5.0, 10.0, 20.0]);
        assert_eq!(quantile(&[7.0], 0.3), 7.0);
    }
}
