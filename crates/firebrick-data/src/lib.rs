#![doc = include_str!("../README.md")]

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

pub use error::{Error, Place};
