//! Tables of records: Parquet files that say what they hold.
//!
//! A file's metadata has `firebrick.schema`, the kind of its rows and the version of that kind, for instance
//! `comparisons/2`. The same rows give the same bytes.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, LargeStringArray, ListArray, RecordBatch, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Fields, Schema};
use firebrick_types::{Comparison, Dialogue, Example, Label, LabelledComparison, Message, Role};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterProperties;

use crate::Error;
use crate::file::{MAX_FILE_BYTES, create_atomically, write_atomically};
use crate::layout::Layout;
use crate::pmp::RankedPair;
use crate::rows::{Row, Rows};

/// Where the metadata says what the rows are.
const KEY: &str = "firebrick.schema";

/// Rows written and read at once.
const BATCH: usize = 1024;

/// A kind of row.
pub trait Table: Sized {
    /// The kind and its version, for instance `comparisons/2`.
    const SCHEMA: &'static str;

    /// The columns.
    fn fields() -> Vec<Field>;

    /// The rows as columns, one for each of [`fields`](Self::fields).
    fn columns(rows: &[Self]) -> Vec<ArrayRef>;

    /// The rows of columns that have the types of [`fields`](Self::fields).
    ///
    /// # Errors
    /// If a value is not one that the kind allows.
    fn rows(columns: &[ArrayRef]) -> Result<Vec<Self>, BadCell>;
}

/// A value that a kind of row does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCell {
    /// The row, counted from the first of the columns given.
    pub row: usize,
    /// The column.
    pub column: &'static str,
    /// What the value should be.
    pub expected: &'static str,
    /// What it is.
    pub found: String,
}

/// Writes rows as a Parquet file, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write<T: Table>(path: &Path, rows: &[T]) -> Result<(), Error> {
    write_atomically(path, |file| write_into(file, path, rows))
}

/// The same, where there is no file of the name yet.
///
/// # Errors
/// If there is one, or it cannot be written.
pub fn create<T: Table>(path: &Path, rows: &[T]) -> Result<(), Error> {
    create_atomically(path, |file| write_into(file, path, rows))
}

fn write_into<T: Table>(file: &mut File, path: &Path, rows: &[T]) -> Result<(), Error> {
    let parquet = |source| Error::Parquet { path: path.into(), source };
    let schema = Arc::new(Schema::new(T::fields()));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        // Not the library's version: the same rows give the same bytes.
        .set_created_by("firebrick".to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(KEY.to_owned(), T::SCHEMA.to_owned())]))
        .build();
    let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(parquet)?;
    for rows in rows.chunks(BATCH) {
        let batch = RecordBatch::try_new(schema.clone(), T::columns(rows))
            .expect("the columns of a kind have its types and one length");
        writer.write(&batch).map_err(parquet)?;
    }
    writer.close().map_err(parquet)?;
    Ok(())
}

/// Whether a file is Parquet by its name.
pub(crate) fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "parquet")
}

/// The rows of a table, as those of other files.
pub(crate) fn rows<T: Table + 'static>(path: &Path) -> Result<Rows<'static, T>, Error> {
    let rows = read::<T>(path)?;
    Ok(Box::new((1..).zip(rows).map(|(number, row)| Ok(Row { number, content: Ok(row) }))))
}

/// What the rows of a table are.
///
/// # Errors
/// If the file cannot be read, is no whole Parquet file, or none of these tables.
pub(crate) fn layout(path: &Path) -> Result<Layout, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|source| Error::Parquet { path: path.into(), source })?;
    match schema_name(reader.metadata()) {
        Some(LabelledComparison::SCHEMA) => Ok(Layout::Comparisons),
        Some(Example::SCHEMA) => Ok(Layout::Conversations),
        Some(Dialogue::SCHEMA) => Ok(Layout::Prompts),
        Some(String::SCHEMA) => Ok(Layout::Text),
        found => Err(Error::Schema {
            path: path.into(),
            expected: "comparisons/2, conversations/1, dialogues/1 or texts/1",
            found: found.map_or_else(|| format!("no `{KEY}` in its metadata"), str::to_owned),
        }),
    }
}

