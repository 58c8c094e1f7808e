//! `metrics.jsonl`: one flat JSON object a line, `{"step": 3, "samples": 96, "train/loss": 0.52}`.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;
use crate::log_file::LogFile;

/// A metrics log that is being written.
#[derive(Debug)]
pub struct MetricsLog {
    file: LogFile,
    last_step: u64,
}

impl MetricsLog {
    /// Returns an empty log at `path`, in place of whatever lay there.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self { file: LogFile::open(path.as_ref(), 0)?, last_step: 0 })
    }

    /// Returns the log at `path` without the rows beyond `step` and without a torn last line; a new log if there is
    /// none.
    ///
    /// # Errors
    /// [`Error::Row`] if a whole line is not a row, [`Error::Io`] if the file cannot be read or opened.
    pub fn resume(path: impl AsRef<Path>, step: u64) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|source| Error::io("read", path, source))?,
        };
        let rows = parse(path, &bytes)?;
        let kept = rows.iter().take_while(|row| row.step <= step).last();
        let (end, last_step) = kept.map_or((0, 0), |row| (row.end, row.step));
        Ok(Self { file: LogFile::open(path, end as u64)?, last_step })
    }

    /// Appends one row: the optimiser step, the samples seen so far, then `values` in the given order.
    ///
    /// JSON has no NaN and no infinity: both are written as `null` and come back as NaN.
    ///
    /// # Errors
    /// [`Error::DiskFull`] or [`Error::Io`], both naming the file.
    ///
    /// # Panics
    /// If `step` goes back, or a name stands twice or is `step` or `samples`.
    pub fn append(&mut self, step: u64, samples: u64, values: &[(&str, f64)]) -> Result<(), Error> {
        assert!(step >= self.last_step, "steps must not go back: {step} after {}", self.last_step);
        let mut row = Map::new();
        row.insert("step".into(), step.into());
        row.insert("samples".into(), samples.into());
        for &(name, value) in values {
            let before = row.insert(name.into(), value.into());
            assert!(before.is_none(), "the metric `{name}` stands twice in one row");
        }
        self.file.append(format!("{}\n", Value::Object(row)).as_bytes())?;
        self.last_step = step;
        Ok(())
    }
}

/// A metrics log that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// One column a name, in the order of their first rows.
    pub columns: Vec<Column>,
}

impl Metrics {
    /// Returns the column called `name`, if a row has it.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// One metric over the rows that have it; the three lists have the same length.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The metric's name, such as `objective/kl`.
    pub name: String,
    /// Optimiser steps.
    pub steps: Vec<u64>,
    /// Samples seen so far.
    pub samples: Vec<u64>,
    /// Values; NaN where the number was not finite.
    pub values: Vec<f64>,
}

impl Column {
    /// Returns the points (samples, value) of the curve.
    pub fn by_samples(&self) -> Vec<(f64, f64)> {
        self.samples.iter().zip(&self.values).map(|(&samples, &value)| (samples as f64, value)).collect()
    }

    /// Returns the points (step, value) of the curve.
    pub fn by_steps(&self) -> Vec<(f64, f64)> {
        self.steps.iter().zip(&self.values).map(|(&step, &value)| (step as f64, value)).collect()
    }
}

/// Returns the columns of the log at `path`; a torn last line is left out.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Row`] if a whole line is not a row.
pub fn read(path: impl AsRef<Path>) -> Result<Metrics, Error> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|source| Error::io("read", path, source))?;
    // The map finds a column's place; the list keeps the order of first rows.
    let mut places = std::collections::HashMap::new();
    let mut columns: Vec<Column> = Vec::new();
    for row in parse(path, &bytes)? {
        for (name, value) in row.values {
            let place = *places.entry(name.clone()).or_insert_with(|| {
                columns.push(Column { name, steps: Vec::new(), samples: Vec::new(), values: Vec::new() });
                columns.len() - 1
            });
            let column = &mut columns[place];
            column.steps.push(row.step);
            column.samples.push(row.samples);
            column.values.push(value);
        }
    }
    Ok(Metrics { columns })
}

/// One line of the log.
struct Row {
    step: u64,
    samples: u64,
    values: Vec<(String, f64)>,
    /// Bytes of the file up to and with this line.
    end: usize,
}

/// Returns the rows of a log; what follows the last line feed was torn by a kill and is no row.
fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Row>, Error> {
    let mut end = 0;
    let whole_lines = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    whole_lines
        .enumerate()
        .map(|(index, line)| {
            end += line.len();
            parse_row(line, end).map_err(|reason| Error::Row { path: path.to_owned(), line: index + 1, reason })
        })
        .collect()
}

