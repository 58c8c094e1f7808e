//! Files from outside, within limits, and files of ours, whole or not at all.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Place};

/// The longest record, in bytes.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// The most that one file may hold once decompressed, in bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 8 << 30;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The bytes of a file, decompressed where it is gzip.
fn open(path: &Path) -> Result<Box<dyn BufRead>, Error> {
    let open = || -> io::Result<Box<dyn BufRead>> {
        let mut reader = BufReader::new(File::open(path)?);
        if reader.fill_buf()?.starts_with(&GZIP) {
            return Ok(Box::new(BufReader::new(MultiGzDecoder::new(reader))));
        }
        Ok(Box::new(reader))
    };
    open().map_err(|source| Error::Read { path: path.into(), source })
}

/// All bytes of a file, decompressed where it is gzip.
///
/// # Errors
/// If the file cannot be read or holds more than this.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut reader = open(path)?.take(limit + 1);
    reader.read_to_end(&mut bytes).map_err(|source| Error::Read { path: path.into(), source })?;
    if bytes.len() as u64 > limit {
        return Err(Error::FileTooLarge { path: path.into(), limit });
    }
    Ok(bytes)
}

/// The whole text of a file, decompressed where it is gzip.
///
/// # Errors
/// If the file cannot be read, is larger than the limit or is not UTF-8.
pub(crate) fn read_to_string(path: &Path) -> Result<String, Error> {
    let place = Place { path: path.into(), line: None };
    let text = String::from_utf8(read(path, MAX_FILE_BYTES)?)
        .map_err(|error| Error::NotUtf8 { place, byte: error.utf8_error().valid_up_to() })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The lines of a file that are not blank, with their numbers; after an error that concerns more than a line, none.
pub(crate) struct Lines<'a> {
    path: &'a Path,
    reader: Box<dyn BufRead>,
    number: u64,
    bytes: u64,
    max_file_bytes: u64,
    /// Whether nothing more can be read.
    ended: bool,
}

impl<'a> Lines<'a> {
    /// The lines of this file.
    pub(crate) fn open(path: &'a Path) -> Result<Self, Error> {
        Ok(Self { path, reader: open(path)?, number: 0, bytes: 0, max_file_bytes: MAX_FILE_BYTES, ended: false })
    }

    fn read(&mut self) -> Result<Option<(Place, String)>, Error> {
        loop {
            self.number += 1;
            let mut line = Vec::new();
            (&mut self.reader)
                .take(MAX_LINE_BYTES + 1)
                .read_until(b'\n', &mut line)
                .map_err(|source| Error::Read { path: self.path.into(), source })?;
            if line.is_empty() {
                return Ok(None);
            }
            self.bytes += line.len() as u64;
            let place = Place { path: self.path.into(), line: Some(self.number) };
            if line.len() as u64 > MAX_LINE_BYTES {
                return Err(Error::LineTooLong { place, limit: MAX_LINE_BYTES });
            }
            if self.bytes > self.max_file_bytes {
                return Err(Error::FileTooLarge { path: self.path.into(), limit: self.max_file_bytes });
            }
            let text = match std::str::from_utf8(&line) {
                Ok(text) => text.trim_start_matches('\u{feff}').trim(),
                Err(error) => return Err(Error::NotUtf8 { place, byte: error.valid_up_to() }),
            };
            if self.number == 1 && text.starts_with("version https://git-lfs") {
                return Err(Error::LfsPointer { path: self.path.into() });
            }
            if !text.is_empty() {
                return Ok(Some((place, text.to_owned())));
            }
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<(Place, String), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let line = self.read();
        // Bytes that are no text end with their line.
        self.ended =
            matches!(&line, Ok(None)) || line.as_ref().is_err_and(|error| !matches!(error, Error::NotUtf8 { .. }));
        line.transpose()
    }
}

/// Writes a file beside its place and renames it, so that a half-written file never has the name.
///
/// # Errors
/// Those of `write`, and if the file cannot be created, synchronised or renamed.
pub(crate) fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> Result<(), Error>) -> Result<(), Error> {
    let file = written_beside(path, write)?;
    file.persist(path).map_err(|error| Error::Write { path: path.into(), source: error.error })?;
    Ok(())
}

