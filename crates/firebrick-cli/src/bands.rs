//! Expected bands of a run's metrics.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Prints every metric beside its band; whether all lie within.
///
/// # Errors
/// If the bands cannot be read.
pub(crate) fn check(bands: &str, metrics: &BTreeMap<String, f64>) -> Result<bool> {
    let bands: BTreeMap<String, [f64; 2]> = toml::from_str(bands).context("the bands of this recipe")?;
    println!("{:28} {:>10} {:>10} {:>10}", "metric", "value", "low", "high");
    let mut all = true;
    for (name, [low, high]) in bands {
        let value = metrics.get(&name).copied().unwrap_or(f64::NAN);
        let within = low <= value && value <= high;
        all &= within;
        println!("{name:28} {value:10.4} {low:10.4} {high:10.4} {}", if within { "" } else { "OUTSIDE" });
    }
    Ok(all)
}
