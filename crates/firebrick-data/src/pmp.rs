//! Pairs for preference-model pretraining (D-06, D-07).

use firebrick_types::{Seed, Thread, ThreadAnswer};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Two samples that continue one context, of which the readers' votes chose one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankedPair {
    /// What both samples continue.
    pub context: String,
    /// The chosen sample, without the context.
    pub chosen: String,
    /// The rejected sample, without the context.
    pub rejected: String,
}

/// Two whole texts, of which one was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPair {
    /// The chosen text.
    pub chosen: String,
    /// The rejected text.
    pub rejected: String,
}

/// The score of an answer.
///
/// ```text
/// score = round(log₂(1 + upvotes)) + [accepted]        −1 where upvotes < 0
/// ```
/// Askell et al. 2021, [arXiv:2112.00861](https://arxiv.org/abs/2112.00861), appendix C.1. Spec: A-26.
pub fn stackexchange_score(upvotes: i64, accepted: bool) -> i64 {
    if upvotes < 0 {
        return -1;
    }
    (1.0 + upvotes as f64).log2().round() as i64 + i64::from(accepted)
}

/// One ranked pair of each thread that has two answers of distinct scores, in the order of the threads.
///
/// The pair is drawn evenly from all such pairs of the thread. The context is `Question: …\nAnswer: `. Askell et al.
/// 2021, appendix C.1. Spec: A-26.
pub fn ranked_pairs(threads: &[Thread], seed: Seed) -> Vec<RankedPair> {
    let seed = seed.derive("pmp/stackexchange");
    let pair = |(index, thread): (usize, &Thread)| {
        let pairs = distinct_pairs(&thread.answers);
        if pairs.is_empty() {
            return None;
        }
        let (chosen, rejected) = pairs[seed.at(&[index as u64]).rng().random_range(0..pairs.len())];
        Some(RankedPair { context: context(thread), chosen: chosen.body.clone(), rejected: rejected.body.clone() })
    };
    threads.iter().enumerate().filter_map(pair).collect()
}

/// Whether two answers of a thread have distinct scores, so that it gives one of the [`ranked_pairs`].
pub fn has_pair(thread: &Thread) -> bool {
    !distinct_pairs(&thread.answers).is_empty()
}

/// All pairs of answers with distinct scores, the higher one first.
fn distinct_pairs(answers: &[ThreadAnswer]) -> Vec<(&ThreadAnswer, &ThreadAnswer)> {
    let score = |answer: &ThreadAnswer| stackexchange_score(answer.score, answer.accepted);
    let rejected_below = |chosen| {
        answers.iter().filter(move |rejected| score(chosen) > score(rejected)).map(move |rejected| (chosen, rejected))
    };
    answers.iter().flat_map(rejected_below).collect()
}

fn context(thread: &Thread) -> String {
    let parts = [thread.title.trim(), thread.body.trim()];
    let question: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("Question: {}\nAnswer: ", question.join("\n\n"))
}

/// The two samples, each after the context (A-35).
pub fn ranked(pair: &RankedPair) -> TextPair {
    let RankedPair { context, chosen, rejected } = pair;
    TextPair { chosen: format!("{context}{chosen}"), rejected: format!("{context}{rejected}") }
}