/// The same, where there is no file of the name yet.
///
/// # Errors
/// Those of [`write_atomically`], and if there is a file.
pub(crate) fn create_atomically(path: &Path, write: impl FnOnce(&mut File) -> Result<(), Error>) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::Exists { path: path.into() });
    }
    let file = written_beside(path, write)?;
    file.persist_noclobber(path).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
        _ => Error::Write { path: path.into(), source: error.error },
    })?;
    Ok(())
}

fn written_beside(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), Error>,
) -> Result<tempfile::NamedTempFile, Error> {
    let failed = |source| Error::Write { path: path.into(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new();
    #[cfg(unix)]
    beside.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // Less what the user's mask takes.
    let mut file = beside.tempfile_in(folder).map_err(failed)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all().map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// The folder of real data, or none, which a line tells.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) fn real_data(part: &str) -> Option<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let data = std::env::var_os("RLHF_DATA_DIR").map_or_else(|| root.join("shared/data"), PathBuf::from);
        let path = data.join(part);
        if !path.exists() {
            eprintln!("skipped: {} not found", path.display());
            return None;
        }
        Some(path)
    }

    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A file of these bytes in a folder that goes when the first value is dropped.
    pub(crate) fn file_of(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn lines(path: &Path) -> Result<Vec<(u64, String)>, Error> {
        Lines::open(path)?.map(|line| line.map(|(place, text)| (place.line.unwrap(), text))).collect()
    }

    #[test]
    fn lines_are_numbered_and_blank_ones_skipped() {
        let text = "\u{feff}a\r\n\n  \nb";
        let expected = vec![(1, "a".to_owned()), (4, "b".to_owned())];
        let (_dir, plain) = file_of("x.jsonl", text.as_bytes());
        assert_eq!(lines(&plain).unwrap(), expected);
        let (_dir, packed) = file_of("x.jsonl.gz", &gzip(text.as_bytes()));
        assert_eq!(lines(&packed).unwrap(), expected);
    }

    #[test]
    fn joined_gzip_members_are_all_read() {
        let (_dir, path) = file_of("x.jsonl.gz", &[gzip(b"a\n"), gzip(b"b\n")].concat());
        assert_eq!(lines(&path).unwrap().len(), 2);
    }

    #[test]
    fn a_cut_gzip_file_is_an_error() {
        let whole = gzip(&b"a line of text\n".repeat(1000));
        let (_dir, path) = file_of("x.jsonl.gz", &whole[..whole.len() - 20]);
        let message = lines(&path).unwrap_err().to_string();
        assert!(
            message.ends_with("x.jsonl.gz: cannot be read; check that it is there, readable and whole"),
            "{message}"
        );
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let (_dir, path) = file_of("bomb.jsonl.gz", &gzip(&vec![b' '; (MAX_LINE_BYTES + 1) as usize]));
        let message = lines(&path).unwrap_err().to_string();
        let expected = "bomb.jsonl.gz, line 1: longer than 16777216 bytes, the limit of one record; split or drop it";
        assert!(message.ends_with(expected), "{message}");
    }

    #[test]
    fn a_file_that_decompresses_to_too_much_is_an_error() {
        let (_dir, path) = file_of("bomb.jsonl.gz", &gzip(&b"{}\n".repeat(1000)));
        let mut lines = Lines::open(&path).unwrap();
        lines.max_file_bytes = 2999;
        let message = lines.find_map(Result::err).unwrap().to_string();
        assert!(message.contains("bomb.jsonl.gz: holds more than 2999 bytes once decompressed"), "{message}");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_placed() {
        let (_dir, path) = file_of("x.jsonl", b"fine\nab\xff");
        let message = lines(&path).unwrap_err().to_string();
        assert!(message.ends_with("x.jsonl, line 2: not UTF-8 from byte 2; convert the file to UTF-8"), "{message}");
    }

    #[test]
    fn a_git_lfs_pointer_is_named() {
        let (_dir, path) = file_of("x.jsonl.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
        let message = lines(&path).unwrap_err().to_string();
        assert!(message.contains("x.jsonl.gz: a git LFS pointer") && message.contains("git lfs pull"), "{message}");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let (dir, path) = file_of("x", b"old");
        let failed = write_atomically(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(Error::FileTooLarge { path: path.clone(), limit: 0 })
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
