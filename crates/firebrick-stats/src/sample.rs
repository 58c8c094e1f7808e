//! Checks and moments that every statistic of a sample starts from.

use crate::Error;

/// Refuses a sample with fewer than `needed` values or with a value that is not finite.
pub(crate) fn check(sample: &'static str, values: &[f64], needed: usize) -> Result<(), Error> {
    if values.len() < needed {
        return Err(Error::TooFew { sample, needed, got: values.len() });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Error::NotFinite { sample, index, value: values[index] }),
        None => Ok(()),
    }
}

/// The mean of a sample that [`check`] has let through.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_sample_the_place_and_the_fix() {
        let short = check("scores", &[], 1).unwrap_err();
        assert_eq!(short.to_string(), "scores: 0 given, at least 1 needed; collect more, or leave this statistic out");
        let broken = check("scores", &[1.0, f64::NAN], 1).unwrap_err();
        assert_eq!(broken.to_string(), "scores[1] is NaN; remove it, or find out what computed it");
        assert!(check("scores", &[f64::NEG_INFINITY], 1).is_err());
        assert_eq!(check("scores", &[1.0, 2.0], 2), Ok(()));
    }
}
