//! The matrix product of `firebrick-kernels` and its tests, without the framework: what Miri interprets.
#![allow(dead_code, reason = "the rest of the crate, which uses it, is not here")]

#[path = "../../src/flex"]
mod flex {
    pub(super) mod product;
}
