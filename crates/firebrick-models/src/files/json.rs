//! Small files of a checkpoint, within limits, and what stands at their keys.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;

use crate::Error;

/// The most that a file of settings, a vocabulary or a template may hold, in bytes.
const LIMIT: u64 = 64 << 20;

/// The bytes of a file, or none where there is no such file.
///
/// # Errors
/// If it cannot be read, or is larger than the limit.
pub(crate) fn bytes(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::TooLarge { path: path.to_owned(), limit: LIMIT });
    }
    Ok(Some(bytes))
}

/// The text of a file, or none where there is no such file.
///
/// # Errors
/// If it cannot be read, is larger than the limit, or not UTF-8.
pub(crate) fn text(path: &Path) -> Result<Option<String>, Error> {
    let text = |bytes| String::from_utf8(bytes).map_err(|_| Error::NotUtf8 { path: path.to_owned() });
    bytes(path)?.map(text).transpose()
}

/// The JSON object of a file, or an empty one where there is no such file.
///
/// # Errors
/// If it cannot be read, is larger than the limit, or not a JSON object.
pub(crate) fn json(path: &Path) -> Result<Settings<'_>, Error> {
    let value = match bytes(path)? {
        None => Value::Object(serde_json::Map::new()),
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.to_owned(), source })?
        }
    };
    if !value.is_object() {
        return Err(wrong(path, "the whole file", &value, "an object"));
    }
    Ok(Settings { path, value })
}

/// A JSON object and the file that it came from.
pub(crate) struct Settings<'a> {
    pub(crate) path: &'a Path,
    pub(crate) value: Value,
}

impl Settings<'_> {
    /// What stands at a key, unless that is nothing or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// An error about a key.
    pub(crate) fn wrong(&self, key: &str, expected: impl Into<String>) -> Error {
        wrong(self.path, key, self.value.get(key).unwrap_or(&Value::Null), expected)
    }

    /// Whether something is so.
    ///
    /// # Errors
    /// If something else stands there.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// The name of a token, written as such or as an object.
    ///
    /// # Errors
    /// If something else stands there.
    pub(crate) fn token(&self, key: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let name = value.as_str().or_else(|| value["content"].as_str());
        name.map(|name| Some(name.to_owned())).ok_or_else(|| self.wrong(key, "the name of a token"))
    }
}

fn wrong(path: &Path, key: &str, found: &Value, expected: impl Into<String>) -> Error {
    let mut found = found.to_string();
    if let Some((end, _)) = found.char_indices().nth(60) {
        found.truncate(end);
        found.push('…');
    }
    Error::Key { path: path.to_owned(), key: key.to_owned(), found, expected: expected.into() }
}
