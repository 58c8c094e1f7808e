//! One token out of logits.

use std::borrow::Cow;
use std::collections::BTreeSet;

use firebrick_kernels::{boltzmann, greatest};
use firebrick_types::TokenId;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::Error;

/// How a token is drawn.
///
/// What is left out is the model's own distribution: temperature 1, no truncation, as the papers sample in training (B-26).
/// The parts apply in the order of the fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampler {
    /// Tokens that are never drawn.
    pub banned: Vec<TokenId>,
    /// Logits of tokens that the prompt or the sample already holds are divided by it where positive and multiplied where
    /// negative; 1 leaves them. Keskar et al. 2019, [arXiv:1909.05858](https://arxiv.org/abs/1909.05858), section 4.1.
    pub repetition_penalty: f64,
    /// The logits are divided by it; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only so many of the likeliest tokens are drawn; 0 draws all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability are drawn; 1 draws all, 0 the likeliest. Holtzman et al.
    /// 2019, [arXiv:1904.09751](https://arxiv.org/abs/1904.09751), section 3.1.
    pub top_p: f64,
    /// Only tokens at least this fraction as likely as the likeliest are drawn; 0 draws all. Nguyen et al. 2024,
    /// [arXiv:2407.01082](https://arxiv.org/abs/2407.01082).
    pub min_p: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { banned: Vec::new(), repetition_penalty: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

/// A token and the logarithm of the probability with which it was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The token.
    pub token: TokenId,
    /// In nats, of the distribution that the sampler makes of the logits.
    pub log_prob: f64,
}

impl Sampler {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Whether it draws from softmax(logits / temperature) as it is.
    pub fn is_plain(&self) -> bool {
        let Self { ref banned, repetition_penalty, temperature, top_k, top_p, min_p } = *self;
        let whole = top_k == 0 && top_p >= 1.0 && min_p <= 0.0;
        banned.is_empty() && repetition_penalty == 1.0 && temperature > 0.0 && whole
    }

