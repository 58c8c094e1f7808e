//! One token out of logits.

use firebrick_types::TokenId;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampler {
    /// The logits are divided by it; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the likeliest tokens that together reach this probability are drawn; 1 draws all.
    pub top_p: f64,
}

/// The model's own distribution: temperature 1, no truncation, as the papers sample in training (B-26).
impl Default for Sampler {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0 }
    }
}

impl Sampler {
    /// The likeliest token, always.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0 };

    /// A token drawn from logits; ties of the likeliest go to the smaller id.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn draw(&self, logits: &[f32], rng: &mut impl Rng) -> TokenId {
        let likeliest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        let likeliest = likeliest.expect("a vocabulary has tokens");
        if self.temperature == 0.0 {
            return likeliest as TokenId;
        }
        let largest = f64::from(logits[likeliest]);
        let weight = |&logit: &f32| ((f64::from(logit) - largest) / self.temperature).exp();
        let mut weights = logits.iter().map(weight).enumerate().collect::<Vec<_>>();
        if self.top_p < 1.0 {
            weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let goal = self.top_p * weights.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut reached = 0.0;
            let kept = weights.iter().take_while(|(_, weight)| {
                let open = reached < goal;
                reached += weight;
                open
            });
            let kept = kept.count();
            weights.truncate(kept.max(1));
        }
        let total = weights.iter().map(|(_, weight)| weight).sum::<f64>();
        let mut left = rng.random::<f64>() * total;
        for &(id, weight) in &weights {
            left -= weight;
            if left < 0.0 {
                return id as TokenId;
            }
        }
        weights.last().expect("at least one token is kept").0 as TokenId
    }
}

#[cfg(test)]
mod tests {
    use firebrick_types::Seed;

    use super::*;

    #[test]
    fn frequencies_follow_the_tempered_softmax() {
        let logits = [0.0, 1.0, 2.0];
        let sampler = Sampler { temperature: 2.0, top_p: 1.0 };
        let mut rng = Seed::new(1).rng();
        let mut counts = [0.0; 3];
        (0..20_000).for_each(|_| counts[sampler.draw(&logits, &mut rng) as usize] += 1.0 / 20_000.0);
        let z = 1.0 + 0.5_f64.exp() + 1.0_f64.exp();
        for (count, expected) in counts.iter().zip([1.0 / z, 0.5_f64.exp() / z, 1.0_f64.exp() / z]) {
            assert!((count - expected).abs() < 0.015, "{counts:?}"); // 4 standard errors
        }
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_that_reaches_its_mass() {
        // Probabilities .5, .3, .2: a nucleus of .6 needs the first two.
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
        let sampler = Sampler { temperature: 1.0, top_p: 0.6 };
        let mut rng = Seed::new(1).rng();
        let drawn = (0..500).map(|_| sampler.draw(&logits, &mut rng)).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        assert_eq!(Sampler::GREEDY.draw(&[1.0, 3.0, 3.0], &mut Seed::new(1).rng()), 1);
    }
}
