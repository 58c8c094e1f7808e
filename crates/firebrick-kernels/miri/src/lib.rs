//! The matrix product of `firebrick-kernels` and its tests, without the framework: what Miri interprets.
#![allow(dead_code, unused_imports, reason = "the rest of the crate, which uses it, is not here")]

#[path = "../../src/gemm/mod.rs"]
mod gemm;
