//! The expected numbers that `goldens/make.py` computed elsewhere.

use serde_json::Value;

/// One case of `goldens/stats.json`.
pub(crate) fn golden(case: &str) -> Value {
    let mut goldens: Value = serde_json::from_str(include_str!("../goldens/stats.json")).unwrap();
    goldens[case].take()
}

/// A JSON list of numbers.
pub(crate) fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Asserts that a number lies within `tolerance` of a golden one.
#[track_caller]
pub(crate) fn close(found: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected} within {tolerance}");
}
