//! Texts that end a sample, found while it grows.

use std::sync::Arc;

use firebrick_types::TokenId;

use crate::{TextStream, Tokenizer};

/// A text that grows piece by piece and ends before the first stop string.
///
/// The first is the one that is whole first; where several end at the same place, the longest. So the text does not depend on
/// where its pieces are cut. What may be the beginning of a stop string is held back, everything before it is not.
///
/// ```
/// use firebrick_text::StopText;
///
/// let mut text = StopText::new(&["\n\nHuman:"]);
/// assert_eq!(text.push("Paris.\n"), "Paris.");
/// assert_eq!(text.push("\nIt is"), "\n\nIt is");
/// assert_eq!(text.push(" old.\n\nHuman: And"), " old.");
/// assert!(text.stopped());
/// ```
#[derive(Clone, Debug)]
pub struct StopText {
    stops: Vec<String>,
    /// The longest end of the text so far with which a stop string begins.
    held: String,
    stopped: bool,
}

impl StopText {
    /// An empty text. A stop string without characters is none.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Self {
        let stops = stops.iter().map(|stop| stop.as_ref().to_owned()).filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Adds a piece; returns what is now certain to stand before any stop string. After one there is nothing more.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        // No stop string begins before `held`: its beginning would be a longer one to hold.
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop).map(|start| (start + stop.len(), start)));
        if let Some((_, start)) = found.min() {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let earliest = (self.held.len() + 1).saturating_sub(longest);
        let begins = |start: &usize| {
            let end = self.held.get(*start..);
            end.is_some_and(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
        };
        let start = (earliest..self.held.len()).find(begins).unwrap_or(self.held.len());
        let held = self.held.split_off(start);
        std::mem::replace(&mut self.held, held)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// What was held back, when no piece follows.
    pub fn finish(self) -> String {
        self.held
    }
}

/// Texts that end a sample, whatever tokens they are written with: a tokenizer may join a part of one with what stands beside it, and a
/// model may spell it as the tokenizer would not.
///
/// ```
/// use firebrick_text::{StopStrings, Tokenizer};
///
/// let tokenizer = Tokenizer::train(["yes.\n\nHuman: no"], 300)?;
/// let stops = StopStrings::new(tokenizer.clone(), ["\n\nHuman:"]);
/// let mut watch = stops.watch();
/// let letters = "Yes.\n\nHuman:".chars().flat_map(|letter| tokenizer.encode(&letter.to_string()));
/// assert_eq!(letters.map(|token| watch.push(token)).filter(|stopped| *stopped).count(), 1);
/// # Ok::<(), firebrick_text::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StopStrings {
    tokenizer: Tokenizer,
    strings: Arc<[String]>,
}

/// A sample that is watched for texts that end it, made by [`StopStrings::watch`].
#[derive(Clone, Debug)]
pub struct StopWatch {
    stream: TextStream,
    text: StopText,
}

impl StopStrings {
    /// These texts, in the tokens of this tokenizer. A text without characters is none.
    pub fn new<S: Into<String>>(tokenizer: Tokenizer, strings: impl IntoIterator<Item = S>) -> Self {
        Self { tokenizer, strings: strings.into_iter().map(Into::into).collect() }
    }

    /// The texts.
    pub fn strings(&self) -> &[String] {
        &self.strings
    }

    /// A sample without tokens yet.
    pub fn watch(&self) -> StopWatch {
        StopWatch { stream: self.tokenizer.stream(), text: StopText::new(&self.strings) }
    }

    /// How many tokens of a response begin before the first of the texts, and the text before it; all of it where there is none.
    pub fn split(&self, response: &[TokenId]) -> (usize, String) {
        let mut watch = self.watch();
        let (mut read, mut before, mut begins) = (0, String::new(), Vec::new());
        for &token in response {
            begins.push(read);
            let added = watch.stream.push(token);
            read += added.len();
            before.push_str(&watch.text.push(&added));
            if watch.text.stopped() {
                return (begins.iter().filter(|&&begin| begin < before.len()).count(), before);
            }
        }
        let last = watch.stream.finish();
        before.push_str(&watch.text.push(&last));
        before.push_str(&watch.text.finish());
        (response.len(), before)
    }
}

