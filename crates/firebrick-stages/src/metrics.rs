//! What the metrics of finished models mean: the one list from which results take units and directions, and the book its page.

use firebrick_types::{Better, Measured};

/// A metric of a pipeline.
struct Metric {
    /// Its name; `POLICY`, `AXIS` and `WHEN` stand for any.
    name: &'static str,
    unit: &'static str,
    better: Better,
    /// What guessing gives, if guessing gives something.
    chance: Option<f64>,
    meaning: &'static str,
    /// How to read it.
    read: &'static str,
}

const fn metric(
    name: &'static str,
    unit: &'static str,
    better: Better,
    chance: Option<f64>,
    meaning: &'static str,
    read: &'static str,
) -> Metric {
    Metric { name, unit, better, chance, meaning, read }
}

use Better::{Higher, Lower, Neither};

#[rustfmt::skip]
const METRICS: &[Metric] = &[
    metric("pm/accuracy", "share of pairs", Higher, Some(0.5), "the train preference model on all test comparisons", "above `pm/length_baseline`, towards `pm/ceiling`"),
    metric("pm/test_pm_accuracy", "share of pairs", Higher, Some(0.5), "the test preference model on the same", "near `pm/accuracy`"),
    metric("pm/length_baseline", "share of pairs", Neither, Some(0.5), "\"longer\" or \"shorter\", as was right in training", "what must be beaten (T-33)"),
    metric("pm/ceiling", "share of pairs", Neither, None, "the best predictor of the noisy labels; world only", "the most that can be had"),
    metric("pm/clean_accuracy", "share of pairs", Higher, Some(0.5), "the train model on labels without noise; world only", "the nearer to 1 the better"),
    metric("pm/brier", "", Lower, Some(0.25), "mean squared error of predicted probabilities", "a coin has ¼"),
    metric("pm/ece", "", Lower, None, "expected calibration error", "near 0; compare at equal bins and sizes only"),
    metric("pm/loss", "nats a pair", Lower, None, "mean ranked loss on held-out comparisons", "a coin has ln 2"),
    metric("pm/calibration_slope", "", Neither, None, "slope of observed log-odds over predicted ones", "1 is calibrated, below is over-confident"),
    metric("pmp/accuracy", "share of pairs", Higher, Some(0.5), "a pretrained preference model on held-out pairs of answers", "above ½, its interval too"),
    metric("pmp/loss", "nats a pair", Lower, None, "mean ranked loss on them", "a coin has ln 2"),
    metric("distill/kl/WHEN", "nats a token", Lower, None, "divergence of the student from the teacher behind the prompt, on held-out text, `before` and `after`", "`after` below `before`"),
    metric("train_pm/gain", "logits", Higher, Some(0.0), "mean score of `rlhf`'s answers less that of `distilled`'s, by the train preference model", "above 0"),
    metric("test_pm/gain", "logits", Higher, Some(0.0), "the same by the test preference model", "above 0; the train model's far above it is over-optimisation"),
    metric("finished/POLICY", "share of answers", Higher, None, "answers that ended by themselves", "near 1 where the model knows how answers end"),
    metric("response_length/POLICY", "tokens", Neither, None, "mean length of an answer", "see below"),
    metric("oracle/POLICY", "0 to 1", Higher, None, "mean verdict of the oracle; world only", "`rlhf` above `distilled`"),
    metric("oracle/POLICY/AXIS", "0 to 1", Higher, None, "the same of `helpful`, `honest`, `harmless` alone", "which of the three paid for another"),
    metric("hhh/POLICY", "share of items", Higher, Some(0.5), "accuracy on HHH items by mutual information", "chance is ½"),
    metric("eval_loss/WHEN", "nats a token", Lower, None, "mean loss of the tokens that count in held-out rows, `before` and `after` finetuning", "`after` below `before`"),
    metric("eval_perplexity/WHEN", "", Lower, None, "its exponential", "the same"),
    metric("eval_mean_token_accuracy/WHEN", "share of tokens", Higher, None, "held-out tokens that count and were the likeliest", "`after` above `before`"),
    metric("perplexity/POLICY", "", Lower, None, "of held-out documents; of `prompted` behind the prompt, as much of each as the context then holds", "what alignment costs in language"),
    metric("reward/POLICY", "score", Higher, None, "mean score of a policy's responses by the reward model it learnt from", "after above before"),
    metric("test_reward/POLICY", "score", Higher, None, "the same by a reward model that it did not learn from", "grows with `reward`; where it falls behind, the reward is gamed"),
    metric("win_rate/POLICY", "share of prompts", Higher, Some(0.5), "prompts on which a policy's response scores higher than the first policy's", "above ½, its interval too"),
    metric("kl/POLICY", "nats a response", Neither, None, "exact divergence of a policy from the first one on its own responses", "what the reward has cost"),
    metric("length_score_correlation/POLICY", "", Neither, Some(0.0), "Pearson's correlation of length and reward over all responses", "far from 0: length may be what is rewarded (T-33)"),
    metric("win_rate", "share of prompts", Higher, Some(0.5), "prompts on which `rlhf` beats `distilled`, by the test model", "above ½, its interval too"),
    metric("kl", "nats an answer", Neither, None, "exact divergence of `rlhf` from `distilled` on its answers", "grows with training, falls with β"),
];

/// A number under its name, with what the list says of it.
///
/// # Panics
/// If the list does not know the name.
pub(crate) fn measured(name: impl Into<String>, estimate: f64) -> Measured {
    let name = name.into();
    let fits = |metric: &&Metric| {
        let (parts, wanted) = (name.split('/').collect::<Vec<_>>(), metric.name.split('/').collect::<Vec<_>>());
        let fits = |(part, wanted): (&&str, &&str)| part == wanted || ["POLICY", "AXIS", "WHEN"].contains(wanted);
        parts.len() == wanted.len() && parts.iter().zip(&wanted).all(fits)
    };
    let known = METRICS.iter().find(fits).unwrap_or_else(|| panic!("the list of metrics has no `{name}`"));
    Measured {
        unit: known.unit.to_owned(),
        better: known.better,
        chance: known.chance,
        ..Measured::new(name, estimate)
    }
}

/// The list as a table: what the book shows.
pub fn to_markdown() -> String {
    let mut text =
        "| name | meaning | unit | better | chance | read it so |\n| --- | --- | --- | --- | ---: | --- |\n".to_owned();
    for Metric { name, unit, better, chance, meaning, read } in METRICS {
        let better = match better {
            Higher => "higher",
            Lower => "lower",
            Neither => "",
        };
        let chance = chance.map_or(String::new(), |chance| chance.to_string());
        text += &format!("| `{name}` | {meaning} | {unit} | {better} | {chance} | {read} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_shows_the_list() {
        let book = include_str!("../../../docs/book/src/metrics.md");
        let table = to_markdown();
        assert!(book.contains(&table), "docs/book/src/metrics.md should hold:\n{table}");
    }

    #[test]
    fn names_of_policies_and_axes_are_known() {
        assert_eq!(measured("oracle/rlhf/honest", 0.5).unit, "0 to 1");
        assert_eq!(measured("hhh/distilled", 0.5).chance, Some(0.5));
        assert_eq!(measured("perplexity/prompted", 2.0).better, Lower);
    }

    #[test]
    #[should_panic(expected = "no `hhh`")]
    fn a_name_that_nobody_explains_is_a_bug() {
        measured("hhh", 0.5);
    }
}
