//! `cargo xtask miri`: the matrix product's tests under an interpreter that finds undefined behaviour.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// What rayon and proptest need: files and clocks, threads that outlive a test, the aliasing model that their queues keep to.
const FLAGS: &str = "-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows -Zmiri-permissive-provenance";

pub(crate) fn run() -> Result<()> {
    let root = process::workspace_root();
    let manifest = root.join("crates/firebrick-kernels/miri/Cargo.toml");
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "miri", "test", "--manifest-path"]).arg(manifest);
    command.env("CARGO_TARGET_DIR", root.join("target/miri"));
    command.env("MIRIFLAGS", FLAGS).env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true").env_remove("RUSTFLAGS");
    process::run(&mut command).context("Miri comes with `rustup toolchain install nightly --component miri rust-src`")
}