    /// Why no token can be drawn with these numbers, if so; each named by its field.
    ///
    /// # Errors
    /// If a number lies outside what its field means.
    pub fn validate(&self) -> Result<(), Error> {
        let Self { repetition_penalty, temperature, top_p, min_p, .. } = *self;
        let wrong = |name, value: f64, range| Err(Error::Setting { name, value, range });
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return wrong("temperature", temperature, "0 or more");
        }
        if !(repetition_penalty > 0.0 && repetition_penalty.is_finite()) {
            return wrong("repetition_penalty", repetition_penalty, "more than 0");
        }
        for (name, value) in [("top_p", top_p), ("min_p", min_p)] {
            if !(0.0..=1.0).contains(&value) {
                return wrong(name, value, "0 to 1");
            }
        }
        Ok(())
    }

    /// A token drawn from logits after these tokens; ties of the likeliest go to the smaller id.
    ///
    /// # Panics
    /// If there are no logits, none that is not banned, or one that is not a number.
    pub fn draw(&self, logits: &[f32], before: &[TokenId], rng: &mut impl Rng) -> Draw {
        let logits = self.adjusted(logits, before);
        let largest = greatest(&logits);
        assert!(!logits.iter().any(|logit| logit.is_nan()), "a logit is not a number");
        assert!(largest > f32::NEG_INFINITY, "every token is banned");
        if self.temperature == 0.0 {
            let likeliest = logits.iter().position(|&logit| logit == largest).expect("the greatest is one of them");
            return Draw { token: likeliest as TokenId, log_prob: 0.0 };
        }
        let mut weights = boltzmann(&logits, largest, self.temperature);
        let order = self.truncate(&mut weights);
        let total = weights.iter().sum::<f64>();
        let mut left = rng.random::<f64>() * total;
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        // Rounding may leave a little: it belongs to the last that can be drawn.
        let last = || weights.iter().rposition(|weight| *weight > 0.0).expect("the likeliest is kept");
        let drawn = drawn.unwrap_or_else(last);
        let token = order.map_or(drawn, |order| order[drawn]) as TokenId;
        Draw { token, log_prob: (weights[drawn] / total).ln() }
    }

    /// The logits without banned tokens and with repetitions penalised.
    fn adjusted<'a>(&self, logits: &'a [f32], before: &[TokenId]) -> Cow<'a, [f32]> {
        let mut logits = Cow::Borrowed(logits);
        for &token in &self.banned {
            if let Some(logit) = logits.to_mut().get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        if self.repetition_penalty != 1.0 {
            let penalty = self.repetition_penalty as f32;
            for token in before.iter().copied().collect::<BTreeSet<_>>() {
                let logit = &mut logits.to_mut()[token as usize];
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        logits
    }

    /// Leaves the weights that may be drawn, the greatest of which is 1; tells whose they are where some are gone.
    fn truncate(&self, all: &mut Vec<f64>) -> Option<Vec<usize>> {
        if self.min_p <= 0.0 && self.top_k == 0 && self.top_p >= 1.0 {
            return None;
        }
        let mut weights = all.drain(..).enumerate().filter(|(_, weight)| *weight >= self.min_p).collect::<Vec<_>>();
        self.shorten(&mut weights);
        all.extend(weights.iter().map(|(_, weight)| weight));
        Some(weights.into_iter().map(|(id, _)| id).collect())
    }

    /// Leaves what `top_k` and `top_p` do.
    fn shorten(&self, weights: &mut Vec<(usize, f64)>) {
        if self.top_k == 0 && self.top_p >= 1.0 {
            return;
        }
        let likelier = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.top_k > 0 && self.top_k < weights.len() {
            weights.select_nth_unstable_by(self.top_k, likelier);
            weights.truncate(self.top_k);
        }
        weights.sort_unstable_by(likelier);
        if self.top_p < 1.0 {
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
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use firebrick_types::Seed;

    use super::*;

    #[test]
    fn frequencies_follow_the_tempered_softmax() {
        let logits = [0.0, 1.0, 2.0];
        let sampler = Sampler { temperature: 2.0, ..Sampler::default() };
        let mut rng = Seed::new(1).rng();
        let mut counts = [0.0; 3];
        (0..20_000).for_each(|_| counts[sampler.draw(&logits, &[], &mut rng).token as usize] += 1.0 / 20_000.0);
        let z = 1.0 + 0.5_f64.exp() + 1.0_f64.exp();
        for (count, expected) in counts.iter().zip([1.0 / z, 0.5_f64.exp() / z, 1.0_f64.exp() / z]) {
            assert!((count - expected).abs() < 0.015, "{counts:?}"); // 4 standard errors
        }
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_that_reaches_its_mass() {
        // Probabilities .5, .3, .2: a nucleus of .6 needs the first two.
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
        let sampler = Sampler { top_p: 0.6, ..Sampler::default() };
        let mut rng = Seed::new(1).rng();
        let drawn =
            (0..500).map(|_| sampler.draw(&logits, &[], &mut rng).token).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        assert_eq!(Sampler::greedy().draw(&[1.0, 3.0, 3.0], &[], &mut Seed::new(1).rng()).token, 1);
    }

    /// Every token that can be drawn, with its probability.
    fn support(sampler: &Sampler, logits: &[f32], before: &[TokenId]) -> Vec<(TokenId, f64)> {
        let mut rng = Seed::new(1).rng();
        let draws = (0..3000).map(|_| sampler.draw(logits, before, &mut rng));
        draws.map(|draw| (draw.token, draw.log_prob.exp())).collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    #[test]
    fn the_probability_of_a_draw_is_that_of_the_truncated_distribution() {
        let logits = [0.4_f32, 0.3, 0.2, 0.1].map(f32::ln);
        let plain = Sampler::default;
        for (sampler, expected) in [
            (plain(), vec![(0, 0.4), (1, 0.3), (2, 0.2), (3, 0.1)]),
            (Sampler { top_k: 3, ..plain() }, vec![(0, 4.0 / 9.0), (1, 3.0 / 9.0), (2, 2.0 / 9.0)]),
            (Sampler { top_k: 9, ..plain() }, vec![(0, 0.4), (1, 0.3), (2, 0.2), (3, 0.1)]),
            (Sampler { min_p: 0.7, ..plain() }, vec![(0, 4.0 / 7.0), (1, 3.0 / 7.0)]),
            (Sampler { top_k: 3, top_p: 0.5, ..plain() }, vec![(0, 4.0 / 7.0), (1, 3.0 / 7.0)]),
            (Sampler { top_p: 0.0, ..plain() }, vec![(0, 1.0)]),
            (Sampler { banned: vec![0, 2, 77], ..plain() }, vec![(1, 0.75), (3, 0.25)]),
            (Sampler::greedy(), vec![(0, 1.0)]),
        ] {
            let found = support(&sampler, &logits, &[]);
            let close = found.iter().zip(&expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6);
            assert!(close && found.len() == expected.len(), "{sampler:?}: {found:?}");
        }
    }

    /// logits 2 and −1, both seen, penalty 2: 1 and −2; the third is as it was.
    #[test]
    fn repetitions_become_less_likely_once_whatever_their_sign() {
        let sampler = Sampler { repetition_penalty: 2.0, ..Sampler::default() };
        let z = 1_f64.exp() + (-2_f64).exp() + 1_f64.exp();
        let found = support(&sampler, &[2.0, -1.0, 1.0], &[0, 1, 0]);
        for ((_, found), expected) in found.iter().zip([1_f64.exp() / z, (-2_f64).exp() / z, 1_f64.exp() / z]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn impossible_numbers_are_named() {
        for (sampler, expected) in [
            (Sampler { temperature: -1.0, ..Sampler::default() }, "`temperature` is -1, it must be 0 or more"),
            (Sampler { top_p: 1.5, ..Sampler::default() }, "`top_p` is 1.5, it must be 0 to 1"),
            (Sampler { repetition_penalty: 0.0, ..Sampler::default() }, "`repetition_penalty` is 0, it must be more"),
            (Sampler { min_p: f64::NAN, ..Sampler::default() }, "`min_p` is NaN"),
        ] {
            let found = sampler.validate().unwrap_err().to_string();
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
