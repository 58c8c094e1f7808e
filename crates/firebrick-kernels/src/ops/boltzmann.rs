//! Sampling weights of logits in memory of the processor.

/// The weights that tokens are drawn with, the greatest 1 where `max` is the greatest logit; in memory of the processor.
///
/// ```text
/// wᵢ = exp((xᵢ − max) / temperature)
/// ```
///
/// # Panics
/// If the temperature is not positive.
pub fn boltzmann(logits: &[f32], max: f32, temperature: f64) -> Vec<f64> {
    assert!(temperature > 0.0, "a temperature of {temperature}");
    #[cfg(feature = "flex")]
    {
        let mut weights = vec![0.0; logits.len()];
        fused::boltzmann(logits, max.into(), temperature, &mut weights);
        weights
    }
    #[cfg(not(feature = "flex"))]
    plain::boltzmann(logits, max, temperature)
}

/// The greatest of some numbers, −∞ of none; what is not a number does not count.
pub fn greatest(numbers: &[f32]) -> f32 {
    #[cfg(feature = "flex")]
    return fused::greatest_of(numbers);
    #[cfg(not(feature = "flex"))]
    plain::greatest(numbers)
}

pub(crate) mod plain {
    /// [`crate::boltzmann`].
    pub fn boltzmann(logits: &[f32], max: f32, temperature: f64) -> Vec<f64> {
        logits.iter().map(|&logit| ((f64::from(logit) - f64::from(max)) / temperature).exp()).collect()
    }

    /// [`crate::greatest`].
    pub fn greatest(numbers: &[f32]) -> f32 {
        numbers.iter().fold(f32::NEG_INFINITY, |max, &number| if number > max { number } else { max })
    }
}

#[cfg(feature = "flex")]
mod fused {
    use multiversion::multiversion;

    use crate::vector::{exp_f64, max};

    /// [`crate::boltzmann`].
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    pub(super) fn boltzmann(x: &[f32], max: f64, temperature: f64, weights: &mut [f64]) {
        for (weight, &x) in weights.iter_mut().zip(x) {
            *weight = exp_f64((f64::from(x) - max) / temperature);
        }
    }

    /// [`crate::greatest`].
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    pub(super) fn greatest_of(x: &[f32]) -> f32 {
        max(x)
    }
}
