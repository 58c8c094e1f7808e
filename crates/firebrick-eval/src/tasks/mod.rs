//! Built-in evaluations, one a file.

mod hhh;

pub use hhh::{Hhh, HhhChoice};
