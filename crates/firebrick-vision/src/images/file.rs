//! Files from outside, within limits.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::Error;

/// All bytes of a file, decompressed where it is gzip.
///
/// # Errors
/// If the file cannot be read or holds more than this.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let read = || -> io::Result<Vec<u8>> {
        let mut reader = BufReader::new(File::open(path)?);
        let mut bytes = Vec::new();
        if reader.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(reader).take(limit + 1).read_to_end(&mut bytes)?;
        } else {
            reader.take(limit + 1).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    let bytes = read().map_err(|source| Error::Read { path: path.into(), source })?;
    if bytes.len() as u64 > limit {
        return Err(Error::FileTooLarge { path: path.into(), limit });
    }
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn files_that_are_compressed_to_harm_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes");
        for bytes in [vec![7; 1000], gzip(&[7; 1000])] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path, 1000).unwrap(), [7; 1000]);
            let told = read(&path, 999).unwrap_err().to_string();
            assert!(told.contains("more than 999 bytes"), "{told}");
        }
    }
}
