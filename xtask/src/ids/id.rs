//! A letter and a number.

use std::fmt;

/// The letter of a family, such as that of the traps, and a number of two digits in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) family: char,
    pub(super) number: u32,
}

impl Id {
    /// The id that a text is, whole.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let [family @ b'A'..=b'Z', b'-', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = text.as_bytes() else { return None };
        Some(Self { family: char::from(*family), number: u32::from(tens - b'0') * 10 + u32::from(ones - b'0') })
    }

    /// How the names of its tests begin.
    pub(super) fn test_prefix(self) -> String {
        format!("{}{:02}_", self.family.to_ascii_lowercase(), self.number)
    }

    /// The id that the name of a test begins with.
    pub(super) fn of_test(name: &str) -> Option<Self> {
        let (start, _) = name.split_once('_')?;
        let (family, number) = start.split_at_checked(1)?;
        let is_lower = family.bytes().all(|byte| byte.is_ascii_lowercase());
        is_lower.then(|| Self::parse(&format!("{}-{number}", family.to_ascii_uppercase())))?
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{:02}", self.family, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_letter_and_two_digits() {
        assert_eq!(Id::parse("Q-07").unwrap().to_string(), "Q-07");
        for other in ["Q-7", "Q-071", "q-07", "Q07", "QQ-07", ""] {
            assert_eq!(Id::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_test_is_named_after_an_id() {
        let id = Id::parse("Q-07").unwrap();
        assert_eq!(id.test_prefix(), "q07_");
        assert_eq!(Id::of_test("q07_it_holds"), Some(id));
        for other in ["q7_it_holds", "q07", "qq07_x", "Q07_x", "_x", "a_b"] {
            assert_eq!(Id::of_test(other), None, "{other}");
        }
    }
}
