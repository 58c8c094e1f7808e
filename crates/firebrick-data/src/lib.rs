#![doc = include_str!("../README.md")]

pub mod dialogue;
mod error;
mod file;
pub mod folder;
pub mod hh;
pub mod hhh;
pub mod hhh_tasks;
#[cfg(feature = "hub")]
pub mod hub;
mod jsonl;
pub mod pmp;
pub mod split;
pub mod store;
pub mod text;
pub mod threads;
mod tokenizer;

pub use error::{Error, Place};
pub use tokenizer::{EOC, TextStream, Tokenizer};
