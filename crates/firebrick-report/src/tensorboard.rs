//! TensorBoard event files with scalars.
//!
//! A file is a row of TFRecords, each holding one `tensorflow.Event` message. Only the few fields that a scalar needs
//! are written (`wall_time` 1, `step` 2, `file_version` 3, `summary` 5), so the encoding is spelt out here.
//! Formats: [`tfrecord`](https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details),
//! [`event.proto`](https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto),
//! [`summary.proto`](https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/summary.proto).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::log_file::LogFile;

/// How event files start, as TensorBoard looks for them.
const PREFIX: &str = "events.out.tfevents.";

/// How our event files end. It stands where others write the machine's name, which is nobody's business in a report.
const SUFFIX: &str = ".firebrick";

/// A writer of scalars into one run's directory.
///
/// Every call is written at once: there is nothing to flush, and a kill loses no whole event.
#[derive(Debug)]
pub struct EventWriter {
    file: LogFile,
    last_step: u64,
}

impl EventWriter {
    /// Returns a writer into a new event file in `directory`, which is made if absent. Event files that this crate left
    /// there are deleted; those of other programs stay.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`], naming the path.
    pub fn create(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let directory = directory.as_ref();
        fs::create_dir_all(directory).map_err(|source| Error::io("make", directory, source))?;
        for path in event_files(directory)? {
            fs::remove_file(&path).map_err(|source| Error::io("delete", &path, source))?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let path = directory.join(format!("{PREFIX}{:010}{SUFFIX}", now as u64));
        let mut file = LogFile::open(&path, 0)?;
        file.append(&record(&version_event(now)))?;
        Ok(Self { file, last_step: 0 })
    }

    /// Returns a writer that goes on in the event file of `directory`, without the events beyond `step` and without a
    /// torn last record; a new file if there is none.
    ///
    /// A TensorBoard that is watching the directory must be started again to forget the events that were dropped.
    ///
    /// # Errors
    /// [`Error::Record`] if a whole record is damaged, [`Error::Io`] or [`Error::DiskFull`].
    pub fn resume(directory: impl AsRef<Path>, step: u64) -> Result<Self, Error> {
        let directory = directory.as_ref();
        // `create` leaves exactly one file of ours.
        let path = if directory.is_dir() { event_files(directory)?.pop() } else { None };
        let Some(path) = path else { return Self::create(directory) };
        let bytes = fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
        let (mut end, mut last_step) = (0, 0);
        while let Some((event, len)) = next_record(&bytes[end..]) {
            let damaged = || Error::Record { path: path.clone(), offset: end };
            let event_step = event_step(event.ok_or_else(damaged)?).ok_or_else(damaged)?;
            if event_step > step {
                break;
            }
            (end, last_step) = (end + len, event_step);
        }
        if end == 0 {
            // The kill tore the very first record.
            return Self::create(directory);
        }
        Ok(Self { file: LogFile::open(&path, end as u64)?, last_step })
    }

    /// Appends one event with the given scalars. `wall_time` is in seconds since 1970.
    ///
    /// Values are stored in 32 bits, as TensorBoard stores them; it shows NaN and infinities as such.
    ///
    /// # Errors
    /// [`Error::DiskFull`] or [`Error::Io`], both naming the file.
    ///
    /// # Panics
    /// If `step` goes back.
    pub fn scalars(&mut self, step: u64, wall_time: f64, values: &[(&str, f64)]) -> Result<(), Error> {
        assert!(step >= self.last_step, "steps must not go back: {step} after {}", self.last_step);
        self.file.append(&record(&scalar_event(step, wall_time, values)))?;
        self.last_step = step;
        Ok(())
    }
}

/// Returns the event files of this crate in `directory`, oldest first.
fn event_files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::io("list", directory, source);
    let entries = fs::read_dir(directory).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(PREFIX) && name.ends_with(SUFFIX)
    });
    paths.sort();
    Ok(paths)
}

/// Returns the checksum of a TFRecord: `rotr(crc32c(x), 15) + 0xa282ead8`.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Returns the TFRecord of `data`: its length in 8 bytes, their checksum, the data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    [&len[..], &masked_crc(&len).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

/// Returns the data of the first TFRecord (`None` if a checksum fails) and the record's length; `None` at the end of
/// the file and before a torn record.
fn next_record(bytes: &[u8]) -> Option<(Option<&[u8]>, usize)> {
    let (len_bytes, rest) = bytes.split_first_chunk::<8>()?;
    let (len_crc, rest) = rest.split_first_chunk::<4>()?;
    if masked_crc(len_bytes) != u32::from_le_bytes(*len_crc) {
        return Some((None, 12));
    }
    let len = usize::try_from(u64::from_le_bytes(*len_bytes)).ok()?;
    let (data, rest) = rest.split_at_checked(len)?;
    let (data_crc, _) = rest.split_first_chunk::<4>()?;
    let whole = masked_crc(data) == u32::from_le_bytes(*data_crc);
    Some((whole.then_some(data), 16 + len))
}

/// Returns `Event { wall_time, file_version }`, the first event of a file.
fn version_event(wall_time: f64) -> Vec<u8> {
    [&[0x09][..], &wall_time.to_le_bytes(), &field(3, b"brain.Event:2")].concat()
}

/// Returns `Event { wall_time, step, summary: { value: [{ tag, simple_value }] } }`.
fn scalar_event(step: u64, wall_time: f64, values: &[(&str, f64)]) -> Vec<u8> {
    let summary: Vec<u8> = values
        .iter()
        .flat_map(|&(tag, value)| {
            field(1, &[&field(1, tag.as_bytes())[..], &[0x15], &(value as f32).to_le_bytes()].concat())
        })
        .collect();
    [&[0x09][..], &wall_time.to_le_bytes(), &[0x10], &varint(step), &field(5, &summary)].concat()
}

