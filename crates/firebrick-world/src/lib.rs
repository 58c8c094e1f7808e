#![doc = include_str!("../README.md")]

mod annotator;
mod answer;
mod config;
mod corpus;
mod grammar;
mod knowledge;
mod oracle;
mod question;
#[cfg(test)]
mod tests;

pub use annotator::{Annotator, SimulatedComparison, ceiling};
pub use answer::{Grade, Graded, grades};
pub use config::{ConfigError, Kinds, Weights, WorldConfig};
pub use oracle::Judgement;
pub use question::{Kind, Query};

use firebrick_types::Seed;
use knowledge::Knowledge;
use rand::{Rng, RngExt};

/// The world: what is recorded in it, what people ask, and how its annotators judge.
#[derive(Clone, Debug)]
pub struct World {
    knowledge: Knowledge,
    kinds: Kinds,
    annotator: Annotator,
    seed: Seed,
}

impl World {
    /// The world of this configuration, its names and facts drawn at `seed`.
    ///
    /// # Errors
    /// If a field of the configuration is out of range.
    pub fn new(config: WorldConfig, seed: Seed) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            knowledge: Knowledge::invent(config.places, config.unknown_places, &mut seed.derive("world/facts").rng()),
            annotator: Annotator::calibrate(config.weights, config.kinds, config.agreement),
            kinds: config.kinds,
            seed,
        })
    }

    /// The simulated annotators of this world.
    pub fn annotator(&self) -> &Annotator {
        &self.annotator
    }
}

/// One item, uniformly.
///
/// # Panics
/// If there is none.
fn pick<T: Clone>(items: &[T], rng: &mut impl Rng) -> T {
    items[rng.random_range(0..items.len())].clone()
}
