#![doc = include_str!("../README.md")]

mod batcher;
mod error;
mod generate;
mod sampler;
mod stop;

pub use batcher::{Batcher, Event, Request, RequestId, Token, likeliest};
pub use error::Error;
pub use generate::{Sample, generate, generate_each};
pub use sampler::{Draw, Sampler};
pub use stop::{Finish, Stop};
