#![doc = include_str!("../README.md")]

pub mod dialogue;
mod ends;
mod error;
mod mask;
mod renderer;
mod response;
mod stop;
mod template;
mod tokenizer;

pub use ends::{Source, TurnEnd, TurnEnds};
pub use error::Error;
pub use firebrick_types::{Dialogue, Message};
pub use mask::{Counted, Masked};
pub use renderer::{ComparisonTokens, Renderer};
pub use response::ResponseFormat;
pub use stop::{StopStrings, StopText, StopWatch};
pub use template::ChatTemplate;
pub use tokenizer::{EOC, TextStream, Tokenizer};
