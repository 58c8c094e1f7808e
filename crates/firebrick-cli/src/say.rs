//! Lines for whoever listens. That nobody does any more (`… | head`) is no reason to stop a run.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};

/// A line of results, on standard output.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(stdout().lock(), "{line}");
}

/// A line about the work or what went wrong, on standard error.
pub(crate) fn remark(line: impl Display) {
    let _ = writeln!(stderr().lock(), "{line}");
}
