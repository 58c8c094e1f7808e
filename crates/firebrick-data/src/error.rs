//! What can go wrong with data.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::layout::Layout;

/// Where in a file something was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; none where the file is one value.
    pub line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(formatter, "{}, line {line}", self.path.display()),
            None => write!(formatter, "{}", self.path.display()),
        }
    }
}

/// What can go wrong with data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read, or its compression is broken.
    #[error("{}: cannot be read; check that it is there, readable and whole", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written; check that its folder is there, writable and has space left", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is too long to be a record.
    #[error("{place}: longer than {limit} bytes, the limit of one record; split or drop it")]
    LineTooLong {
        /// The line.
        place: Place,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file holds too much, for instance because it was compressed to harm.
    #[error("{}: holds more than {limit} bytes once decompressed, the limit of one file; split it", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        limit: u64,
    },
    /// A text is not UTF-8.
    #[error("{place}: not UTF-8 from byte {byte}; convert the file to UTF-8")]
    NotUtf8 {
        /// The line.
        place: Place,
        /// The first wrong byte, counted from 0 in the line or, without a line, in the file.
        byte: usize,
    },
    /// A row is not a JSON object.
    #[error("{place}, column {}: not a JSON object; a row is {shape}", source.column())]
    NotJson {
        /// The row.
        place: Place,
        /// What a row looks like.
        shape: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A file is the stand-in that git leaves for a large file.
    #[error("{}: a git LFS pointer, not the file itself; run `git lfs pull` in its repository", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A field is missing or of the wrong type.
    #[error("{place}, field `{field}`: expected {expected}, found {found}; a row is {shape}")]
    Field {
        /// The row.
        place: Place,
        /// The field's path in the row.
        field: Box<str>,
        /// What it should be.
        expected: Box<str>,
        /// What it is.
        found: Box<str>,
        /// What a row looks like.
        shape: &'static str,
    },
    /// A row has another layout than the first row of its file.
    #[error("{place}: {found}, but the first row has {first}; keep one layout a file")]
    Layout {
        /// The row.
        place: Place,
        /// The row's layout.
        found: &'static str,
        /// The first row's layout.
        first: &'static str,
    },
    /// A row has another layout than the first row of its file.
    #[error("{place}: {found}, but the first row has {first}; keep one layout a file")]
    OtherLayout {
        /// The row.
        place: Place,
        /// The row's layout.
        found: Layout,
        /// The first row's layout.
        first: Layout,
    },
    /// A file has rows of another kind than is wanted.
    #[error("{}: it holds {found}, where {wanted} are wanted", path.display())]
    WrongLayout {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: Layout,
        /// What is wanted.
        wanted: Layout,
    },
    /// A file is there that would be written.
    #[error("{}: it is there already; name another file, or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file is of no known format by its name.
    #[error("{}: no known format; give rows as .jsonl, or text as .txt, each also as .gz, or a .parquet table of ours", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A file's name does not tell how it is to be written.
    #[error("{}: expected a name that ends in .jsonl, .jsonl.gz or .parquet", path.display())]
    Ending {
        /// The file.
        path: PathBuf,
    },
    /// Rows of one layout cannot be written in another.
    #[error("{}: it holds {found}, which cannot be written as {wanted}; {instead}", path.display())]
    NotConvertible {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: Layout,
        /// What is wanted.
        wanted: &'static str,
        /// What can be done.
        instead: String,
    },
    /// A transcript would read as another conversation.
    #[error(
        "{}, line {number}: as a transcript it would read as another conversation: {why}; write chosen-rejected, or drop the row",
        path.display()
    )]
    NotTranscribable {
        /// The file.
        path: PathBuf,
        /// The row.
        number: u64,
        /// What a transcript has no place for.
        why: &'static str,
    },
    /// A file has no row.
    #[error("{}: it is empty; give a file with at least one row", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A text is not a dialogue.
    #[error(
        "a dialogue begins with {:?}, found {found:?}; put the marker before its first turn",
        firebrick_text::dialogue::HUMAN
    )]
    NoHumanMarker {
        /// How the text begins.
        found: String,
    },
    /// A folder holds nothing to train on.
    #[error(
        "{}: no data to train on; looked for `*/train.jsonl` or `*/test.jsonl` with `chosen` and `rejected`, JSONL \
         with `answers`, JSONL with `text`, and `.txt`, each also as `.gz`; found {found}; name a folder that holds one \
         of these",
        dir.display()
    )]
    NoData {
        /// The folder.
        dir: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// Two folders would make one tranche.
    #[error("tranche `{name}` is both in {} and in {}; keep one of the two", first.display(), second.display())]
    DuplicateTranche {
        /// The tranche.
        name: String,
        /// One folder.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A part of a split got no conversation.
    #[error(
        "the {split} split is empty: {records} records of {conversations} conversations, of which it takes the share \
         {share}; give more conversations or another share"
    )]
    EmptySplit {
        /// The part.
        split: &'static str,
        /// Records that were split.
        records: usize,
        /// Conversations among them.
        conversations: usize,
        /// The expected share of the part.
        share: f64,
    },
    /// A dialogue cannot be read.
    #[error(transparent)]
    Text(#[from] firebrick_text::Error),
    /// A table cannot be read or written.
    #[error("{}: not a whole Parquet file; write it again", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A table holds another kind of rows than asked for.
    #[error(
        "{}: expected a table of {expected}, found {found}; name another file or write this one again",
        path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// The kind and version asked for.
        expected: &'static str,
        /// The kind and version, or the columns, that are there.
        found: String,
    },
    /// A table holds a value that its kind does not allow.
    #[error(
        "{}, row {row}, column `{column}`: expected {expected}, found {found:?}; write the file again",
        path.display()
    )]
    Cell {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: usize,
        /// The column.
        column: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The name of a repository of the hub is not of the form `owner/name`.
    #[cfg(feature = "hub")]
    #[error("hub:{name}: expected hub:OWNER/NAME, for instance hub:{example}")]
    HubName {
        /// What stands there.
        name: String,
        /// One that would do.
        example: &'static str,
    },
    /// A repository of the hub cannot be fetched.
    #[cfg(feature = "hub")]
    #[error(
        "{kind} {name} cannot be fetched from {endpoint}: {source}; check its name and the connection, or fetch it \
         elsewhere and name its folder, or set HF_HOME to a cache that holds it, or HF_ENDPOINT to another host"
    )]
    Hub {
        /// `dataset` or `model`.
        kind: &'static str,
        /// The repository.
        name: String,
        /// The host.
        endpoint: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A repository may only be taken from the cache, and is not there.
    #[cfg(feature = "hub")]
    #[error(
        "{kind} {name} is not in the cache {}, and HF_HUB_OFFLINE forbids to fetch it; unset that, or name a folder that \
         holds it, or set HF_HOME to a cache that does",
        cache.display()
    )]
    NotCached {
        /// `dataset` or `model`.
        kind: &'static str,
        /// The repository.
        name: String,
        /// The folder of the cache.
        cache: PathBuf,
    },
    /// A repository of the hub does not have the files that are wanted.
    #[cfg(feature = "hub")]
    #[error("{kind} {name} has no {expected}; name one that has them, as {example}")]
    NotInRepository {
        /// `dataset` or `model`.
        kind: &'static str,
        /// The repository.
        name: String,
        /// The files.
        expected: &'static str,
        /// A repository that has them.
        example: &'static str,
    },
}

