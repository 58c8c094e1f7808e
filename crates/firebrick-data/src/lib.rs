#![doc = include_str!("../README.md")]

pub mod check;
pub mod comparisons;
pub mod conversations;
pub mod convert;
mod error;
mod file;
pub mod folder;
pub mod hhh_prompt;
pub mod hhh_tasks;
#[cfg(feature = "hub")]
pub mod hub;
mod jsonl;
pub mod layout;
pub mod pmp;
pub mod rows;
pub mod split;
pub mod store;
pub mod text;
pub mod threads;

pub use error::{Error, Place};
