//! Who said what.

use serde::{Deserialize, Serialize};

/// Who speaks in a dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Who says what the model is to do before anybody asks.
    System,
    /// The person who asks.
    Human,
    /// The model that answers.
    Assistant,
    /// A program that the model called, with its result.
    Tool,
}

impl Role {
    /// The role that OpenAI's interface and published conversations call by this name, in any case of letters: `system` and `developer`,
    /// `user` and `human`, `assistant`, `tool`.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "system" | "developer" => Some(Self::System),
            "user" | "human" => Some(Self::Human),
            "assistant" => Some(Self::Assistant),
            "tool" => Some(Self::Tool),
            _ => None,
        }
    }
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
    /// What the system says.
    pub fn system(text: impl Into<String>) -> Self {
        Self { role: Role::System, text: text.into() }
    }

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

    /// Whether the next turn is the assistant's: the last one is the person's, or a tool's.
    pub fn awaits_assistant(&self) -> bool {
        self.messages.last().is_some_and(|message| matches!(message.role, Role::Human | Role::Tool))
    }

    /// Whether the turns alternate, beginning with the person; the system may have said something before.
    pub fn alternates(&self) -> bool {
        let turns = match self.messages.as_slice() {
            [Message { role: Role::System, .. }, turns @ ..] => turns,
            turns => turns,
        };
        let expected = [Role::Human, Role::Assistant].into_iter().cycle();
        turns.iter().zip(expected).all(|(message, role)| message.role == role)
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
    fn the_system_speaks_before_the_turns_and_a_tool_among_them_alternates_with_nobody() {
        let system = Message::system("Be brief.");
        let tool = Message { role: Role::Tool, text: "4".to_owned() };
        let good = Dialogue::new(vec![system.clone(), Message::human("a"), Message::assistant("b")]);
        assert!(good.alternates() && !good.awaits_assistant());
        assert!(!Dialogue::new(vec![Message::human("a"), system]).alternates());
        let called = good.with(tool);
        assert!(!called.alternates() && called.awaits_assistant());
        assert_eq!(called.opening(), Some("a"));
    }

    #[test]
    fn roles_are_known_by_the_names_that_people_give_them() {
        for (name, role) in [
            ("system", Some(Role::System)),
            ("developer", Some(Role::System)),
            ("Human", Some(Role::Human)),
            ("USER", Some(Role::Human)),
            ("assistant", Some(Role::Assistant)),
            ("tool", Some(Role::Tool)),
            ("wizard", None),
        ] {
            assert_eq!(Role::named(name), role, "{name}");
        }
    }

    #[test]
    fn opening_is_the_first_human_turn() {
        assert_eq!(Dialogue::new(vec![Message::human("a"), Message::assistant("b")]).opening(), Some("a"));
        assert_eq!(Dialogue::default().opening(), None);
    }
}
