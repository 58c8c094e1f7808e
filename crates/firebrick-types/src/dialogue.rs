//! Who said what.

use serde::{Deserialize, Serialize};

/// The two parties of a dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person who asks.
    Human,
    /// The model that answers.
    Assistant,
}

/// One turn of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, without the role marker and without surrounding white space.
    pub text: String,
}

impl Message {
    /// A turn of the person.
    pub fn human(text: impl Into<String>) -> Self {
        Self { role: Role::Human, text: text.into() }
    }

    /// A turn of the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, text: text.into() }
    }
}

/// A conversation, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dialogue {
    /// The turns, oldest first.
    pub messages: Vec<Message>,
}

impl Dialogue {
    /// A dialogue of these turns.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages }
    }

    /// Whether the next turn is the assistant's: the last one is the person's.
    pub fn awaits_assistant(&self) -> bool {
        self.messages.last().is_some_and(|message| message.role == Role::Human)
    }

    /// Whether the turns alternate, beginning with the person.
    pub fn alternates(&self) -> bool {
        let expected = [Role::Human, Role::Assistant].into_iter().cycle();
        self.messages.iter().zip(expected).all(|(message, role)| message.role == role)
    }

    /// The first thing the person said: the key that keeps a conversation in one split (T-24).
    pub fn opening(&self) -> Option<&str> {
        self.messages.iter().find(|message| message.role == Role::Human).map(|message| message.text.as_str())
    }

    /// This dialogue with one more turn.
    pub fn with(&self, message: Message) -> Self {
        let mut messages = self.messages.clone();
        messages.push(message);
        Self { messages }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternation_begins_with_the_human() {
        let good = Dialogue::new(vec![Message::human("a"), Message::assistant("b"), Message::human("c")]);
        assert!(good.alternates() && good.awaits_assistant());
        assert!(!Dialogue::new(vec![Message::assistant("b")]).alternates());
        assert!(!Dialogue::new(vec![Message::human("a"), Message::human("b")]).alternates());
    }

    #[test]
    fn opening_is_the_first_human_turn() {
        assert_eq!(Dialogue::new(vec![Message::human("a"), Message::assistant("b")]).opening(), Some("a"));
        assert_eq!(Dialogue::default().opening(), None);
    }
}
