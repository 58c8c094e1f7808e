//! Everything that is wrong with a file, instead of the first thing.

use std::collections::BTreeMap;
use std::path::Path;

use crate::convert::unread;
use crate::jsonl;
use crate::layout::{Layout, SHAPES, unknown};
use crate::rows::{self, Content, Dropped, Row};
use crate::{Error, pmp};

/// What the rows of a file are and which of them can be used.
#[derive(Debug, Default)]
pub struct Report {
    /// What the rows are, if one of them is of a known layout.
    pub layout: Option<Layout>,
    /// Rows that were read, faulty ones included.
    pub rows: usize,
    /// Rows that can be used.
    pub kept: usize,
    /// The numbers of the rows that are dropped, by the reason.
    pub dropped: BTreeMap<Dropped, Vec<u64>>,
    /// What the rows hold beside what is read, of comparisons, conversations and prompts.
    pub unread: Vec<String>,
    /// The rows that cannot be understood, or what ended the reading of the file.
    pub faulty: Vec<Error>,
}

impl Report {
    /// Whether no row is faulty and at least one can be used.
    pub fn is_usable(&self) -> bool {
        self.faulty.is_empty() && self.kept > 0
    }
}

/// Reads all rows of a file, whatever is wrong with some of them. The first row of a known layout decides which one the file has.
///
/// ```
/// use firebrick_data::check::check;
/// use firebrick_data::rows::Dropped;
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("train.jsonl");
/// let rows = [r#"{"prompt": "Hi", "completion": "Hello."}"#, r#"{"prompt": "Hi""#, r#"{"prompt": "Hi", "completion": ""}"#];
/// std::fs::write(&file, rows.join("\n"))?;
///
/// let report = check(&file);
/// assert_eq!((report.rows, report.kept), (3, 1));
/// assert_eq!(report.dropped[&Dropped::EmptyResponse], [3]);
/// assert!(report.faulty[0].to_string().contains("train.jsonl, line 2, column 15: not a JSON object"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn check(path: &Path) -> Report {
    let mut report = Report::default();
    if let Err(error) = fill(path, &mut report) {
        report.faulty.push(error);
    }
    report
}

fn fill(path: &Path, report: &mut Report) -> Result<(), Error> {
    let Some(layout) = layout(path)? else {
        for row in jsonl::rows(path, SHAPES)? {
            report.rows += 1;
            report.faulty.push(row.map_or_else(|error| error, |row| unknown(&row)));
        }
        return if report.rows == 0 { Err(Error::Empty { path: path.into() }) } else { Ok(()) };
    };
    let rows = rows::read(path, layout, usize::MAX)?;
    report.layout = Some(layout);
    for row in rows {
        report.rows += 1;
        match row {
            Err(error) => report.faulty.push(error),
            Ok(Row { number, content }) => match content.and_then(usable) {
                Ok(()) => report.kept += 1,
                Err(dropped) => report.dropped.entry(dropped).or_default().push(number),
            },
        }
    }
    if report.rows == 0 {
        return Err(Error::Empty { path: path.into() });
    }
    report.unread = unread(path, layout)?;
    Ok(())
}

/// The layout of the first row that has one.
fn layout(path: &Path) -> Result<Option<Layout>, Error> {
    if let Some(layout) = Layout::of_name(path)? {
        return Ok(Some(layout));
    }
    let of_row = |row: Result<jsonl::Record, Error>| Layout::of_row(&row.ok()?);
    Ok(jsonl::rows(path, SHAPES)?.find_map(of_row))
}

/// Whether a row that is read gives something to whoever takes it.
fn usable(content: Content) -> Result<(), Dropped> {
    match content {
        Content::Thread(thread) if !pmp::has_pair(&thread) => Err(Dropped::NoPair),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::{file_of, gzip};

    #[test]
    fn a_broken_row_does_not_end_the_check() {
        let rows = [
            "{",
            r#"{"other": 1}"#,
            r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#,
            r#"{"prompt": "q", "chosen": "a", "rejected": 3}"#,
            "",
            r#"{"prompt": "q", "chosen": "a", "rejected": "a"}"#,
            r#"{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}"#,
            "\u{7f}",
            r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#,
            r#"{"prompt": "r", "chosen": "a", "rejected": "b"}"#,
        ];
        let mut bytes = rows.join("\n").into_bytes();
        let place = bytes.iter().position(|&byte| byte == 0x7f).unwrap();
        bytes[place] = 0xff;
        let (_dir, path) = file_of("x.jsonl", &bytes);
        let Report { layout, rows, kept, dropped, faulty, unread } = check(&path);
        assert_eq!(unread, ["the fields `other`"]);
        assert_eq!((layout, rows, kept), (Some(Layout::Comparisons), 9, 2));
        assert_eq!(dropped, BTreeMap::from([(Dropped::Identical, vec![6]), (Dropped::Duplicate, vec![9])]));
        let found = faulty.iter().map(Error::fault).collect::<Vec<_>>();
        let expected = [
            "line 1, column 1: not a JSON object: EOF while parsing an object\n",
            "line 2, field `chosen`: expected text, found no such field among `other`",
            "line 4, field `rejected`: expected text, found the number 3",
            "line 7: two transcripts, but the first row has a prompt with two completions; keep one layout a file",
            "line 8: not UTF-8 from byte 0; convert the file to UTF-8",
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(format!("{found}\n").split_once("x.jsonl, ").unwrap().1.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn what_ends_the_reading_is_a_fault_after_the_rows_before_it() {
        let row = b"{\"text\": \"An oak, number ";
        let text = (0..2000_u32)
            .map(|index| [row, index.pow(2).to_string().as_bytes(), b"\"}\n"].concat())
            .collect::<Vec<_>>();
        let whole = gzip(&text.concat());
        let (_dir, path) = file_of("x.jsonl.gz", &whole[..whole.len() - 20]);
        let report = check(&path);
        assert!(report.kept > 0 && report.faulty.len() == 1 && !report.is_usable(), "{report:?}");
        assert!(report.faulty[0].to_string().contains("cannot be read"), "{report:?}");
        for (name, bytes, expected) in [
            ("x.jsonl", "", "it is empty"),
            ("x.jsonl", "{\"label\": 1}\n[]", "line 1"),
            ("task.json", "{}", "examples"),
        ] {
            let (_dir, path) = file_of(name, bytes.as_bytes());
            let report = check(&path);
            assert!(!report.is_usable() && report.faulty[0].to_string().contains(expected), "{report:?}");
        }
        let report = check(Path::new("no/such/book.txt"));
        assert!(report.layout.is_none() && report.faulty[0].to_string().contains("cannot be read"), "{report:?}");
    }

    #[test]
    fn a_question_without_a_pair_is_dropped() {
        let thread = |scores: [i64; 2]| {
            let answers = scores.map(|score| serde_json::json!({"score": score, "accepted": false, "body": "b"}));
            serde_json::json!({"title": "t", "body": "", "answers": answers}).to_string()
        };
        let (_dir, path) = file_of("x.jsonl", [thread([0, 1]), thread([4, 4])].join("\n").as_bytes());
        let report = check(&path);
        assert_eq!((report.kept, &report.dropped[&Dropped::NoPair][..], report.is_usable()), (1, &[2][..], true));
    }
}