impl StopWatch {
    /// Adds a token; returns whether one of the texts is whole now. After that nothing more is looked at.
    pub fn push(&mut self, token: TokenId) -> bool {
        if !self.text.stopped() {
            let added = self.stream.push(token);
            self.text.push(&added);
        }
        self.text.stopped()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STOP: &str = "\n\nHuman:";

    /// A tokenizer that joins a full stop with the empty line after it, as Llama 3's does.
    fn joining() -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        Tokenizer::train([""], 257).unwrap().save(&path).unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json["pre_tokenizer"]["use_regex"] = false.into();
        json["model"]["vocab"][".\u{10a}"] = 257.into();
        json["model"]["vocab"][".\u{10a}\u{10a}"] = 258.into();
        json["model"]["merges"] = serde_json::json!([[".", "\u{10a}"], [".\u{10a}", "\u{10a}"]]);
        let tokenizer = Tokenizer::parse(&json.to_string(), &path, None).unwrap();
        assert_eq!(tokenizer.token_text(258), ".\n\n");
        tokenizer
    }

    #[test]
    fn a_stop_string_ends_a_sample_whatever_its_tokens() {
        let tokenizer = joining();
        let stops = StopStrings::new(tokenizer.clone(), [STOP, "\n\n-----"]);
        let whole = tokenizer.encode("an oak.\n\nHuman: more");
        let letters = "an oak.\n\nHuman: more".bytes().flat_map(|byte| tokenizer.encode(&char::from(byte).to_string()));
        let letters = letters.collect::<Vec<_>>();
        assert!(whole.contains(&258) && !letters.contains(&258));
        // A token that begins before the stop string is kept whole; the text ends exactly where it begins.
        for (tokens, shown) in [(whole, "an oak.\n\n"), (letters, "an oak.")] {
            let mut watch = stops.watch();
            let stopped = tokens.iter().position(|&token| watch.push(token)).expect("the text is there");
            assert_eq!(tokenizer.decode(&tokens[..=stopped]), "an oak.\n\nHuman:");
            assert!(watch.push(tokens[0]), "it stays stopped");
            let (kept, text) = stops.split(&tokens[..=stopped]);
            assert_eq!((tokenizer.decode(&tokens[..kept]).as_str(), text.as_str()), (shown, "an oak."));
        }
        let never = tokenizer.encode("an elm.\n\nHum");
        assert_eq!(stops.split(&never), (never.len(), "an elm.\n\nHum".to_owned()));
    }

    proptest! {
        /// A token that begins before the stop string is kept, one that begins in it is not.
        #[test]
        fn what_is_kept_holds_the_text_and_at_most_the_rest_of_its_last_token(
            said in "[ab\n.]{0,8}",
            cut in 0_usize..8,
        ) {
            let tokenizer = joining();
            let stops = StopStrings::new(tokenizer.clone(), [STOP]);
            let text = format!("{said}{STOP}");
            let mut tokens = tokenizer.encode(&text);
            // Some of it spelt out in bytes.
            let spelt = tokens.drain(..cut.min(tokens.len())).collect::<Vec<_>>();
            let spelt = tokenizer.decode(&spelt);
            let letters = spelt.chars().flat_map(|letter| tokenizer.encode(&letter.to_string())).collect::<Vec<_>>();
            let tokens = [letters, tokens].concat();
            let (kept, before) = stops.split(&tokens);
            prop_assert_eq!(&before, &said);
            let shown = tokenizer.decode(&tokens[..kept]);
            prop_assert!(shown.starts_with(&said) && text.starts_with(&shown), "{:?}", shown);
            if kept > 0 {
                prop_assert!(tokenizer.decode(&tokens[..kept - 1]).len() < said.len().max(1));
            }
        }
    }

    /// The text before the stop string that is whole first, by looking at every place where one may end.
    fn naive(text: &str, stops: &[String]) -> (String, bool) {
        for end in (1..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let ending = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
            if let Some(longest) = ending.map(String::len).max() {
                return (text[..end - longest].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn pieces_give_what_a_search_of_the_whole_text_gives(
            pieces in proptest::collection::vec("[abé]{0,3}", 0..12),
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let whole = pieces.concat();
            let (expected, expected_stop) = naive(&whole, &stops);
            let mut text = StopText::new(&stops);
            let (mut found, mut given) = (String::new(), String::new());
            for piece in &pieces {
                given.push_str(piece);
                found.push_str(&text.push(piece));
                prop_assert!(expected.starts_with(&found));
                // As early as possible: what is not out yet could still become a stop string.
                if !text.stopped() {
                    let held = &given[found.len()..];
                    prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held) && stop != held));
                }
            }
            prop_assert_eq!(text.stopped(), expected_stop);
            found.push_str(&text.finish());
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn of_stop_strings_that_end_together_the_longest_is_cut_off() {
        let mut text = StopText::new(&["bc", "abc", ""]);
        assert_eq!(text.push("xab"), "x");
        assert_eq!(text.push("cd"), "");
        assert!(text.stopped());
        assert_eq!((text.push("more"), text.finish()), (String::new(), String::new()));
    }
}
