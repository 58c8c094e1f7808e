//! Which tokens of a row are learnt.

use firebrick_types::{Dialogue, Example, Role, TokenId};
use serde::{Deserialize, Serialize};

use crate::{Error, Renderer};

/// Which tokens of a conversation are learnt. Of a text all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// What the assistant said, each time with what ends it.
    Assistant,
    /// Everything.
    All,
}

/// Tokens with a mark for each: whether it is learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// Whether each of them is learnt.
    pub counted: Vec<bool>,
    /// Earlier turns of the assistant that are not learnt, because the template does not leave them as they were said.
    pub left_out: usize,
}

impl Renderer {
    /// A row as a language model learns it.
    ///
    /// A conversation that ends with the assistant is its [prompt](Self::prompt), the [response](Self::response) and the
    /// [end](Self::end): the tokens that a policy reads, samples and is scored on (T-11). Of earlier turns of the assistant what was said
    /// counts, and a token behind it that ends turns; a turn that the template does not leave as it was said counts not. A text stands
    /// between a beginning, which does not count, and an end, which does.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt).
    pub fn example(&self, example: &Example, counted: Counted) -> Result<Masked, Error> {
        let mut masked = match example {
            Example::Conversation(dialogue) => self.conversation(dialogue)?,
            Example::Text(text) => {
                let start = self.start();
                let tokens = [&start[..], &self.document(text)?, &[self.end()]].concat();
                let counted = (0..tokens.len()).map(|place| place >= start.len()).collect();
                Masked { tokens, counted, left_out: 0 }
            }
        };
        if counted == Counted::All {
            masked.counted.fill(true);
        }
        Ok(masked)
    }

    fn conversation(&self, dialogue: &Dialogue) -> Result<Masked, Error> {
        let messages = &dialogue.messages;
        let (before, response) = match messages.split_last() {
            Some((last, before)) if last.role == Role::Assistant => {
                (before, [self.response(&last.text)?, vec![self.end()]].concat())
            }
            _ => (&messages[..], Vec::new()),
        };
        let prompt = self.prompt(&Dialogue::new(before.to_vec()))?;
        let mut counted = [vec![false; prompt.len()], vec![true; response.len()]].concat();
        let tokens = [prompt, response].concat();
        let ends = self.turn_ends().tokens();
        let mut left_out = 0;
        for (place, message) in before.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant) {
            let opening = self.prompt(&Dialogue::new(before[..place].to_vec()))?;
            let said = [&opening[..], &self.response(&message.text)?].concat();
            if tokens.starts_with(&said) {
                let end = usize::from(tokens.get(said.len()).is_some_and(|token| ends.contains(token)));
                counted[opening.len()..said.len() + end].fill(true);
            } else {
                left_out += 1;
            }
        }
        Ok(Masked { tokens, counted, left_out })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use firebrick_types::Message;

    use super::*;
    use crate::{ChatTemplate, Tokenizer, TurnEnds};

    const TEXT: &str = "\n\nHuman: What is it?\n\nAssistant: It is an oak.\n\nHuman: And that?\n\nAssistant: A pine.";

    fn dialogue() -> Dialogue {
        let turns = ["What is it?", "And that?"].map(Message::human).into_iter();
        let answers = ["It is an oak.", "A pine."].map(Message::assistant);
        Dialogue::new(turns.zip(answers).flat_map(|(asked, said)| [asked, said]).collect())
    }

    fn learnt(renderer: &Renderer, example: &Example) -> String {
        let Masked { tokens, counted, .. } = renderer.example(example, Counted::Assistant).unwrap();
        let token = |(&token, &counted): (&TokenId, &bool)| counted.then(|| renderer.tokenizer().token_text(token));
        tokens.iter().zip(&counted).filter_map(token).collect()
    }

    #[test]
    fn t11_what_is_learnt_is_what_is_sampled_and_scored() {
        let renderer = Renderer::dialogues(Tokenizer::train([TEXT, TEXT], 300).unwrap());
        let whole = dialogue();
        let masked = renderer.example(&Example::Conversation(whole.clone()), Counted::Assistant).unwrap();
        let asked = renderer.prompt(&Dialogue::new(whole.messages[..3].to_vec())).unwrap();
        let said = [renderer.response("A pine.").unwrap(), vec![renderer.end()]].concat();
        assert_eq!(masked.tokens, [asked, said].concat());
        assert_eq!(learnt(&renderer, &Example::Conversation(whole)), " It is an oak. A pine.<|eoc|>");
    }

    #[test]
    fn each_turn_of_the_assistant_counts_with_its_end_and_nothing_else() {
        let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|eoc|>\n{% endfor %}\
                      {% if add_generation_prompt %}[assistant]{% endif %}";
        let template = ChatTemplate::jinja(source, "test", BTreeMap::new()).unwrap();
        let tokenizer = Tokenizer::train([TEXT, TEXT], 300).unwrap();
        let ends = TurnEnds::listed(&[tokenizer.eoc()], "test");
        let renderer = Renderer::new(tokenizer, template, ends);
        let example = Example::Conversation(dialogue());
        assert_eq!(learnt(&renderer, &example), "It is an oak.<|eoc|>A pine.<|eoc|>");
        let all = renderer.example(&example, Counted::All).unwrap();
        assert!(all.counted.iter().all(|&counted| counted));
    }

    #[test]
    fn a_turn_that_the_template_does_not_leave_as_it_was_said_counts_not_and_is_told() {
        // As templates that leave out earlier reasoning do.
        let source = "{% for m in messages %}[{{ m.role }}]{% if loop.last or m.role == 'user' %}{{ m.content }}{% endif %}\
                      <|eoc|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
        let template = ChatTemplate::jinja(source, "test", BTreeMap::new()).unwrap();
        let tokenizer = Tokenizer::train([TEXT, TEXT], 300).unwrap();
        let ends = TurnEnds::listed(&[tokenizer.eoc()], "test");
        let renderer = Renderer::new(tokenizer, template, ends);
        let example = Example::Conversation(dialogue());
        assert_eq!(learnt(&renderer, &example), "A pine.<|eoc|>");
        assert_eq!(renderer.example(&example, Counted::Assistant).unwrap().left_out, 1);
    }

    #[test]
    fn of_a_text_all_counts_but_its_beginning() {
        let renderer = Renderer::dialogues(Tokenizer::train([TEXT, TEXT], 300).unwrap());
        let Masked { tokens, counted, .. } =
            renderer.example(&Example::Text("An oak.".into()), Counted::Assistant).unwrap();
        assert_eq!(tokens.first(), Some(&renderer.end()));
        assert_eq!(counted, [vec![false], vec![true; tokens.len() - 1]].concat());
        assert_eq!(learnt(&renderer, &Example::Text("An oak.".into())), "An oak.<|eoc|>");
    }
}