/// Returns one row, or what is wrong with it.
fn parse_row(line: &[u8], end: usize) -> Result<Row, String> {
    let mut object: Map<String, Value> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let mut count = |name: &str| {
        let value = object.shift_remove(name).ok_or(format!("no \"{name}\""))?;
        value.as_u64().ok_or(format!("\"{name}\" is {value}, not a whole number"))
    };
    let (step, samples) = (count("step")?, count("samples")?);
    let values = object.into_iter().map(|(name, value)| match value {
        Value::Null => Ok((name, f64::NAN)),
        _ => value.as_f64().map(|value| (name.clone(), value)).ok_or(format!("\"{name}\" is {value}, not a number")),
    });
    Ok(Row { step, samples, values: values.collect::<Result<_, _>>()?, end })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// A log with the steps 1 to 4 of 32 samples each; `val/acc` only on even steps.
    fn four_rows() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        for step in 1..=4 {
            let mut values = vec![("train/loss", 1.0 / step as f64)];
            if step % 2 == 0 {
                values.push(("val/acc", 0.5));
            }
            log.append(step, 32 * step, &values).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn a_row_keeps_its_order_and_null_stands_for_what_json_has_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.append(7, 224, &[("zeta", 0.1), ("alpha", f64::NAN), ("mid", f64::INFINITY), ("tiny", 1e-300)]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":7,\"samples\":224,\"zeta\":0.1,\"alpha\":null,\"mid\":null,\"tiny\":1e-300}\n");
        assert!(read(&path).unwrap().column("mid").unwrap().values[0].is_nan());
    }

    #[test]
    fn columns_hold_only_the_rows_that_have_them() {
        let (_directory, path) = four_rows();
        let metrics = read(&path).unwrap();
        let names: Vec<_> = metrics.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["train/loss", "val/acc"]);
        let accuracy = metrics.column("val/acc").unwrap();
        assert_eq!(accuracy.steps, [2, 4]);
        assert_eq!(accuracy.by_samples(), [(64.0, 0.5), (128.0, 0.5)]);
        assert_eq!(accuracy.by_steps(), [(2.0, 0.5), (4.0, 0.5)]);
        assert!(metrics.column("train/los").is_none());
    }

    #[test]
    fn resume_cuts_the_rows_beyond_the_step() {
        let (_directory, path) = four_rows();
        let mut log = MetricsLog::resume(&path, 2).unwrap();
        log.append(3, 96, &[("train/loss", 9.0)]).unwrap();
        let loss = read(&path).unwrap().columns.remove(0);
        assert_eq!(loss.steps, [1, 2, 3]);
        assert_eq!(loss.values, [1.0, 0.5, 9.0]);
    }

    #[test]
    fn resume_of_nothing_starts_a_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        MetricsLog::resume(&path, 10).unwrap().append(1, 2, &[]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1,\"samples\":2}\n");
    }

    #[test]
    fn create_replaces_an_old_log() {
        let (_directory, path) = four_rows();
        MetricsLog::create(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_torn_last_line_is_left_out_by_both_reader_and_resume() {
        let (_directory, path) = four_rows();
        let whole = fs::read(&path).unwrap();
        // Wherever the kill falls inside the last line, steps 1 to 3 stay and step 4 is gone.
        let third_end = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
        for torn in third_end..whole.len() {
            fs::write(&path, &whole[..torn]).unwrap();
            assert_eq!(read(&path).unwrap().column("train/loss").unwrap().steps, [1, 2, 3]);
            MetricsLog::resume(&path, u64::MAX).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole[..third_end]);
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let reason = |line: &str| {
            fs::write(&path, format!("{{\"step\":1,\"samples\":1}}\n{line}\n")).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert_eq!(MetricsLog::resume(&path, 1).unwrap_err().to_string(), message);
            message.strip_prefix(&format!("{}, line 2: ", path.display())).unwrap().to_owned()
        };
        assert_eq!(reason("{\"samples\":1}"), "no \"step\"; mend or delete this line");
        assert_eq!(
            reason("{\"step\":-1,\"samples\":1}"),
            "\"step\" is -1, not a whole number; mend or delete this line"
        );
        assert_eq!(
            reason("{\"step\":1,\"samples\":1,\"a\":\"b\"}"),
            "\"a\" is \"b\", not a number; mend or delete this line"
        );
        assert!(reason("{\"step\":1").starts_with("EOF while parsing"));
    }

    #[test]
    #[should_panic(expected = "steps must not go back: 1 after 2")]
    fn a_step_does_not_go_back() {
        let (_directory, path) = four_rows();
        MetricsLog::resume(&path, 2).unwrap().append(1, 1, &[]).unwrap();
    }

    #[test]
    #[should_panic(expected = "`samples` stands twice")]
    fn a_name_stands_once() {
        let (_directory, path) = four_rows();
        MetricsLog::create(&path).unwrap().append(1, 1, &[("samples", 1.0)]).unwrap();
    }

    proptest! {
        #[test]
        fn finite_numbers_come_back_to_the_last_bit(values in prop::collection::vec(any::<f64>(), 1..20)) {
            prop_assume!(values.iter().all(|value| value.is_finite()));
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("metrics.jsonl");
            let mut log = MetricsLog::create(&path).unwrap();
            for (step, &value) in values.iter().enumerate() {
                log.append(step as u64, 0, &[("x", value)]).unwrap();
            }
            prop_assert_eq!(&read(&path).unwrap().columns[0].values, &values);
        }
    }
}
