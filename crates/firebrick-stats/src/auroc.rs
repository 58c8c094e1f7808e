//! How well a score separates two classes.

use crate::{Error, sample};

/// The area under the receiver operating characteristic: the chance that a positive outscores a negative.
///
/// ```text
/// AUROC = (1 / nm) Σᵢⱼ ([pᵢ > nⱼ] + ½ [pᵢ = nⱼ])
/// ```
/// Hanley and McNeil 1982, "The Meaning and Use of the Area under a ROC Curve", Radiology 143. Spec: A-33, B-41, T-33.
///
/// 1 separates fully, ½ not at all, 0 fully the wrong way round. Given the lengths of chosen and rejected answers, it
/// says how far length alone explains a preference.
///
/// # Errors
/// [`Error::TooFew`] if a class is empty, [`Error::NotFinite`] if a score is not finite.
pub fn auroc(positives: &[f64], negatives: &[f64]) -> Result<f64, Error> {
    sample::check("positives", positives, 1)?;
    sample::check("negatives", negatives, 1)?;
    let mut sorted = negatives.to_vec();
    sorted.sort_by(f64::total_cmp);
    let wins: f64 = positives
        .iter()
        .map(|&positive| {
            let below = sorted.partition_point(|&negative| negative < positive);
            let not_above = sorted.partition_point(|&negative| negative <= positive);
            (below + not_above) as f64 / 2.0
        })
        .sum();
    Ok(wins / (positives.len() as f64 * negatives.len() as f64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::goldens::{close, golden, numbers};

    #[test]
    fn auroc_by_hand() {
        // Pairs (3,1) (3,2) (2,1) are won, (2,2) is a tie: 3.5 of 4.
        assert_eq!(auroc(&[3.0, 2.0], &[1.0, 2.0]), Ok(0.875));
        assert_eq!(auroc(&[1.0; 3], &[1.0; 5]), Ok(0.5));
        assert_eq!(auroc(&[2.0], &[1.0]), Ok(1.0));
        // The two zeros are equal, whichever sign they carry.
        assert_eq!(auroc(&[-0.0, 0.0], &[0.0, -0.0]), Ok(0.5));
    }

    #[test]
    fn auroc_matches_the_golden_value() {
        let case = golden("auroc");
        let found = auroc(&numbers(&case["positives"]), &numbers(&case["negatives"])).unwrap();
        close(found, &case["auroc"], 1e-14);
    }

    #[test]
    fn a_missing_class_is_an_error() {
        assert_eq!(auroc(&[1.0], &[]), Err(Error::TooFew { sample: "negatives", needed: 1, got: 0 }));
        assert!(matches!(auroc(&[f64::NAN], &[1.0]), Err(Error::NotFinite { sample: "positives", index: 0, .. })));
    }

    proptest! {
        #[test]
        fn swapping_the_classes_reflects_it_and_order_is_all_that_counts(
            positives in prop::collection::vec(-5..5i32, 1..20),
            negatives in prop::collection::vec(-5..5i32, 1..20),
        ) {
            let scores = |values: &[i32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
            let (positives, negatives) = (scores(&positives), scores(&negatives));
            let area = auroc(&positives, &negatives).unwrap();
            prop_assert!((auroc(&negatives, &positives).unwrap() - (1.0 - area)).abs() < 1e-14);
            let grown = |values: &[f64]| values.iter().map(|value| value.exp()).collect::<Vec<_>>();
            prop_assert_eq!(auroc(&grown(&positives), &grown(&negatives)).unwrap(), area);
        }
    }
}
