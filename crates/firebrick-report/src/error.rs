//! What can go wrong on the disk.

use std::io;
use std::path::{Path, PathBuf};

/// Why a log could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `open`, `read`, `write`…
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason given by the system.
        source: io::Error,
    },
    /// No room is left for the next write; the file still ends with its last whole record.
    #[error("cannot write {}: the disk is full; free some space, then resume from the last checkpoint", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// The reason given by the system.
        source: io::Error,
    },
    /// A whole line of a metrics log is not a row.
    #[error("{}, line {line}: {reason}; mend or delete this line", path.display())]
    Row {
        /// The metrics log.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A record of an event file does not match its checksum.
    #[error("{}, byte {offset}: damaged record; delete this file, or its end from this byte on", path.display())]
    Record {
        /// The event file.
        path: PathBuf,
        /// Where the record starts.
        offset: usize,
    },
}

impl Error {
    /// Returns the error for a system call on `path`; a full disk has its own variant.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            _ => Self::Io { action, path, source },
        }
    }
}
