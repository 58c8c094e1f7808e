//! The standard normal distribution, as far as intervals need it.

use std::f64::consts::PI;

/// The density φ(z) = exp(−z²/2) / √(2π).
fn density(z: f64) -> f64 {
    (-z * z / 2.0).exp() / (2.0 * PI).sqrt()
}

/// The distribution function, Φ(z) = ½ + φ(z) (z + z³/3 + z⁵/(3·5) + z⁷/(3·5·7) + …).
///
/// Marsaglia 2004, "Evaluating the Normal Distribution", Journal of Statistical Software 11(4).
fn distribution(z: f64) -> f64 {
    let mut term = z;
    let mut sum = 0.0;
    let mut divisor = 1.0;
    while sum + term != sum {
        sum += term;
        divisor += 2.0;
        term *= z * z / divisor;
    }
    0.5 + density(z) * sum
}

/// How many standard errors a two-sided interval reaches to each side: the z with Φ(z) = (1 + confidence) / 2.
///
/// # Panics
/// If `confidence` is not between 0 and 1.
pub(crate) fn critical_value(confidence: f64) -> f64 {
    assert!(confidence > 0.0 && confidence < 1.0, "confidence must be between 0 and 1, not {confidence}");
    let target = (1.0 + confidence) / 2.0;
    // Φ(9) rounds to 1, so the root lies below.
    let (mut low, mut high) = (0.0, 9.0);
    loop {
        let middle = (low + high) / 2.0;
        if middle == low || middle == high {
            return middle;
        }
        if distribution(middle) < target { low = middle } else { high = middle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_values_are_those_of_the_tables() {
        for (confidence, z) in [(0.5, 0.674_489_750_196), (0.95, 1.959_963_984_540), (0.999, 3.290_526_731_492)] {
            assert!((critical_value(confidence) - z).abs() < 1e-11, "{confidence}");
        }
        // The series loses digits in the far tail, never the search its end.
        assert!((critical_value(1.0 - 1e-9) - 6.109_410_2).abs() < 1e-6);
        assert!((8.0..9.0).contains(&critical_value(1.0 - f64::EPSILON)));
    }

    #[test]
    #[should_panic(expected = "confidence must be between 0 and 1, not 95")]
    fn a_percentage_is_refused() {
        critical_value(95.0);
    }
}