/// The rows of a Parquet file that [`write()`] wrote.
///
/// # Errors
/// If the file cannot be read, is no whole Parquet file, holds more than 8 GiB, or another kind or version of rows.
pub fn read<T: Table>(path: &Path) -> Result<Vec<T>, Error> {
    let parquet = |source| Error::Parquet { path: path.into(), source };
    let file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(parquet)?.with_batch_size(BATCH);
    let found = schema_name(reader.metadata());
    let fields = reader.schema().fields();
    if found != Some(T::SCHEMA) || *fields != Fields::from(T::fields()) {
        let found = match found {
            None => format!("no `{KEY}` in its metadata"),
            Some(found) if found != T::SCHEMA => found.to_owned(),
            Some(_) => format!("other columns, {:?}", fields.iter().map(|field| field.name()).collect::<Vec<_>>()),
        };
        return Err(Error::Schema { path: path.into(), expected: T::SCHEMA, found });
    }
    let bytes: i64 = reader.metadata().row_groups().iter().map(|group| group.total_byte_size()).sum();
    if bytes > MAX_FILE_BYTES as i64 {
        return Err(Error::FileTooLarge { path: path.into(), limit: MAX_FILE_BYTES });
    }
    let mut rows: Vec<T> = Vec::new();
    for batch in reader.build().map_err(parquet)? {
        let batch = batch.map_err(|source| parquet(ParquetError::from(source)))?;
        let read = T::rows(batch.columns()).map_err(|BadCell { row, column, expected, found }| Error::Cell {
            path: path.into(),
            row: rows.len() + row,
            column,
            expected,
            found,
        })?;
        rows.extend(read);
    }
    Ok(rows)
}

fn schema_name(metadata: &ParquetMetaData) -> Option<&str> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    pairs.iter().find(|pair| pair.key == KEY)?.value.as_deref()
}

/// What was known of a comparison when it was made stands beside it; what nobody knows is null.
impl Table for LabelledComparison {
    const SCHEMA: &'static str = "comparisons/2";

    fn fields() -> Vec<Field> {
        vec![
            dialogue_field("prompt"),
            text_field("a"),
            text_field("b"),
            text_field("label"),
            Field::new("strength", DataType::Float64, true),
            Field::new("annotator", DataType::LargeUtf8, true),
            text_field("source"),
            Field::new("time", DataType::Int64, true),
        ]
    }

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        let annotators = rows.iter().map(|row| row.annotator.as_deref()).collect::<LargeStringArray>();
        let labels = rows.iter().map(|row| label_name(row.label));
        vec![
            dialogues(rows.iter().map(|row| &row.comparison.prompt)),
            texts(rows.iter().map(|row| &row.comparison.a)),
            texts(rows.iter().map(|row| &row.comparison.b)),
            Arc::new(LargeStringArray::from_iter_values(labels)),
            Arc::new(rows.iter().map(|row| row.strength).collect::<Float64Array>()),
            Arc::new(annotators),
            texts(rows.iter().map(|row| &row.source)),
            Arc::new(rows.iter().map(|row| row.time).collect::<Int64Array>()),
        ]
    }

    fn rows(columns: &[ArrayRef]) -> Result<Vec<Self>, BadCell> {
        let known = |column: usize, row: usize| columns[column].is_valid(row);
        let row = |row| {
            let found = text(columns, 3, row);
            let label = [Label::A, Label::B, Label::Tie].into_iter().find(|&label| label_name(label) == found);
            let bad = BadCell { row, column: "label", expected: "`a`, `b` or `tie`", found };
            Ok(Self {
                comparison: Comparison {
                    prompt: dialogue(columns, 0, "prompt", row)?,
                    a: text(columns, 1, row),
                    b: text(columns, 2, row),
                },
                label: label.ok_or(bad)?,
                strength: known(4, row).then(|| columns[4].as_primitive::<Float64Type>().value(row)),
                annotator: known(5, row).then(|| text(columns, 5, row)),
                source: text(columns, 6, row),
                time: known(7, row).then(|| columns[7].as_primitive::<Int64Type>().value(row)),
            })
        };
        (0..columns[0].len()).map(row).collect()
    }
}

