//! The text form of a dialogue: `\n\nHuman: …\n\nAssistant: …` (D-04, A-04, B-06).

use firebrick_types::{Dialogue, Message, Role};

use crate::Error;

/// What comes before a turn of the person (A-04).
pub const HUMAN: &str = "\n\nHuman:";

/// What comes before a turn of the assistant (A-04).
pub const ASSISTANT: &str = "\n\nAssistant:";

/// The text at which generation stops: the model has begun to speak for the person (A-04).
pub const STOP: &str = HUMAN;

/// What stands between two conversations of one text, for instance in the prompt of A-05. The next conversation
/// follows it with its own [`HUMAN`] marker.
pub const SEPARATOR: &str = "\n\n-----";

/// The text of a dialogue, each turn as its marker, a space, and what is said (D-04); what the system says stands before the first turn as
/// it is.
///
/// [`parse`] gives the dialogue back where no turn holds a marker or surrounding white space. A turn that holds a
/// marker reads as more than one turn, as it would to a model.
///
/// # Panics
/// If the system speaks elsewhere than at the beginning, or a tool does: this form has no place for them. A dialogue that
/// [alternates](Dialogue::alternates) has neither.
pub fn render(dialogue: &Dialogue) -> String {
    let mut text = String::new();
    for (index, Message { role, text: said }) in dialogue.messages.iter().enumerate() {
        match marker(*role) {
            Some(marker) => text.extend([marker, " ", said]),
            None if *role == Role::System && index == 0 => text.push_str(said),
            None => panic!("message {index} of a dialogue is neither the person's nor the assistant's"),
        }
    }
    text
}

/// The text a model continues: the dialogue and the assistant's marker, without a space after it (D-04).
///
/// An answer follows as `" {answer}"`, so that prompt and answer together are the [`render`]ed dialogue.
///
/// # Panics
/// If the dialogue does not end with the person's turn.
pub fn render_prompt(dialogue: &Dialogue) -> String {
    assert!(dialogue.awaits_assistant(), "a prompt ends with the person's turn");
    render(dialogue) + ASSISTANT
}

/// The dialogue of a text (D-04).
///
/// The turns may be empty and in any order: [`Dialogue::alternates`] tells.
///
/// # Errors
/// If the text does not begin with [`HUMAN`].
pub fn parse(text: &str) -> Result<Dialogue, Error> {
    if !text.starts_with(HUMAN) {
        return Err(Error::NoHumanMarker { found: text.chars().take(40).collect() });
    }
    let mut messages = Vec::new();
    let mut rest = text;
    while let Some((role, after)) = [(Role::Human, HUMAN), (Role::Assistant, ASSISTANT)]
        .into_iter()
        .find_map(|(role, marker)| Some((role, rest.strip_prefix(marker)?)))
    {
        rest = after;
        let end = [HUMAN, ASSISTANT].into_iter().filter_map(|marker| rest.find(marker)).min().unwrap_or(rest.len());
        messages.push(Message { role, text: rest[..end].trim().to_owned() });
        rest = &rest[end..];
    }
    Ok(Dialogue::new(messages))
}

fn marker(role: Role) -> Option<&'static str> {
    match role {
        Role::Human => Some(HUMAN),
        Role::Assistant => Some(ASSISTANT),
        Role::System | Role::Tool => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dialogue_has_the_text_of_the_released_data() {
        let dialogue = Dialogue::new(vec![Message::human("Hi"), Message::assistant("Hello."), Message::human("Bye")]);
        assert_eq!(render(&dialogue), "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye");
        assert_eq!(render_prompt(&dialogue), "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye\n\nAssistant:");
    }

    #[test]
    fn what_the_system_says_stands_before_the_first_turn() {
        let dialogue = Dialogue::new(vec![Message::system("Be brief."), Message::human("Hi")]);
        assert_eq!(render_prompt(&dialogue), "Be brief.\n\nHuman: Hi\n\nAssistant:");
    }

    #[test]
    #[should_panic(expected = "message 1 of a dialogue is neither the person's nor the assistant's")]
    fn what_a_tool_says_has_no_place() {
        render(&Dialogue::new(vec![Message::human("Hi"), Message { role: Role::Tool, text: "4".to_owned() }]));
    }

    #[test]
    fn prompt_and_answer_are_the_whole_dialogue() {
        let prompt = Dialogue::new(vec![Message::human("Hi")]);
        assert_eq!(render_prompt(&prompt) + " Hello.", render(&prompt.with(Message::assistant("Hello."))));
    }

    #[test]
    #[should_panic(expected = "a prompt ends with the person's turn")]
    fn a_prompt_awaits_the_assistant() {
        render_prompt(&Dialogue::new(vec![Message::human("Hi"), Message::assistant("Hello.")]));
    }

    #[test]
    fn broken_role_order_and_empty_turns_are_kept() {
        let dialogue = parse("\n\nHuman: a\n\nHuman:  b \n\nAssistant:").unwrap();
        assert_eq!(dialogue.messages, [Message::human("a"), Message::human("b"), Message::assistant("")]);
    }

    #[test]
    fn a_marker_needs_its_empty_line() {
        let dialogue = parse("\n\nHuman: I said Human: twice\nAssistant: no").unwrap();
        assert_eq!(dialogue.messages, [Message::human("I said Human: twice\nAssistant: no")]);
    }

    #[test]
    fn a_text_without_the_marker_is_an_error() {
        let message = parse("Human: Hi").unwrap_err().to_string();
        assert_eq!(
            message,
            r#"a dialogue begins with "\n\nHuman:", found "Human: Hi"; put the marker before its first turn"#
        );
    }

    fn turn() -> impl Strategy<Value = Message> {
        // Words, single line breaks and paragraphs; never a marker, never white space at the ends.
        let text = "([a-zA-Z:é-]{1,6}([ \n]{1,2}[a-zé-]{1,6}){0,4})?";
        (any::<bool>(), text)
            .prop_map(|(human, text)| if human { Message::human(text) } else { Message::assistant(text) })
    }

    proptest! {
        #[test]
        fn parse_undoes_render(rest in proptest::collection::vec(turn(), 0..6)) {
            let mut messages = vec![Message::human("first")];
            messages.extend(rest);
            let dialogue = Dialogue::new(messages);
            prop_assert_eq!(parse(&render(&dialogue)).unwrap(), dialogue);
        }

        #[test]
        fn parse_takes_any_text(text in "(\n\nHuman:|\n\nAssistant:| |\n|a|é){0,12}") {
            if let Ok(dialogue) = parse(&text) {
                // What was parsed is a fixed point.
                prop_assert_eq!(parse(&render(&dialogue)).unwrap(), dialogue);
            }
        }
    }
}