impl Error {
    /// The line of the row that is wrong, if it is one.
    pub fn line(&self) -> Option<u64> {
        match self {
            Self::LineTooLong { place, .. }
            | Self::NotUtf8 { place, .. }
            | Self::NotJson { place, .. }
            | Self::Field { place, .. }
            | Self::Layout { place, .. }
            | Self::OtherLayout { place, .. } => place.line,
            _ => None,
        }
    }

    /// What a row looks like, where the error is that one does not.
    pub fn shape(&self) -> Option<&'static str> {
        match self {
            Self::NotJson { shape, .. } | Self::Field { shape, .. } => Some(shape),
            _ => None,
        }
    }

    /// What is wrong, with what caused it and without what a row looks like: for lists of many errors of one file.
    pub fn fault(&self) -> String {
        let whole = self.to_string();
        let told = self.shape().and_then(|shape| whole.strip_suffix(&format!("; a row is {shape}")));
        let told = told.unwrap_or(&whole);
        match (self, std::error::Error::source(self)) {
            // The place in the row stands before it.
            (Self::NotJson { source, .. }, _) => {
                let cause = source.to_string();
                let place = format!(" at line {} column {}", source.line(), source.column());
                format!("{told}: {}", cause.strip_suffix(&place).unwrap_or(&cause))
            }
            (_, Some(cause)) if !whole.contains(&cause.to_string()) => format!("{told}: {cause}"),
            _ => told.to_owned(),
        }
    }
}
