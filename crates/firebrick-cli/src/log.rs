//! What libraries tell while they work: spans and events of `tracing`, shown on standard error and kept in a file.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result};
use indicatif::MultiProgress;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Bars on the terminal, which lines must not be written through.
pub(crate) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Where events are kept too, while a run goes on.
static KEPT: Mutex<Option<File>> = Mutex::new(None);

/// How much is said while a command works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Voice {
    /// Warnings, errors and results.
    Quiet,
    /// Also stages, progress and remarks.
    Normal,
    /// Also every step's metrics.
    Verbose,
}

/// Shows what libraries tell: as `RUST_LOG` says, or else so much of our own crates.
pub(crate) fn show(voice: Voice) {
    let usual = match voice {
        Voice::Quiet => "warn",
        Voice::Normal => "warn,firebrick=info",
        Voice::Verbose => "warn,firebrick=debug",
    };
    let shown = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let lines = tracing_subscriber::fmt::layer().event_format(Lines).with_writer(AboveBars).with_filter(shown);
    let kept = tracing_subscriber::fmt::layer().json().with_current_span(false).with_writer(Keep);
    let kept = kept.with_filter(EnvFilter::new("warn,firebrick=debug"));
    // Only the first subscriber of a process counts.
    let _ = tracing_subscriber::registry().with(lines).with(kept).try_init();
}

/// Keeps events in a file, a JSON object a line, until it is dropped; what an interrupted run left there stays.
pub(crate) struct ToFile(());

/// Keeps events in this file.
pub(crate) fn to_file(path: &Path) -> Result<ToFile> {
    let unwritable = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(unwritable)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path).with_context(unwritable)?;
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(ToFile(()))
}

impl Drop for ToFile {
    fn drop(&mut self) {
        *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Plain lines: what is said, behind `warning: ` or `error: ` where it is one.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            _ => {}
        }
        ctx.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Standard error, above any bars.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // That nobody listens any more is no reason to stop.
        BARS.suspend(|| _ = io::stderr().lock().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for AboveBars {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// The file that events are kept in, if there is one.
struct Keep;

impl Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => file.write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Keep {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}