fn label_name(label: Label) -> &'static str {
    match label {
        Label::A => "a",
        Label::B => "b",
        Label::Tie => "tie",
    }
}

impl Table for Dialogue {
    const SCHEMA: &'static str = "dialogues/1";

    fn fields() -> Vec<Field> {
        vec![dialogue_field("dialogue")]
    }

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        vec![dialogues(rows.iter())]
    }

    fn rows(columns: &[ArrayRef]) -> Result<Vec<Self>, BadCell> {
        (0..columns[0].len()).map(|row| dialogue(columns, 0, "dialogue", row)).collect()
    }
}

/// Conversations to finetune on.
impl Table for Example {
    const SCHEMA: &'static str = "conversations/1";

    fn fields() -> Vec<Field> {
        vec![dialogue_field("dialogue"), Field::new("text", DataType::LargeUtf8, true)]
    }

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        fn said(row: &Example) -> &Dialogue {
            static NOTHING: Dialogue = Dialogue { messages: Vec::new() };
            match row {
                Example::Conversation(dialogue) => dialogue,
                Example::Text(_) => &NOTHING,
            }
        }
        let text = |row: &Self| match row {
            Self::Conversation(_) => None,
            Self::Text(text) => Some(text.clone()),
        };
        vec![dialogues(rows.iter().map(said)), Arc::new(rows.iter().map(text).collect::<LargeStringArray>())]
    }

    fn rows(columns: &[ArrayRef]) -> Result<Vec<Self>, BadCell> {
        let row = |row| match columns[1].is_valid(row) {
            true => Ok(Self::Text(text(columns, 1, row))),
            false => dialogue(columns, 0, "dialogue", row).map(Self::Conversation),
        };
        (0..columns[0].len()).map(row).collect()
    }
}

impl Table for RankedPair {
    const SCHEMA: &'static str = "ranked-pairs/2";

    fn fields() -> Vec<Field> {
        ["context", "chosen", "rejected"].map(text_field).into()
    }

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        vec![
            texts(rows.iter().map(|row| &row.context)),
            texts(rows.iter().map(|row| &row.chosen)),
            texts(rows.iter().map(|row| &row.rejected)),
        ]
    }

    fn rows(columns: &[ArrayRef]) -> Result<Vec<Self>, BadCell> {
        let row = |row| Self {
            context: text(columns, 0, row),
            chosen: text(columns, 1, row),
            rejected: text(columns, 2, row),
        };
        Ok((0..columns[0].len()).map(row).collect())
    }
}

/// Documents of plain text.
impl Table for String {
    const SCHEMA: &'static str = "texts/1";

    fn fields() -> Vec<Field> {
        vec![text_field("text")]
    }

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        vec![texts(rows.iter())]
    }

    fn rows(columns: &[ArrayRef]) -> Result<Vec<Self>, BadCell> {
        Ok((0..columns[0].len()).map(|row| text(columns, 0, row)).collect())
    }
}

fn text_field(name: &str) -> Field {
    // Wide offsets: a batch may hold more than 2 GiB.
    Field::new(name, DataType::LargeUtf8, false)
}

fn message_fields() -> Fields {
    Fields::from(vec![text_field("role"), text_field("text")])
}

fn message_field() -> Field {
    Field::new("message", DataType::Struct(message_fields()), false)
}

fn dialogue_field(name: &str) -> Field {
    Field::new(name, DataType::List(Arc::new(message_field())), false)
}

