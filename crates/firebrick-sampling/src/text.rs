//! Texts that end a sample, found while it grows.

/// A text that grows piece by piece and ends before the first stop string.
///
/// The first is the one that is whole first; where several end at the same place, the longest. So the text does not depend on
/// where its pieces are cut. What may be the beginning of a stop string is held back, everything before it is not.
///
/// ```
/// use firebrick_sampling::StopText;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
