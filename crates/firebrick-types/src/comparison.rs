//! Which of two responses somebody preferred.

use serde::{Deserialize, Serialize};

use crate::Dialogue;

/// Two responses to one prompt, as they are shown to somebody who is to choose (B-03).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The dialogue so far; it ends with the person's turn.
    pub prompt: Dialogue,
    /// One response.
    pub a: String,
    /// The other one.
    pub b: String,
}

/// Which response of a [`Comparison`] was preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// A was.
    A,
    /// B was.
    B,
    /// Neither was.
    Tie,
}

/// A comparison with its label, and what is known of how it came about (B-03, B-06).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledComparison {
    /// What was compared.
    pub comparison: Comparison,
    /// What was preferred.
    pub label: Label,
    /// How strongly, on the scale of those who were asked, if they were asked; positive.
    pub strength: Option<f64>,
    /// Who chose, if that is known.
    pub annotator: Option<String>,
    /// The collection that it belongs to, for instance `helpful-base`.
    pub source: String,
    /// When it was chosen, in seconds since 1970, if that is known.
    pub time: Option<i64>,
}

impl LabelledComparison {
    /// A comparison of which nothing is known but what was chosen: the chosen response is A.
    pub fn of_chosen(
        prompt: Dialogue,
        chosen: impl Into<String>,
        rejected: impl Into<String>,
        source: impl Into<String>,
    ) -> Self {
        Self {
            comparison: Comparison { prompt, a: chosen.into(), b: rejected.into() },
            label: Label::A,
            strength: None,
            annotator: None,
            source: source.into(),
            time: None,
        }
    }

    /// The dialogue that both responses answer.
    pub fn prompt(&self) -> &Dialogue {
        &self.comparison.prompt
    }

    /// The chosen and the rejected response; of a tie none.
    pub fn chosen_and_rejected(&self) -> Option<(&str, &str)> {
        let Comparison { a, b, .. } = &self.comparison;
        match self.label {
            Label::A => Some((a, b)),
            Label::B => Some((b, a)),
            Label::Tie => None,
        }
    }

    /// The same with A and B in each other's place.
    #[must_use]
    pub fn swapped(self) -> Self {
        let Comparison { prompt, a, b } = self.comparison;
        let label = match self.label {
            Label::A => Label::B,
            Label::B => Label::A,
            Label::Tie => Label::Tie,
        };
        Self { comparison: Comparison { prompt, a: b, b: a }, label, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_side_a_response_stands_on_does_not_matter() {
        let one = LabelledComparison::of_chosen(Dialogue::default(), "good", "bad", "test");
        let swapped = one.clone().swapped();
        assert_eq!((swapped.comparison.a.as_str(), swapped.label), ("bad", Label::B));
        assert_eq!(one.chosen_and_rejected(), Some(("good", "bad")));
        assert_eq!(swapped.chosen_and_rejected(), Some(("good", "bad")));
        assert_eq!(swapped.swapped(), one);
        let tie = LabelledComparison { label: Label::Tie, ..one };
        assert_eq!(tie.chosen_and_rejected(), None);
        assert_eq!(tie.swapped().label, Label::Tie);
    }
}