/// The two binary pairs of a ranked one: `GOOD:A > BAD:A` and `BAD:B > GOOD:B`, A being the chosen sample.
///
/// The label comes before the whole text, context and sample. Within each pair nothing but the label differs, so
/// nothing else can be learned from. Askell et al. 2021, section 4.1. Spec: A-30.
pub fn binarize(pair: &RankedPair) -> [TextPair; 2] {
    let labelled = |label: &str, sample: &str| format!("{label}:{}{sample}", pair.context);
    let RankedPair { chosen, rejected, .. } = pair;
    [
        TextPair { chosen: labelled("GOOD", chosen), rejected: labelled("BAD", chosen) },
        TextPair { chosen: labelled("BAD", rejected), rejected: labelled("GOOD", rejected) },
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::file::tests::real_data;

    fn thread(scores: &[(i64, bool)]) -> Thread {
        let answer =
            |&(score, accepted): &(i64, bool)| ThreadAnswer { score, accepted, body: format!("{score} {accepted}") };
        Thread { title: "T".into(), body: "B".into(), answers: scores.iter().map(answer).collect() }
    }

    #[test]
    fn a26_score_table() {
        // log₂ 1, 2, 4, 8, 16 are 0, 1, 2, 3, 4.
        for (upvotes, score) in [(0, 0), (1, 1), (3, 2), (7, 3), (15, 4)] {
            assert_eq!(stackexchange_score(upvotes, false), score);
            assert_eq!(stackexchange_score(upvotes, true), score + 1);
        }
        // log₂ 3 = 1.58 rounds up, log₂ 6 = 2.58 rounds up, log₂ 5 = 2.32 rounds down.
        assert_eq!([2, 5, 4].map(|upvotes| stackexchange_score(upvotes, false)), [2, 3, 2]);
        assert_eq!(stackexchange_score(-1, false), -1);
        assert_eq!(stackexchange_score(-7, true), -1);
        assert_eq!(stackexchange_score(i64::MAX, true), 64);
    }

    #[test]
    fn a26_equal_scores_are_never_paired() {
        // Upvotes 4 and 3 both score 2; 1 accepted scores 2 as well.
        assert!(ranked_pairs(&[thread(&[(4, false), (3, false), (1, true)])], Seed::new(1)).is_empty());
        assert!(ranked_pairs(&[thread(&[(4, false)]), thread(&[])], Seed::new(1)).is_empty());
    }

    #[test]
    fn the_context_ends_where_the_answer_begins() {
        let pairs = ranked_pairs(&[thread(&[(0, false), (8, false)])], Seed::new(1));
        let expected = RankedPair {
            context: "Question: T\n\nB\nAnswer: ".into(),
            chosen: "8 false".into(),
            rejected: "0 false".into(),
        };
        assert_eq!(pairs, [expected]);
        let no_body = Thread { body: " ".into(), ..thread(&[(0, false), (8, false)]) };
        assert_eq!(ranked_pairs(&[no_body], Seed::new(1))[0].context, "Question: T\nAnswer: ");
    }

    #[test]
    fn every_pair_is_drawn_about_equally_often() {
        // Scores 0, 1, 2 have three pairs; each of 3000 draws takes one: 1000 ± 26 (one standard deviation).
        let threads = vec![thread(&[(0, false), (1, false), (3, false)]); 3000];
        let pairs = ranked_pairs(&threads, Seed::new(1));
        for (chosen, rejected) in [("1 false", "0 false"), ("3 false", "0 false"), ("3 false", "1 false")] {
            let count = pairs.iter().filter(|pair| pair.chosen == chosen && pair.rejected == rejected).count();
            assert!((870..1130).contains(&count), "{chosen} > {rejected}: {count}");
        }
        assert_eq!(pairs, ranked_pairs(&threads, Seed::new(1)));
        assert_ne!(pairs, ranked_pairs(&threads, Seed::new(2)));
    }

    #[test]
    fn a30_labels_are_the_only_difference() {
        let pair = RankedPair { context: "C ".into(), chosen: "a".into(), rejected: "b".into() };
        let [good, bad] = binarize(&pair);
        assert_eq!((good.chosen.as_str(), good.rejected.as_str()), ("GOOD:C a", "BAD:C a"));
        assert_eq!((bad.chosen.as_str(), bad.rejected.as_str()), ("BAD:C b", "GOOD:C b"));
    }

    #[test]
    fn a35_ranked_texts_share_their_context() {
        let pair = RankedPair { context: "C ".into(), chosen: "a".into(), rejected: "b".into() };
        assert_eq!(ranked(&pair), TextPair { chosen: "C a".into(), rejected: "C b".into() });
    }

    proptest! {
        /// Length tells better from worse in the ranked pairs; after binarisation it tells nothing.
        #[test]
        fn a30_a_length_only_scorer_is_right_half_the_time(
            samples in prop::collection::vec(("[a-z]{0,9}", "[a-z]{0,9}"), 1..20),
        ) {
            let pairs: Vec<TextPair> = samples
                .into_iter()
                .flat_map(|(chosen, rejected)| binarize(&RankedPair { context: "C".into(), chosen, rejected }))
                .collect();
            let right = pairs.iter().filter(|pair| pair.chosen.len() > pair.rejected.len()).count();
            prop_assert_eq!(right * 2, pairs.len());
        }
    }

    #[test]
    fn real_threads_give_pairs() {
        let Some(folder) = real_data("pmp/stackexchange") else { return };
        let threads = crate::threads::read(&folder.join("alcohol.stackexchange.com.jsonl.gz")).unwrap();
        let all: usize = threads.iter().map(|thread| distinct_pairs(&thread.answers).len()).sum();
        // Counted apart from this code: 2196 pairs differ in up-votes, 1904 of them in score.
        assert_eq!((threads.len(), all), (644, 1904));
        let pairs = ranked_pairs(&threads, Seed::new(17));
        assert!(pairs.len() > 300 && pairs.len() <= threads.len(), "{}", pairs.len());
    }
}
