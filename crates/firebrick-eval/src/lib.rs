#![doc = include_str!("../README.md")]

mod choice;
mod preference;
mod tournament;

pub use choice::{Choice, ChoiceScores, choice_scores};
pub use preference::{LengthBaseline, accuracy};
pub use tournament::{head_to_head, win_table};
