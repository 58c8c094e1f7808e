#![doc = include_str!("../README.md")]

mod comparison;
mod dialogue;
mod example;
mod hhh;
mod measured;
mod seed;
mod thread;

pub use comparison::{Comparison, Label, LabelledComparison};
pub use dialogue::{Dialogue, Message, Role};
pub use example::Example;
pub use hhh::HhhItem;
pub use measured::{Better, Measured};
pub use seed::Seed;
pub use thread::{Thread, ThreadAnswer};

/// The index of a token in a vocabulary.
pub type TokenId = u32;
