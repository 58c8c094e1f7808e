//! Splits that keep a conversation in one part (T-24).
//!
//! Where a record goes is decided by what the person said first, and by nothing else: not by its place in the file, nor
//! by a seed. A conversation therefore stays in its part when records are added, removed or reordered.

use std::collections::HashSet;

use crate::Error;

/// Records to learn from and records to measure on.
#[derive(Clone, Debug, PartialEq)]
pub struct Split<T> {
    /// To learn from.
    pub train: Vec<T>,
    /// To measure on.
    pub held_out: Vec<T>,
}

/// The place of a conversation in [0, 1), even over conversations: BLAKE3 of its opening.
///
/// Spec: T-24.
pub fn bucket(opening: &str) -> f64 {
    // The upper 53 bits, as many as an f64 holds.
    (digest(opening) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Records split by conversation; the share `held_out` of the conversations is held out, as [`bucket`] falls.
///
/// `opening` gives what the person said first. Spec: T-24.
///
/// # Errors
/// If a part is empty.
///
/// # Panics
/// If `held_out` is not between 0 and 1.
pub fn by_conversation<T>(records: Vec<T>, held_out: f64, opening: impl Fn(&T) -> &str) -> Result<Split<T>, Error> {
    assert!(0.0 < held_out && held_out < 1.0, "the held-out share lies between 0 and 1, is {held_out}");
    let conversations = conversations(&records, &opening);
    let total = records.len();
    let (held_out_records, train): (Vec<T>, Vec<T>) =
        records.into_iter().partition(|record| bucket(opening(record)) < held_out);
    check("train", &train, 1.0 - held_out, total, conversations)?;
    check("held-out", &held_out_records, held_out, total, conversations)?;
    Ok(Split { train, held_out: held_out_records })
}

/// Records split by conversation into two halves, independently of [`by_conversation`]: for a train and a test
/// preference model.
///
/// Bai et al. 2022, [arXiv:2204.05862](https://arxiv.org/abs/2204.05862), section 4.2. Spec: B-27, T-24.
///
/// # Errors
/// If a half is empty.
pub fn halves<T>(records: Vec<T>, opening: impl Fn(&T) -> &str) -> Result<[Vec<T>; 2], Error> {
    let conversations = conversations(&records, &opening);
    let total = records.len();
    // A bit that the bucket leaves out, so that a half of the train part is still a half.
    let (first, second): (Vec<T>, Vec<T>) =
        records.into_iter().partition(|record| digest(opening(record)).is_multiple_of(2));
    check("first half", &first, 0.5, total, conversations)?;
    check("second half", &second, 0.5, total, conversations)?;
    Ok([first, second])
}

fn digest(opening: &str) -> u64 {
    let hash = blake3::hash(opening.as_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes, and 8 are taken"))
}

fn conversations<T>(records: &[T], opening: impl Fn(&T) -> &str) -> usize {
    records.iter().map(opening).collect::<HashSet<_>>().len()
}

fn check<T>(split: &'static str, part: &[T], share: f64, records: usize, conversations: usize) -> Result<(), Error> {
    if part.is_empty() { Err(Error::EmptySplit { split, records, conversations, share }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use firebrick_types::LabelledComparison;
    use proptest::prelude::*;

    use super::*;
    use crate::file::tests::real_data;

    /// Four records for each of `count` conversations.
    fn records(count: usize) -> Vec<(String, usize)> {
        (0..4 * count).map(|index| (format!("opening {}", index % count), index)).collect()
    }

    fn opening(record: &(String, usize)) -> &str {
        &record.0
    }

    fn share_opening<T>(a: &[T], b: &[T], opening: impl Fn(&T) -> &str) -> bool {
        let a: HashSet<&str> = a.iter().map(&opening).collect();
        b.iter().any(|record| a.contains(opening(record)))
    }

    #[test]
    fn t24_no_conversation_is_in_two_splits() {
        let split = by_conversation(records(500), 0.2, opening).unwrap();
        assert!(!share_opening(&split.train, &split.held_out, opening));
        assert_eq!(split.train.len() + split.held_out.len(), 2000);
        let [first, second] = halves(records(500), opening).unwrap();
        assert!(!share_opening(&first, &second, opening));
        assert_eq!(first.len() + second.len(), 2000);
    }

    #[test]
    fn shares_are_what_was_asked_for() {
        // 2000 conversations: 0.2 ± 0.009 and 0.5 ± 0.011, one standard deviation.
        let split = by_conversation(records(2000), 0.2, opening).unwrap();
        assert!((split.held_out.len() as f64 / 8000.0 - 0.2).abs() < 0.04);
        let [first, _] = halves(split.train, opening).unwrap();
        assert!((first.len() as f64 / (0.8 * 8000.0) - 0.5).abs() < 0.05, "halves are independent of the split");
    }

    /// Recorded once: a change would move conversations from one part to another.
    #[test]
    fn buckets_are_stable_across_versions() {
        // BLAKE3 of the empty text begins af 13 49 b9 f5 f9 a1 a6: 0xa6a1f9f5b94913af / 2⁶⁴ = 0.650909.
        assert!((bucket("") - 0.650_909).abs() < 1e-6, "{}", bucket(""));
    }

    #[test]
    fn an_empty_part_is_an_error() {
        let message = |result: Result<(), Error>| result.unwrap_err().to_string();
        assert_eq!(
            message(by_conversation(records(1), 1e-9, opening).map(|_| ())),
            "the held-out split is empty: 4 records of 1 conversations, of which it takes the share 0.000000001; \
             give more conversations or another share"
        );
        assert!(
            message(by_conversation(Vec::new(), 0.5, opening).map(|_| ()))
                .starts_with("the train split is empty: 0 records")
        );
        assert!(
            message(halves(records(1), opening).map(|_| ()))
                .contains("half split is empty: 4 records of 1 conversations")
        );
    }

    proptest! {
        #[test]
        fn buckets_lie_in_the_unit_interval(text in any::<String>()) {
            prop_assert!((0.0..1.0).contains(&bucket(&text)));
        }
    }

    #[test]
    fn t24_holds_on_the_released_data() {
        let Some(root) = real_data("hh-rlhf-subset") else { return };
        let (comparisons, _) =
            crate::comparisons::read(&root.join("harmless-base/train.jsonl.gz"), "harmless-base").unwrap();
        fn opening(row: &LabelledComparison) -> &str {
            row.prompt().opening().expect("a prompt begins with the person")
        }
        let split = by_conversation(comparisons, 0.1, opening).unwrap();
        assert!(!share_opening(&split.train, &split.held_out, opening));
    }
}