fn texts<'a>(texts: impl Iterator<Item = &'a String>) -> ArrayRef {
    Arc::new(LargeStringArray::from_iter_values(texts))
}

fn text(columns: &[ArrayRef], column: usize, row: usize) -> String {
    columns[column].as_string::<i64>().value(row).to_owned()
}

fn dialogues<'a>(dialogues: impl Iterator<Item = &'a Dialogue> + Clone) -> ArrayRef {
    let messages = || dialogues.clone().flat_map(|dialogue| &dialogue.messages);
    let roles = LargeStringArray::from_iter_values(messages().map(|message| role_name(message.role)));
    let said = LargeStringArray::from_iter_values(messages().map(|message| &message.text));
    let values = StructArray::new(message_fields(), vec![Arc::new(roles), Arc::new(said)], None);
    let lengths = OffsetBuffer::from_lengths(dialogues.clone().map(|dialogue| dialogue.messages.len()));
    Arc::new(ListArray::new(Arc::new(message_field()), lengths, Arc::new(values), None))
}

fn dialogue(columns: &[ArrayRef], index: usize, column: &'static str, row: usize) -> Result<Dialogue, BadCell> {
    let messages = columns[index].as_list::<i32>().value(row);
    let [roles, texts] = [0, 1].map(|field| messages.as_struct().column(field).as_string::<i64>());
    let message = |(role, text): (Option<&str>, Option<&str>)| {
        let role = role.unwrap_or_default();
        let bad = || BadCell {
            row,
            column,
            expected: "the role `system`, `human`, `assistant` or `tool`",
            found: role.to_owned(),
        };
        let known = [Role::System, Role::Human, Role::Assistant, Role::Tool];
        let role = known.into_iter().find(|known| role_name(*known) == role).ok_or_else(bad)?;
        Ok(Message { role, text: text.unwrap_or_default().to_owned() })
    };
    roles.iter().zip(texts.iter()).map(message).collect::<Result<_, _>>().map(Dialogue::new)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::Human => "human",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::file::tests::file_of;

    fn comparisons(count: usize) -> Vec<LabelledComparison> {
        let turns = |index| match index % 3 {
            0 => vec![],
            1 => vec![Message::human("q\n\"é\"")],
            _ => vec![Message::human("q"), Message::assistant(""), Message::human(format!("{index}"))],
        };
        let row = |index| LabelledComparison {
            label: [Label::A, Label::B, Label::Tie][index % 3],
            strength: (index % 2 == 0).then_some(index as f64 / 8.0),
            annotator: (index % 5 == 0).then(|| format!("worker {}", index % 7)),
            time: (index % 4 != 1).then_some(1_600_000_000 + index as i64),
            ..LabelledComparison::of_chosen(Dialogue::new(turns(index)), format!("good {index}"), "", "base")
        };
        (0..count).map(row).collect()
    }

    fn round_trip<T: Table + PartialEq + Debug>(rows: &[T]) {
        let (_dir, path) = file_of("x.parquet", b"");
        write(&path, rows).unwrap();
        assert_eq!(read::<T>(&path).unwrap(), rows);
    }

    #[test]
    fn every_kind_is_read_as_written() {
        // More rows than a batch.
        let rows = comparisons(BATCH * 2 + 5);
        round_trip(&rows);
        round_trip::<LabelledComparison>(&[]);
        round_trip(&rows.iter().map(|row| row.prompt().clone()).collect::<Vec<_>>());
        round_trip(&[RankedPair { context: "c".into(), chosen: "b".into(), rejected: "w".into() }]);
        let said = Dialogue::new(vec![Message::human("q"), Message::assistant("a")]);
        round_trip(&[Example::Conversation(said), Example::Text("t".into()), Example::Text(String::new())]);
        round_trip(&["one".to_owned(), String::new(), "x".repeat(100_000)]);
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let bytes = || {
            let (dir, path) = file_of("x.parquet", b"");
            write(&path, &comparisons(3000)).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the file");
            std::fs::read(&path).unwrap()
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn another_kind_is_an_error() {
        let (_dir, path) = file_of("x.parquet", b"");
        write(&path, &["text".to_owned()]).unwrap();
        let message = read::<LabelledComparison>(&path).unwrap_err().to_string();
        let expected =
            "x.parquet: expected a table of comparisons/2, found texts/1; name another file or write this one again";
        assert!(message.ends_with(expected), "{message}");
    }

    /// Rows of which the metadata says what the test wants.
    fn write_as(path: &Path, schema: Option<&str>, batch: &RecordBatch) {
        let pairs = schema.map(|schema| vec![KeyValue::new(KEY.to_owned(), schema.to_owned())]);
        let properties = WriterProperties::builder().set_key_value_metadata(pairs).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
    }

    fn batch(fields: Vec<Field>, columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn columns_must_be_the_kinds_own() {
        let (_dir, path) = file_of("x.parquet", b"");
        let text = [text_field("text")];
        let body = [text_field("body")];
        for (schema, fields, found) in [
            (None, &text, "no `firebrick.schema` in its metadata"),
            (Some("texts/2"), &text, "texts/2"),
            (Some("texts/1"), &body, "other columns, [\"body\"]"),
        ] {
            write_as(&path, schema, &batch(fields.to_vec(), String::columns(&["x".to_owned()])));
            let message = read::<String>(&path).unwrap_err().to_string();
            assert!(message.contains(&format!("expected a table of texts/1, found {found};")), "{message}");
        }
        // A column that may hold nulls is not the kind's own either.
        let nullable = Field::new("text", DataType::LargeUtf8, true);
        write_as(
            &path,
            Some("texts/1"),
            &batch(vec![nullable], vec![Arc::new(LargeStringArray::from(vec![None::<&str>]))]),
        );
        assert!(matches!(read::<String>(&path).unwrap_err(), Error::Schema { .. }));
    }

    #[test]
    fn an_unknown_label_is_named() {
        let (_dir, path) = file_of("x.parquet", b"");
        let mut columns = LabelledComparison::columns(&comparisons(2));
        columns[3] = Arc::new(LargeStringArray::from(vec!["a", "c"]));
        write_as(&path, Some("comparisons/2"), &batch(LabelledComparison::fields(), columns));
        let message = read::<LabelledComparison>(&path).unwrap_err().to_string();
        assert!(message.contains("row 1, column `label`: expected `a`, `b` or `tie`, found \"c\"; write"), "{message}");
    }

    #[test]
    fn an_unknown_role_is_named() {
        let (_dir, path) = file_of("x.parquet", b"");
        let roles: ArrayRef = Arc::new(LargeStringArray::from(vec!["human", "wizard"]));
        let said: ArrayRef = Arc::new(LargeStringArray::from(vec!["a", "b"]));
        let values = StructArray::new(message_fields(), vec![roles, said], None);
        let offsets = OffsetBuffer::from_lengths([1, 1]);
        let column = ListArray::new(Arc::new(message_field()), offsets, Arc::new(values), None);
        write_as(&path, Some("dialogues/1"), &batch(Dialogue::fields(), vec![Arc::new(column)]));
        let message = read::<Dialogue>(&path).unwrap_err().to_string();
        let expected = "row 1, column `dialogue`: expected the role `system`, `human`, `assistant` or `tool`, found \"wizard\"; write";
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn a_cut_file_is_an_error() {
        let (_dir, path) = file_of("x.parquet", b"");
        write(&path, &comparisons(100)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let message = read::<LabelledComparison>(&path).unwrap_err().to_string();
            assert!(message.ends_with("x.parquet: not a whole Parquet file; write it again"), "{message}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read::<LabelledComparison>(&path).unwrap_err(), Error::Read { .. }));
    }
}
