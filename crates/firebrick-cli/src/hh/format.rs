//! How conversations become tokens: in the pipeline's dialogue form, or by the template of a checkpoint.

use anyhow::{Context, Result};
use firebrick_data::{Tokenizer, dialogue};
use firebrick_preference::Pair;
use firebrick_pretrained::{ChatTemplate, Message};
use firebrick_rl::ppo::Turns;
use firebrick_types::{Comparison, Dialogue, Role, TokenId};
use serde::{Deserialize, Serialize};

/// What a checkpoint says about conversations.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Chat {
    pub(crate) template: ChatTemplate,
    /// The token that ends an answer.
    pub(crate) end: TokenId,
}

/// How conversations become tokens.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    tokenizer: Tokenizer,
    chat: Option<Chat>,
}

impl Format {
    /// With a template, conversations are rendered by it; without, they are dialogues (D-04).
    pub(crate) fn new(tokenizer: Tokenizer, chat: Option<Chat>) -> Self {
        Self { tokenizer, chat }
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What ends a context: of a document, of an answer, and where a preference model reads its score.
    pub(crate) fn end(&self) -> TokenId {
        self.chat.as_ref().map_or(self.tokenizer.eoc(), |chat| chat.end)
    }

    /// A text as a preference model reads it: between two ends, the score on the last.
    pub(crate) fn judged_text(&self, text: &str) -> Vec<TokenId> {
        [&[self.end()], self.tokenizer.encode(text).as_slice(), &[self.end()]].concat()
    }

    /// A conversation as a policy reads it that is to answer.
    pub(crate) fn prompt(&self, prompt: &Dialogue) -> Result<Vec<TokenId>> {
        match &self.chat {
            Some(chat) => self.rendered(chat, prompt, true),
            None => {
                let text = dialogue::render_prompt(prompt);
                Ok([&[self.end()], self.tokenizer.encode(&text).as_slice()].concat())
            }
        }
    }

    /// A prompt after a passage of other conversations.
    pub(crate) fn after(&self, passage: &[TokenId], prompt: &[TokenId]) -> Vec<TokenId> {
        // A dialogue begins with the end of what came before it.
        let first = if self.chat.is_some() { 0 } else { 1 };
        [&prompt[..first], passage, &prompt[first..]].concat()
    }

    /// Conversations as text, the way a policy reads them.
    pub(crate) fn passage(&self, text: &str) -> Result<Vec<TokenId>> {
        match (&self.chat, dialogue::parse(text)) {
            (Some(chat), Ok(dialogue)) => self.rendered(chat, &dialogue, false),
            _ => Ok(self.tokenizer.encode(text)),
        }
    }

    /// Where an answer begins that nobody asked for, after a passage.
    pub(crate) fn unasked(&self, passage: &[TokenId]) -> Result<Vec<TokenId>> {
        match &self.chat {
            Some(chat) => {
                let dialogue = Dialogue::new(vec![firebrick_types::Message::human("")]);
                let [with, without] = [self.rendered(chat, &dialogue, true)?, self.rendered(chat, &dialogue, false)?];
                let opening = with.strip_prefix(without.as_slice()).unwrap_or(&with);
                Ok([passage, opening].concat())
            }
            None => Ok([&[self.end()], passage, self.tokenizer.encode(dialogue::ASSISTANT).as_slice()].concat()),
        }
    }

    /// An answer as it stands after a prompt.
    pub(crate) fn answer(&self, answer: &str) -> Vec<TokenId> {
        match &self.chat {
            Some(_) => self.tokenizer.encode(answer.trim()),
            None => self.tokenizer.encode(&format!(" {}", answer.trim())),
        }
    }

    /// Both dialogues of a comparison as a preference model reads them.
    pub(crate) fn pair(&self, comparison: &Comparison) -> Result<Pair> {
        let with = |answer: &String| -> Result<Vec<TokenId>> {
            if self.chat.is_some() {
                let prompt = self.prompt(&comparison.prompt)?;
                return Ok([prompt.as_slice(), self.answer(answer).as_slice(), &[self.end()]].concat());
            }
            let whole = comparison.prompt.with(firebrick_types::Message::assistant(answer.clone()));
            Ok(self.judged_text(&dialogue::render(&whole)))
        };
        Ok(Pair { better: with(&comparison.chosen)?, worse: with(&comparison.rejected)? })
    }

    /// How a response ends.
    pub(crate) fn turns(&self) -> Turns {
        let stop: &[&str] = if self.chat.is_some() { &[] } else { &[dialogue::STOP, dialogue::SEPARATOR] };
        Turns { eoc: self.end(), stop: stop.iter().map(|text| self.tokenizer.encode(text)).collect() }
    }

    fn rendered(&self, chat: &Chat, dialogue: &Dialogue, answers: bool) -> Result<Vec<TokenId>> {
        let message = |message: &firebrick_types::Message| {
            let role = match message.role {
                Role::Human => "user",
                Role::Assistant => "assistant",
            };
            Message::new(role, message.text.clone())
        };
        let messages = dialogue.messages.iter().map(message).collect::<Vec<_>>();
        let text = chat.template.render(&messages, answers).context("the chat template of `base.model`")?;
        Ok(self.tokenizer.encode_with_special(&text))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use firebrick_types::Message as Turn;

    use super::*;

    fn tokenizer() -> Tokenizer {
        let text = "Hi there. It is an oak. It is an oak. What is it?";
        Tokenizer::train([text, text], 300).unwrap()
    }

    fn chat() -> Format {
        let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|eoc|>{% endfor %}{% if add_generation_prompt %}\
                      [assistant]{% endif %}";
        let template = ChatTemplate::jinja(source, "test", BTreeMap::new()).unwrap();
        let tokenizer = tokenizer();
        let end = tokenizer.eoc();
        Format::new(tokenizer, Some(Chat { template, end }))
    }

    fn comparison() -> Comparison {
        Comparison {
            prompt: Dialogue::new(vec![Turn::human("What is it?")]),
            chosen: "It is an oak.".to_owned(),
            rejected: "Hi there.".to_owned(),
            tranche: "test".to_owned(),
        }
    }

    #[test]
    fn t11_what_was_sampled_is_what_is_judged() {
        let text = "It is an oak. It is an oak.";
        let format = Format::new(tokenizer(), None);
        let tokenizer = format.tokenizer();
        let prompt = tokenizer.encode("What?");
        // Letter by letter, as a policy may sample it and the tokenizer would not write it.
        let sampled = text.bytes().flat_map(|byte| tokenizer.encode(&char::from(byte).to_string())).collect::<Vec<_>>();
        assert_eq!(tokenizer.decode(&sampled), text);
        assert_ne!(tokenizer.encode(text), sampled);
        let judged = format.turns().judged(&prompt, &sampled);
        assert_eq!(judged, [&prompt[..], &sampled, &[tokenizer.eoc()]].concat());
    }

    #[test]
    fn a_template_renders_prompts_pairs_and_openings() {
        let format = chat();
        let encode = |text: &str| format.tokenizer().encode_with_special(text);
        let prompt = format.prompt(&comparison().prompt).unwrap();
        assert_eq!(prompt, encode("[user]What is it?<|eoc|>[assistant]"));
        let pair = format.pair(&comparison()).unwrap();
        assert_eq!(pair.better, [&prompt[..], &format.answer("It is an oak."), &[format.end()]].concat());
        // What is judged of a sample is what is learnt from a comparison.
        assert_eq!(format.turns().judged(&prompt, &format.answer("It is an oak.")), pair.better);
        assert_eq!(format.unasked(&[7]).unwrap(), [&[7][..], &encode("[assistant]")].concat());
        assert_eq!(format.passage("\n\nHuman: Hi").unwrap(), encode("[user]Hi<|eoc|>"));
        assert_eq!(format.after(&[7], &[8, 9]), [7, 8, 9]);
        assert_eq!(Format::new(tokenizer(), None).after(&[7], &[8, 9]), [8, 7, 9]);
    }

    #[test]
    fn a_special_token_in_what_people_write_is_text_in_an_answer() {
        let format = chat();
        assert!(!format.answer("<|eoc|>").contains(&format.end()));
    }
}
