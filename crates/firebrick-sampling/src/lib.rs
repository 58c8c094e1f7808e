#![doc = include_str!("../README.md")]

mod generate;
mod sampler;
mod stop;

pub use generate::{Sample, generate};
pub use sampler::Sampler;
pub use stop::{Finish, Stop};
