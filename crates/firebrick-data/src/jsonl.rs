//! JSON objects from outside, field by field, so that a message can name the field.

use std::path::Path;

use serde_json::{Map, Value};

use crate::file::Lines;
use crate::{Error, Place};

/// A JSON object and where it was found.
pub(crate) struct Record {
    place: Place,
    /// The path of this object in its row, for instance `answers[3].`; empty for the row itself.
    prefix: String,
    /// What a row looks like, for messages.
    shape: &'static str,
    fields: Map<String, Value>,
}

/// The rows of a JSONL file; `shape` says in messages what a row looks like.
///
/// # Errors
/// If the file cannot be read; each row is an error where it is no JSON object.
pub(crate) fn rows<'a>(
    path: &'a Path,
    shape: &'static str,
) -> Result<impl Iterator<Item = Result<Record, Error>> + 'a, Error> {
    Ok(Lines::open(path)?.map(move |line| {
        let (place, text) = line?;
        Record::parse(place, &text, shape)
    }))
}

impl Record {
    /// The object of a text.
    pub(crate) fn parse(place: Place, text: &str, shape: &'static str) -> Result<Self, Error> {
        match serde_json::from_str(text) {
            Ok(fields) => Ok(Self { place, prefix: String::new(), shape, fields }),
            Err(source) => Err(Error::NotJson { place, shape, source }),
        }
    }

    /// Whether there is a field of this name.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// Where the object was found.
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// The line of the row.
    pub(crate) fn number(&self) -> u64 {
        self.place.line.unwrap_or(1)
    }

    /// The value of a field, whatever its type.
    pub(crate) fn value(&self, field: &str) -> Option<&Value> {
        self.fields.get(field)
    }

    /// A text field.
    pub(crate) fn text(&self, field: &str) -> Result<&str, Error> {
        let value = self.value(field).and_then(Value::as_str);
        value.ok_or_else(|| self.wrong(field, "text"))
    }

    /// A whole number.
    pub(crate) fn integer(&self, field: &str) -> Result<i64, Error> {
        let value = self.value(field).and_then(Value::as_i64);
        value.ok_or_else(|| self.wrong(field, "a whole number"))
    }

    /// A truth value.
    pub(crate) fn boolean(&self, field: &str) -> Result<bool, Error> {
        let value = self.value(field).and_then(Value::as_bool);
        value.ok_or_else(|| self.wrong(field, "true or false"))
    }

    /// A field that is one object.
    pub(crate) fn record(&self, field: &str) -> Result<Self, Error> {
        let value = self.value(field).and_then(Value::as_object);
        let fields = value.ok_or_else(|| self.wrong(field, "an object"))?.clone();
        Ok(Self { place: self.place(), prefix: format!("{}{field}.", self.prefix), shape: self.shape, fields })
    }

    /// A field that is a list of objects.
    pub(crate) fn records(&self, field: &str) -> Result<Vec<Self>, Error> {
        let list = self.value(field).and_then(Value::as_array).ok_or_else(|| self.wrong(field, "a list"))?;
        let record = |(index, value): (usize, &Value)| match value {
            Value::Object(fields) => {
                let prefix = format!("{}{field}[{index}].", self.prefix);
                Ok(Self { place: self.place(), prefix, shape: self.shape, fields: fields.clone() })
            }
            other => Err(self.error(format!("{field}[{index}]"), "an object", describe(other))),
        };
        list.iter().enumerate().map(record).collect()
    }

    /// The fields, in the order of the text.
    pub(crate) fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The error that a field is not what it should be.
    pub(crate) fn wrong(&self, field: &str, expected: &str) -> Error {
        let found = match self.value(field) {
            Some(value) => describe(value),
            None if self.fields.is_empty() => "no field at all".to_owned(),
            None => {
                let names: Vec<&str> = self.fields.keys().map(String::as_str).take(8).collect();
                format!("no such field among `{}`", names.join("`, `"))
            }
        };
        self.error(field.to_owned(), expected, found)
    }

    fn error(&self, field: String, expected: &str, found: String) -> Error {
        let field = (self.prefix.clone() + &field).into();
        Error::Field { place: self.place(), field, expected: expected.into(), found: found.into(), shape: self.shape }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() > 40 => format!("{:?}…", text.chars().take(40).collect::<String>()),
        Value::String(text) => format!("{text:?}"),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Result<Record, Error> {
        Record::parse(Place { path: "x.jsonl".into(), line: Some(7) }, text, "{…}")
    }

    #[test]
    fn messages_name_file_row_and_field() {
        let row = record(r#"{"a": 1, "list": [{"b": "x"}, 2]}"#).unwrap();
        let message = |error: Error| error.to_string();
        assert_eq!(
            message(row.text("a").unwrap_err()),
            "x.jsonl, line 7, field `a`: expected text, found the number 1; a row is {…}"
        );
        assert_eq!(
            message(row.integer("c").unwrap_err()),
            "x.jsonl, line 7, field `c`: expected a whole number, found no such field among `a`, `list`; a row is {…}"
        );
        assert_eq!(
            message(row.records("list").err().unwrap()),
            "x.jsonl, line 7, field `list[1]`: expected an object, found the number 2; a row is {…}"
        );
        let row = record(r#"{"list": [{"b": "x"}]}"#).unwrap();
        assert_eq!(
            message(row.records("list").unwrap()[0].boolean("b").unwrap_err()),
            "x.jsonl, line 7, field `list[0].b`: expected true or false, found \"x\"; a row is {…}"
        );
    }

    #[test]
    fn a_row_that_is_no_object_is_an_error() {
        assert_eq!(
            record("{\"a\": ").err().unwrap().to_string(),
            "x.jsonl, line 7, column 6: not a JSON object; a row is {…}"
        );
        assert!(record("[1]").is_err() && record("3").is_err());
        assert!(record(&"[".repeat(100_000)).is_err(), "deep nesting does not overflow the stack");
    }
}
