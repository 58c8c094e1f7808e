//! Where randomness comes from.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// A named, counted source of randomness.
///
/// A seed is a 256-bit key. [`derive`](Seed::derive) gives the key of a named purpose, [`at`](Seed::at) the key of one
/// place inside it (iteration, prompt, sample …), and [`rng`](Seed::rng) the stream of that place. Nothing is ever advanced, so a
/// value does not depend on what was drawn before it, on the batch, or on the thread that draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The root seed of a run.
    pub fn new(number: u64) -> Self {
        Self(blake3::derive_key("firebrick seed 1 root", &number.to_le_bytes()))
    }

    /// The seed of a purpose, for instance `"ppo/rollout"`.
    #[must_use]
    pub fn derive(self, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"name:").update(name.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// The seed of one place, named by its counters.
    #[must_use]
    pub fn at(self, counters: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"at:");
        for counter in counters {
            hasher.update(&counter.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The stream of random numbers at this seed.
    pub fn rng(self) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.0)
    }

    /// The first numbers of a normal distribution at this seed, of mean 0 and this standard deviation.
    ///
    /// ```text
    /// √(−2 ln u) cos 2πv, √(−2 ln u) sin 2πv          u, v uniform
    /// ```
    ///
    /// Box and Muller 1958, *A note on the generation of random normal deviates*.
    pub fn normals(self, count: usize, deviation: f64) -> Vec<f32> {
        let mut rng = self.rng();
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
            let radius = (-2.0 * u.ln()).sqrt() * deviation;
            let angle = std::f64::consts::TAU * v;
            values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
        }
        values.truncate(count);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: Seed) -> u64 {
        seed.rng().random()
    }

    #[test]
    fn the_same_place_gives_the_same_stream() {
        let seed = Seed::new(1).derive("a");
        assert_eq!(draw(seed.at(&[1, 2])), draw(seed.at(&[1, 2])));
    }

    #[test]
    fn every_part_of_the_address_matters() {
        let seed = Seed::new(1);
        let all = [
            draw(seed),
            draw(Seed::new(2)),
            draw(seed.derive("a")),
            draw(seed.derive("b")),
            draw(seed.at(&[1])),
            draw(seed.at(&[1, 0])),
            draw(seed.at(&[0, 1])),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| one != other), "{all:?}");
        }
    }

    #[test]
    fn normal_numbers_have_the_moments_of_theirs_and_begin_alike() {
        let numbers = Seed::new(1).normals(100_000, 3.0);
        let moment = |power: i32| numbers.iter().map(|x| f64::from(*x).powi(power)).sum::<f64>() / 100_000.0;
        // Standard errors: 3/√n ≈ .0095, 9 √(2/n) ≈ .04, 243 √(96/9n) ≈ 2.5 about 0, σ² = 9 and 3 σ⁴ = 243.
        assert!(moment(1).abs() < 0.05 && (moment(2) - 9.0).abs() < 0.2 && (moment(4) - 243.0).abs() < 12.0);
        assert_eq!(Seed::new(1).normals(5, 3.0), numbers[..5]);
    }

    /// Recorded once: a change here would silently change every published number.
    #[test]
    fn streams_are_stable_across_versions() {
        assert_eq!(draw(Seed::new(17).derive("ppo/rollout").at(&[3, 5])), 9_531_942_563_966_992_212);
    }
}
