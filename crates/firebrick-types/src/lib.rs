#![doc = include_str!("../README.md")]

mod dialogue;
mod images;
mod preference;
mod seed;

pub use dialogue::{Dialogue, Message, Role};
pub use images::Images;
pub use preference::{Comparison, Preference};
pub use seed::Seed;

/// The index of a token in a vocabulary.
pub type TokenId = u32;
