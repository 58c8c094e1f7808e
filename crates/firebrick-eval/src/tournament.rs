//! Policies against each other.

use firebrick_stats::WinTable;

/// How often policy A's answer to the same prompt scores higher than policy B's: 1, ½ for equal scores, 0.
///
/// # Panics
/// If there are not as many scores of one as of the other.
pub fn head_to_head(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "both answered the same prompts");
    crate::accuracy(&a.iter().copied().zip(b.iter().copied()).collect::<Vec<_>>())
}

/// The wins of every policy over every other one, from the scores of their answers to the same prompts; an equal score is half a
/// win for both (B-18).
///
/// # Panics
/// If two policies answered different numbers of prompts.
pub fn win_table(policies: &[(&str, &[f64])]) -> WinTable {
    let mut table = WinTable::new(policies.iter().map(|(name, _)| *name));
    for (a, (_, scores)) in policies.iter().enumerate() {
        for (b, (_, others)) in policies.iter().enumerate().skip(a + 1) {
            let won = head_to_head(scores, others).iter().sum::<f64>();
            table.record(a, b, won);
            table.record(b, a, scores.len() as f64 - won);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wins_and_ties_by_hand() {
        let table = win_table(&[("a", &[1.0, 2.0, 3.0]), ("b", &[0.0, 2.0, 4.0])]);
        assert_eq!((table.wins(0, 1), table.wins(1, 0)), (1.5, 1.5));
    }
}
