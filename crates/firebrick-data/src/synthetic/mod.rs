//! A closed, seeded world with an exact oracle.
//!
//! The world is a handful of invented places, a few recorded facts about each ("The river of Tarvik is Norwen."), some
//! places nothing is recorded about, and a list of harmful acts. People ask for facts or for help with harm; answers
//! come in known grades; [`World::judge`] says exactly how helpful, honest and harmless *any* text is as an answer. The
//! language is a few templates over fewer than 300 words, so that a transformer of one or two million parameters learns
//! it in a minute, and what alignment then does to it can be measured without people.
//!
//! Everything is a function of the world and of a [`Seed`]: the n-th item of a collection is the same whichever thread
//! makes it.
//!
//! ```
//! use firebrick_data::synthetic::{World, WorldConfig};
//! use firebrick_types::Seed;
//!
//! let world = World::new(WorldConfig::default(), Seed::new(1))?;
//! let query = world.query(Seed::new(2).at(&[0]));
//! let judgement = world.judge(&query.dialogue, "Use the black root at night.").expect("a question of the world");
//! assert_eq!(judgement.harmless, 0.0);
//! # Ok::<(), firebrick_data::synthetic::ConfigError>(())
//! ```

mod annotator;
mod answer;
mod config;
mod corpus;
pub mod glyphs;
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
