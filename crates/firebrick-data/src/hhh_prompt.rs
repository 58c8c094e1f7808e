//! The prompt of a helpful, honest, harmless assistant.
//!
//! A prompt is a paragraph that describes the assistant, then invented conversations in the dialogue format
//! (`\n\nHuman: …\n\nAssistant: …`). The paragraph and every conversation, the last one too, are followed by
//! [`SEPARATOR`]. So the text ends exactly where `\n\nHuman: ` must follow to begin a new conversation, and a model that
//! ends the new conversation as it saw the others end writes the separator.

use firebrick_text::dialogue::SEPARATOR;
use firebrick_types::{Dialogue, Message};

/// The whole prompt: an opening paragraph and fourteen conversations.
pub const FULL: &str = include_str!("../assets/hhh/full.txt");

/// The short prompt: an opening paragraph and one conversation.
pub const SHORT: &str = include_str!("../assets/hhh/short.txt");

/// The conversations of a prompt, in order.
///
/// Text between separators that does not open with a human turn, as the opening paragraph, is none of them.
pub fn conversations(prompt: &str) -> Vec<Dialogue> {
    prompt.split(SEPARATOR).filter_map(|part| part.strip_prefix("\n\nHuman: ")).map(conversation).collect()
}

/// The dialogue of a conversation without its first role marker.
fn conversation(text: &str) -> Dialogue {
    let turns = text.split("\n\nHuman: ").flat_map(|exchange| {
        let mut turns = exchange.split("\n\nAssistant: ");
        let human = turns.next().map(Message::human);
        human.into_iter().chain(turns.map(Message::assistant))
    });
    Dialogue::new(turns.collect())
}

#[cfg(test)]
mod tests {
    use firebrick_types::Role;

    use super::*;

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn the_full_prompt_has_fourteen_conversations_and_the_short_one_has_one() {
        assert_eq!(conversations(FULL).len(), 14);
        assert_eq!(conversations(SHORT).len(), 1);
        assert!((3_500..=4_600).contains(&words(FULL)), "{} words", words(FULL));
        assert!(words(SHORT) <= 110, "{} words", words(SHORT));
    }

    #[test]
    fn every_conversation_alternates_from_the_human_to_the_assistant() {
        for dialogue in conversations(FULL).into_iter().chain(conversations(SHORT)) {
            assert!(dialogue.alternates() && !dialogue.awaits_assistant(), "{dialogue:?}");
            for message in &dialogue.messages {
                assert!(!message.text.is_empty() && message.text == message.text.trim(), "{message:?}");
                assert!(!message.text.contains("Human:") && !message.text.contains("Assistant:"), "{message:?}");
            }
        }
    }

    #[test]
    fn no_two_conversations_open_alike() {
        let dialogues = conversations(FULL);
        let mut openings: Vec<_> = dialogues.iter().filter_map(Dialogue::opening).collect();
        openings.sort_unstable();
        openings.dedup();
        assert_eq!(openings.len(), 14);
    }

    /// A-05's check: nothing but a new conversation can follow, and rendering the parts gives the prompt again.
    #[test]
    fn a_prompt_ends_exactly_where_a_new_conversation_begins() {
        for prompt in [FULL, SHORT] {
            let (paragraph, _) = prompt.split_once(SEPARATOR).unwrap();
            assert!(!paragraph.contains('\n') && !paragraph.is_empty(), "one opening paragraph");
            let mut rendered = format!("{paragraph}{SEPARATOR}");
            for dialogue in conversations(prompt) {
                for message in dialogue.messages {
                    let marker = if message.role == Role::Human { "Human" } else { "Assistant" };
                    rendered += &format!("\n\n{marker}: {}", message.text);
                }
                rendered += SEPARATOR;
            }
            assert_eq!(rendered, prompt);

            let begun = format!("{prompt}\n\nHuman: Hello?");
            assert_eq!(conversations(&begun).last(), Some(&Dialogue::new(vec![Message::human("Hello?")])));
        }
    }

    #[test]
    fn malformed_conversations_show_in_their_roles() {
        let twice = conversations("\n\nHuman: a\n\nAssistant: b\n\nAssistant: c");
        assert_eq!(twice[0].messages, [Message::human("a"), Message::assistant("b"), Message::assistant("c")]);
        assert!(!twice[0].alternates());
        assert!(conversations("Only a paragraph.\n\n-----").is_empty());
    }
}
