//! A file that grows by whole records.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Error;

/// A file of records that is cut once, when opened, and only appended to from then on.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl LogFile {
    /// Returns the file at `path`, new if absent, holding no more than its first `keep` bytes.
    pub(crate) fn open(path: &Path, keep: u64) -> Result<Self, Error> {
        let failed = |source| Error::io("open", path, source);
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > keep {
            file.set_len(keep).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), file, len: keep })
    }

    /// Appends one record in a single write, so that a kill can tear only the last one.
    pub(crate) fn append(&mut self, record: &[u8]) -> Result<(), Error> {
        if let Err(source) = self.file.write_all(record) {
            // Takes back the half that was written. Should this fail too, the next `open` cuts it away.
            let _ = self.file.set_len(self.len);
            return Err(Error::io("write", &self.path, source));
        }
        self.len += record.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_once_and_then_grows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "one\ntwo\nthr").unwrap();
        let mut log = LogFile::open(&path, 4).unwrap();
        log.append(b"three\n").unwrap();
        log.append(b"four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\nthree\nfour\n");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = LogFile::open(Path::new("/nowhere/at/all/log"), 0).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /nowhere/at/all/log");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_says_how_to_go_on() {
        let mut log = LogFile::open(Path::new("/dev/full"), 0).unwrap();
        let error = log.append(b"row\n").unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }));
        assert!(error.to_string().starts_with("cannot write /dev/full: the disk is full; free some space"));
    }
}
