#![doc = include_str!("../README.md")]

mod choice;
mod harness;
mod preference;
mod task;
pub mod tasks;
mod tournament;

pub use choice::{Choice, ChoiceScores};
pub use harness::{Batching, Request, Response, respond};
pub use preference::{LengthBaseline, accuracy};
pub use task::{Task, TaskError, evaluate};
pub use tournament::{head_to_head, win_table};
