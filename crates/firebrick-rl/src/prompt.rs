//! What a policy is asked.

use std::ops::Range;

use firebrick_train::Order;
use firebrick_types::{Dialogue, Seed, TokenId};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// What a policy is asked, and what a reward may know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The tokens that the response stands behind; not empty.
    pub tokens: Vec<TokenId>,
    /// Its name among the prompts.
    pub id: String,
    /// What kind of prompt it is, for instance the set that it comes from; empty if nobody says.
    pub tag: String,
    /// How often it is asked beside the others.
    pub weight: f64,
    /// The answer that a verifier holds a response against, if there is one.
    pub reference: Option<String>,
    /// The conversation that the tokens are of, for a reward that reads another form of it; none, where nobody says.
    pub dialogue: Option<Dialogue>,
}

impl Prompt {
    /// A prompt of weight 1 about which nothing else is known.
    pub fn new(id: impl Into<String>, tokens: Vec<TokenId>) -> Self {
        Self { tokens, id: id.into(), tag: String::new(), weight: 1.0, reference: None, dialogue: None }
    }
}

/// The prompts at these places of the endless order: round after round, each in an order of its own.
///
/// A round has as many places as there are prompts. A prompt of the mean weight stands in each round once, another one as often as its
/// weight says, rounded up or down so that over many rounds it is exact.
pub(crate) fn at(places: Range<u64>, prompts: &[Prompt], seed: Seed) -> Vec<usize> {
    let seed = seed.derive("ppo/prompts");
    let mut order = Order::new(prompts.len(), |round| Some(seed.at(&[round])));
    let taken = order.take(places);
    if prompts.iter().all(|prompt| prompt.weight == prompts[0].weight) {
        return taken.into_iter().map(|(_, index)| index).collect();
    }
    let mut drawn = (u64::MAX, Vec::new());
    let prompt = |(round, place): (u64, usize)| {
        if drawn.0 != round {
            drawn = (round, systematic(prompts, seed.derive("weights").at(&[round])));
        }
        drawn.1[place]
    };
    taken.into_iter().map(prompt).collect()
}

/// As many prompts as there are, each by its weight: those in which the points `(k + u) / n` of the cumulated weights fall.
///
/// Systematic sampling, Madow 1949.
fn systematic(prompts: &[Prompt], seed: Seed) -> Vec<usize> {
    let total = prompts.iter().map(|prompt| prompt.weight).sum::<f64>();
    let start = seed.rng().random::<f64>();
    let step = total / prompts.len() as f64;
    let (mut index, mut below) = (0, prompts[0].weight);
    let at = |place: usize| {
        while below <= (place as f64 + start) * step && index + 1 < prompts.len() {
            index += 1;
            below += prompts[index].weight;
        }
        index
    };
    (0..prompts.len()).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[f64], rounds: u64) -> Vec<usize> {
        let prompt = |(index, &weight): (usize, &f64)| Prompt { weight, ..Prompt::new(index.to_string(), vec![1]) };
        let prompts = weights.iter().enumerate().map(prompt).collect::<Vec<_>>();
        let asked = at(0..rounds * prompts.len() as u64, &prompts, Seed::new(1));
        (0..prompts.len()).map(|index| asked.iter().filter(|&&one| one == index).count()).collect()
    }

    #[test]
    fn prompts_are_asked_as_often_as_their_weights_say() {
        assert_eq!(counts(&[1.0, 1.0, 1.0], 5), [5, 5, 5]);
        // Of 6 places a round 3, 2, 1, 0, and the last two share what is left.
        assert_eq!(counts(&[3.0, 2.0, 1.0, 0.0, 0.0, 0.0], 4), [12, 8, 4, 0, 0, 0]);
        let [half, whole] = counts(&[0.5, 1.5], 400)[..] else { panic!("two prompts") };
        assert_eq!(half + whole, 800);
        assert!((180..=220).contains(&half), "{half} of 800");
    }

    #[test]
    fn where_an_iteration_begins_changes_nothing() {
        let prompts =
            (0..7).map(|index| Prompt { weight: f64::from(index), ..Prompt::new("", vec![1]) }).collect::<Vec<_>>();
        let whole = at(0..40, &prompts, Seed::new(1));
        assert_eq!(at(13..30, &prompts, Seed::new(1)), whole[13..30]);
    }
}
