//! The matrix product of `firebrick-kernels` and its tests, without the framework: what Miri interprets.
#![allow(dead_code, reason = "the rest of the crate, which uses it, is not here")]

mod flex {
    #[path = "../../../src/flex/product/mod.rs"]
    pub(super) mod product;
}