/// Returns a length-delimited protobuf field: its key, its length, its bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

/// Returns a protobuf varint: seven bits a byte, lowest first, the top bit set on all but the last.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Returns the value of the varint that `bytes` start with, and what follows it.
fn split_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let len = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
    let value = bytes[..len].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, &bytes[len..]))
}

/// Returns the step of an encoded event, 0 if it has none; `None` if it is no protobuf message.
fn event_step(mut event: &[u8]) -> Option<u64> {
    while !event.is_empty() {
        let (key, rest) = split_varint(event)?;
        event = match key & 7 {
            0 => {
                let (value, rest) = split_varint(rest)?;
                if key >> 3 == 2 {
                    return Some(value);
                }
                rest
            }
            1 => rest.split_at_checked(8)?.1,
            2 => {
                let (len, rest) = split_varint(rest)?;
                rest.split_at_checked(usize::try_from(len).ok()?)?.1
            }
            5 => rest.split_at_checked(4)?.1,
            _ => return None,
        };
    }
    Some(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The steps in the one event file of a directory, the version event with step 0 first.
    fn steps(directory: &TempDir) -> Vec<u64> {
        let files = event_files(directory.path()).unwrap();
        assert_eq!(files.len(), 1);
        let bytes = fs::read(&files[0]).unwrap();
        let mut rest = &bytes[..];
        let mut steps = Vec::new();
        while let Some((event, len)) = next_record(rest) {
            steps.push(event_step(event.unwrap()).unwrap());
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        steps
    }

    fn four_steps() -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(directory.path()).unwrap();
        for step in 1..=4 {
            writer.scalars(step, 1.7e9 + step as f64, &[("objective/kl", 0.25 * step as f64), ("lr", 1e-5)]).unwrap();
        }
        directory
    }

    #[test]
    fn crc32c_check_value() {
        // The check value of CRC-32C is E3069283 for "123456789"; masked: rotr 15 gives 2507C60D, plus A282EAD8 gives
        // C78AB0E5.
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn events_have_the_bytes_that_the_python_writer_gives() {
        // Both were written once by RecordWriter of Python's tensorboard 2.21.
        assert_eq!(
            hex(&record(&version_event(1_700_000_000.0))),
            "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d"
        );
        assert_eq!(
            hex(&record(&scalar_event(300, 1_700_000_000.5, &[("objective/kl", 1.5)]))),
            "2300000000000000b09f77430900002040fc54d94110ac022a150a130a0c6f626a6563746976652f6b6c150000c03f903f5902"
        );
    }

    #[test]
    fn resume_drops_the_events_beyond_the_step() {
        let directory = four_steps();
        assert_eq!(steps(&directory), [0, 1, 2, 3, 4]);
        let mut writer = EventWriter::resume(directory.path(), 2).unwrap();
        assert_eq!(steps(&directory), [0, 1, 2]);
        writer.scalars(3, 1.8e9, &[("lr", 2e-5)]).unwrap();
        assert_eq!(steps(&directory), [0, 1, 2, 3]);
    }

    #[test]
    fn resume_cuts_a_torn_record_wherever_the_kill_fell() {
        let directory = four_steps();
        let path = event_files(directory.path()).unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        let last = record(&scalar_event(4, 1.7e9 + 4.0, &[("objective/kl", 1.0), ("lr", 1e-5)])).len();
        for torn in whole.len() - last..whole.len() {
            fs::write(&path, &whole[..torn]).unwrap();
            EventWriter::resume(directory.path(), u64::MAX).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole[..whole.len() - last]);
        }
        fs::write(&path, &whole[..10]).unwrap();
        EventWriter::resume(directory.path(), 4).unwrap();
        assert_eq!(steps(&directory), [0]);
    }

    #[test]
    fn a_damaged_record_is_an_error_that_says_where() {
        let directory = four_steps();
        let path = event_files(directory.path()).unwrap().remove(0);
        let mut bytes = fs::read(&path).unwrap();
        // The version event takes 8 + 4 + 24 + 4 = 40 bytes; byte 60 lies inside the data of step 1.
        bytes[60] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = EventWriter::resume(directory.path(), 4).unwrap_err();
        assert!(matches!(error, Error::Record { offset: 40, .. }), "{error}");
    }

    #[test]
    fn resume_of_nothing_and_create_over_something_start_a_new_file() {
        let parent = tempfile::tempdir().unwrap();
        EventWriter::resume(parent.path().join("new/run"), 5).unwrap().scalars(6, 0.0, &[("x", 1.0)]).unwrap();
        let directory = four_steps();
        let foreign = directory.path().join("events.out.tfevents.1.host");
        fs::write(&foreign, "theirs").unwrap();
        EventWriter::create(directory.path()).unwrap();
        assert_eq!(steps(&directory), [0]);
        assert_eq!(fs::read(&foreign).unwrap(), b"theirs");
    }

    #[test]
    #[should_panic(expected = "steps must not go back: 3 after 4")]
    fn a_step_does_not_go_back() {
        EventWriter::resume(four_steps().path(), 9).unwrap().scalars(3, 0.0, &[]).unwrap();
    }

    proptest! {
        #[test]
        fn any_step_is_read_back(step: u64, tag in ".{0,300}", value: f64) {
            prop_assert_eq!(event_step(&scalar_event(step, 0.0, &[(&tag, value)])), Some(step));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            next_record(&bytes);
            event_step(&bytes);
        }
    }
}
