//! Plain text, as documents of a bounded size.

use std::path::Path;

use crate::file::read_to_string;
use crate::folder::is_jsonl;
use crate::jsonl::{self, Record};
use crate::rows::{Dropped, Row, Rows, kept};
use crate::{Error, store};

const SHAPE: &str = r#"{"text": …}"#;

/// The documents of a file, gzip or not, each of at most `max_characters`.
///
/// A `.jsonl` or `.jsonl.gz` file holds one text a row in its field `text`, other fields passed over; any other file
/// is one text. See [`documents`] for how a text is cut.
///
/// # Errors
/// If the file cannot be read, is not UTF-8, or one of its [`rows`] is an error.
///
/// # Panics
/// If `max_characters` is zero.
pub fn read(path: &Path, max_characters: usize) -> Result<Vec<String>, Error> {
    kept(rows(path, max_characters)?)
}

/// The documents of a file one by one, as [`read`]; those of one row have its number. A row without text is dropped.
///
/// # Errors
/// If the file cannot be read or is not UTF-8. A row is an error that is no JSON object with a `text`.
///
/// # Panics
/// If `max_characters` is zero.
pub fn rows(path: &Path, max_characters: usize) -> Result<Rows<'_, String>, Error> {
    if store::is_table(path) {
        return store::rows(path);
    }
    if !is_jsonl(path) {
        let documents = documents(&read_to_string(path)?, max_characters);
        return Ok(Box::new((1..).zip(documents).map(|(number, document)| Ok(Row { number, content: Ok(document) }))));
    }
    let of_row = move |row: Result<Record, Error>| -> Result<Vec<_>, Error> {
        let row = row?;
        let number = row.number();
        let documents = documents(row.text("text")?, max_characters);
        if documents.is_empty() {
            return Ok(vec![Row { number, content: Err(Dropped::NoText) }]);
        }
        Ok(documents.into_iter().map(|document| Row { number, content: Ok(document) }).collect())
    };
    Ok(Box::new(jsonl::rows(path, SHAPE)?.flat_map(move |row| match of_row(row) {
        Ok(rows) => rows.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    })))
}

/// A text cut into documents of at most `max_characters`, without surrounding white space and none empty.
///
/// A cut is made at the last end of a paragraph that fits; failing that at the last end of a line, then of a word, then
/// anywhere.
///
/// # Panics
/// If `max_characters` is zero.
pub fn documents(text: &str, max_characters: usize) -> Vec<String> {
    assert!(max_characters > 0, "a document has at least one character");
    let text = text.replace("\r\n", "\n");
    let mut rest = text.trim();
    let mut documents = Vec::new();
    while let Some((limit, _)) = rest.char_indices().nth(max_characters) {
        let fitting = &rest[..limit];
        let cut = ["\n\n", "\n", " "].into_iter().find_map(|end| fitting.rfind(end)).unwrap_or(limit);
        documents.push(rest[..cut].trim_end().to_owned());
        rest = rest[cut..].trim_start();
    }
    if !rest.is_empty() {
        documents.push(rest.to_owned());
    }
    documents
}

#[cfg(test)]
mod tests {
    use firebrick_text::Tokenizer;
    use proptest::prelude::*;

    use super::*;
    use crate::file::tests::{file_of, gzip, real_data};

    #[test]
    fn cuts_are_made_at_paragraphs_then_lines_then_words() {
        assert_eq!(documents("one\n\ntwo\n\nthree", 10), ["one\n\ntwo", "three"]);
        assert_eq!(documents("one\r\n\r\ntwo\r\n\r\nthree", 10), ["one\n\ntwo", "three"]);
        assert_eq!(documents("one\n\ntwo\nthree", 10), ["one", "two\nthree"]);
        assert_eq!(documents("one two\nthree", 10), ["one two", "three"]);
        assert_eq!(documents("one\nt o three", 10), ["one", "t o three"]);
        assert_eq!(documents("one two three", 10), ["one two", "three"]);
        assert_eq!(documents("éééééé", 4), ["éééé", "éé"]);
        assert_eq!(documents(" short ", 10), ["short"]);
        assert!(documents(" \n ", 10).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_but_white_space_is_lost(text in "[aé \n]{0,60}", max in 1_usize..12) {
            let documents = documents(&text, max);
            for document in &documents {
                prop_assert!(document.chars().count() <= max && !document.is_empty() && document.trim() == document);
            }
            let letters = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(letters(&documents.concat()), letters(&text));
        }
    }

    #[test]
    fn text_and_rows_are_read() {
        let (_dir, path) = file_of("x.txt.gz", &gzip(b"one\n\ntwo"));
        assert_eq!(read(&path, 100).unwrap(), ["one\n\ntwo"]);
        let (_dir, path) = file_of("x.jsonl", b"{\"text\": \"one\"}\n{\"id\": 1, \"text\": \"two three\"}\n");
        assert_eq!(read(&path, 5).unwrap(), ["one", "two", "three"]);
    }

    #[test]
    fn bad_text_is_named() {
        let (_dir, path) = file_of("x.txt", b"ab\xff");
        let message = read(&path, 5).unwrap_err().to_string();
        assert!(message.ends_with("x.txt: not UTF-8 from byte 2; convert the file to UTF-8"), "{message}");
        let (_dir, path) = file_of("x.jsonl", b"{\"text\": null}");
        let message = read(&path, 5).unwrap_err().to_string();
        assert!(
            message.ends_with("x.jsonl, line 1, field `text`: expected text, found null; a row is {\"text\": …}"),
            "{message}"
        );
    }

    #[test]
    fn real_text_is_read() {
        let Some(folder) = real_data("text") else { return };
        assert_eq!(read(&folder.join("inaugural.jsonl.gz"), usize::MAX).unwrap().len(), 59);
        let novel = read(&folder.join("austen/emma.txt.gz"), 10_000).unwrap();
        // About 880 000 characters, cut a little before every 10 000.
        assert!((85..110).contains(&novel.len()), "{}", novel.len());
    }

    /// Ties between pairs are common in real text, and hash maps are seeded anew each time.
    #[test]
    fn a_tokenizer_of_real_text_does_not_depend_on_its_order() {
        let Some(folder) = real_data("text") else { return };
        let documents = read(&folder.join("tinyshakespeare.txt.gz"), 10_000).unwrap();
        let tokenizer = Tokenizer::train(&documents, 4096).unwrap();
        assert_eq!(tokenizer.vocab_size(), 4096);
        let again = Tokenizer::train(documents.iter().rev(), 4096).unwrap();
        let saved = |tokenizer: &Tokenizer| {
            let (_dir, path) = file_of("tokenizer.json", b"");
            tokenizer.save(&path).unwrap();
            std::fs::read(path).unwrap()
        };
        assert!(saved(&tokenizer) == saved(&again));
        let document = &documents[3];
        assert_eq!(&tokenizer.decode(&tokenizer.encode(document)), document);
    }
}
