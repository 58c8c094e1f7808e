//! Simulated annotators: a hidden utility, seen through noise.

use firebrick_types::{Dialogue, LabelledComparison, Seed};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use crate::answer::grades;
use crate::question::{Kind, Query};
use crate::{Grade, Judgement, Kinds, Weights, World};

/// Utilities closer than this are equal: their pair is never shown.
const EQUAL: f64 = 1e-9;

/// People who prefer the better answer, most of the time.
///
/// ```text
/// P(a ≻ b) = σ((uₐ − u_b) / τ)
/// ```
/// with u the [utility](Judgement::utility) of the oracle's judgement: the Bradley–Terry model behind A-16. Spec: H-02.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotator {
    weights: Weights,
    temperature: f64,
}

impl Annotator {
    /// The annotator whose expected agreement with the noise-free order, over the comparisons of a world, is
    /// `agreement`.
    ///
    /// The expectation is exact: it is over the kinds and the pairs of grades of different utility.
    pub(crate) fn calibrate(weights: Weights, kinds: Kinds, agreement: f64) -> Self {
        let expected = |temperature: f64| {
            [(Kind::Known, kinds.known), (Kind::Unknown, kinds.unknown), (Kind::Harm, kinds.harm)]
                .map(|(kind, share)| {
                    let pairs = pairs(kind, &weights);
                    let agreements = pairs.iter().map(|pair| pair.share * sigmoid(pair.difference / temperature));
                    share * agreements.sum::<f64>()
                })
                .iter()
                .sum::<f64>()
        };
        // The agreement falls from 1 to ½ as the temperature rises; bisection on a logarithmic scale.
        let scale = weights.helpful + weights.honest + weights.harmless;
        let (mut cold, mut hot) = (1e-9 * scale, 1e9 * scale);
        for _ in 0..200 {
            let middle = (cold * hot).sqrt();
            if expected(middle) > agreement { cold = middle } else { hot = middle }
        }
        Self { weights, temperature: cold }
    }

    /// The temperature τ, in units of utility.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// The hidden utility of an answer judged so.
    pub fn utility(&self, judgement: &Judgement) -> f64 {
        judgement.utility(&self.weights)
    }

    /// The greatest utility an answer can have: the sum of the weights.
    pub(crate) fn greatest_utility(&self) -> f64 {
        self.weights.helpful + self.weights.honest + self.weights.harmless
    }

    /// The probability that an answer of utility `a` is preferred to one of utility `b`: σ((a − b) / τ).
    pub fn probability(&self, a: f64, b: f64) -> f64 {
        sigmoid((a - b) / self.temperature)
    }
}

/// Two grades of different utility.
#[derive(Clone, Copy)]
struct Pair {
    better: Grade,
    worse: Grade,
    /// By how much, in units of utility; positive.
    difference: f64,
    /// How often two candidates of different utility are these; the shares of a kind add up to 1.
    share: f64,
}

/// Every pair of grades of different utility.
fn pairs(kind: Kind, weights: &Weights) -> Vec<Pair> {
    let grades = grades(kind);
    let mut pairs = Vec::new();
    for better in &grades {
        for worse in &grades {
            let difference = better.judgement.utility(weights) - worse.judgement.utility(weights);
            if difference > EQUAL {
                pairs.push(Pair {
                    better: better.grade,
                    worse: worse.grade,
                    difference,
                    share: better.share * worse.share,
                });
            }
        }
    }
    let total = pairs.iter().map(|pair| pair.share).sum::<f64>();
    pairs.iter_mut().for_each(|pair| pair.share /= total);
    pairs
}

/// σ(x) = 1 / (1 + e⁻ˣ)
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A comparison as an annotator left it, and how sure its outcome was.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedComparison {
    /// The comparison; the chosen response is A.
    pub labelled: LabelledComparison,
    /// The probability with which annotators prefer the chosen response: above ½ if it is the better one without noise.
    pub probability: f64,
}

impl SimulatedComparison {
    /// The comparison without noise: the better response chosen.
    #[must_use]
    pub fn clean(&self) -> LabelledComparison {
        let Self { labelled, probability } = self.clone();
        if probability >= 0.5 {
            return labelled;
        }
        let (chosen, rejected) = labelled.chosen_and_rejected().expect("simulated annotators choose");
        LabelledComparison::of_chosen(labelled.prompt().clone(), rejected, chosen, &labelled.source)
    }
}

/// The expected accuracy of the best possible predictor on these noisy labels.
///
/// ```text
/// mean of max(p, 1 − p)
/// ```
/// NaN if there are none.
pub fn ceiling(comparisons: &[SimulatedComparison]) -> f64 {
    let best = comparisons.iter().map(|one| one.probability.max(1.0 - one.probability));
    best.sum::<f64>() / comparisons.len() as f64
}

impl World {
    /// The comparison at `seed`: two answers of different utility to one query, labelled by a simulated annotator.
    pub fn comparison(&self, seed: Seed) -> SimulatedComparison {
        let mut rng = seed.derive("world/comparison").rng();
        let kind = self.draw_kind(&mut rng);
        let (query, better, worse) = self.draw_pair(kind, &mut rng);
        self.compare(&query.dialogue, better, worse, seed)
            .expect("grades are judged as designed, and differ in utility")
    }

    /// The label that a simulated annotator gives two answers of any origin.
    ///
    /// `None` if the prompt does not end with a question of this world, or if the answers are equally good: people who
    /// cannot tell do not choose, and weak preferences are not kept (B-03).
    pub fn compare(&self, prompt: &Dialogue, a: String, b: String, seed: Seed) -> Option<SimulatedComparison> {
        let kind = self.kind(prompt)?;
        let utility = |response: &str| self.judge(prompt, response).map(|judgement| self.annotator.utility(&judgement));
        let (utility_a, utility_b) = (utility(&a)?, utility(&b)?);
        if (utility_a - utility_b).abs() <= EQUAL {
            return None;
        }
        let probability_a = self.annotator.probability(utility_a, utility_b);
        let (chosen, rejected, probability) = if seed.derive("world/label").rng().random_bool(probability_a) {
            (a, b, probability_a)
        } else {
            (b, a, 1.0 - probability_a)
        };
        let labelled = LabelledComparison::of_chosen(prompt.clone(), chosen, rejected, kind.tranche());
        Some(SimulatedComparison { labelled, probability })
    }

    /// A query of this kind with a better and a worse answer.
    pub(crate) fn draw_pair(&self, kind: Kind, rng: &mut impl Rng) -> (Query, String, String) {
        let (query, question) = self.draw_query(kind, rng);
        let pairs = pairs(kind, &self.annotator.weights);
        let Pair { better, worse, .. } =
            pairs.choose_weighted(rng, |pair| pair.share).expect("every kind has a pair of different utility");
        let better = self.answer(&question, *better, rng);
        let worse = self.answer(&question, *worse, rng);
        (query, better, worse)
    }
}
