//! How conversations become tokens: in the pipeline's dialogue form, or by the template of a checkpoint.

use std::sync::Arc;

use anyhow::{Context, Result};
use firebrick_data::{Tokenizer, dialogue};
use firebrick_preference::Pair;
use firebrick_pretrained::{ChatTemplate, Message};
use firebrick_rl::ResponseFormat;
use firebrick_types::{Dialogue, LabelledComparison, Role, TokenId};
use serde::{Deserialize, Serialize};

/// What a checkpoint says about conversations.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chat {
    /// None, where conversations are dialogues (D-04).
    pub(crate) template: Option<ChatTemplate>,
    /// The token that stands behind an answer.
    pub(crate) end: TokenId,
    /// Tokens that end an answer, that one among them.
    pub(crate) ends: Vec<TokenId>,
    /// The name of the token that ends a context, which the tokenizer's file need not tell.
    pub(crate) eoc: String,
}

/// How conversations become tokens.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    tokenizer: Tokenizer,
    chat: Chat,
}

impl Format {
    /// As a checkpoint says, or dialogues that end with the tokenizer's end of context.
    pub(crate) fn new(tokenizer: Tokenizer, chat: Option<Chat>) -> Self {
        let end = tokenizer.eoc();
        let eoc = tokenizer.token_text(end);
        Self { tokenizer, chat: chat.unwrap_or_else(|| Chat { template: None, end, ends: vec![end], eoc }) }
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What ends a context: of a document, of an answer, and where a preference model reads its score.
    pub(crate) fn end(&self) -> TokenId {
        self.chat.end
    }

    /// A text as a preference model reads it: between two ends, the score on the last.
    pub(crate) fn judged_text(&self, text: &str) -> Vec<TokenId> {
        [&[self.end()], self.tokenizer.encode(text).as_slice(), &[self.end()]].concat()
    }

    /// A conversation as a policy reads it that is to answer.
    pub(crate) fn prompt(&self, prompt: &Dialogue) -> Result<Vec<TokenId>> {
        match &self.chat.template {
            Some(template) => self.rendered(template, prompt, true),
            None => {
                let text = dialogue::render_prompt(prompt);
                Ok([&[self.end()], self.tokenizer.encode(&text).as_slice()].concat())
            }
        }
    }

    /// A prompt after a passage of other conversations.
    pub(crate) fn after(&self, passage: &[TokenId], prompt: &[TokenId]) -> Vec<TokenId> {
        // A dialogue begins with the end of what came before it.
        let first = if self.chat.template.is_some() { 0 } else { 1 };
        [&prompt[..first], passage, &prompt[first..]].concat()
    }

    /// Conversations as text, the way a policy reads them.
    pub(crate) fn passage(&self, text: &str) -> Result<Vec<TokenId>> {
        match (&self.chat.template, dialogue::parse(text)) {
            (Some(template), Ok(dialogue)) => self.rendered(template, &dialogue, false),
            _ => Ok(self.tokenizer.encode(text)),
        }
    }

    /// Where an answer begins that nobody asked for, after a passage.
    pub(crate) fn unasked(&self, passage: &[TokenId]) -> Result<Vec<TokenId>> {
        match &self.chat.template {
            Some(template) => {
                let dialogue = Dialogue::new(vec![firebrick_types::Message::human("")]);
                let [with, without] = [true, false].map(|answers| self.rendered(template, &dialogue, answers));
                let (with, without) = (with?, without?);
                let opening = with.strip_prefix(without.as_slice()).unwrap_or(&with);
                Ok([passage, opening].concat())
            }
            None => Ok([&[self.end()], passage, self.tokenizer.encode(dialogue::ASSISTANT).as_slice()].concat()),
        }
    }

    /// An answer as it stands after a prompt.
    pub(crate) fn answer(&self, answer: &str) -> Vec<TokenId> {
        match &self.chat.template {
            Some(_) => self.tokenizer.encode(answer.trim()),
            None => self.tokenizer.encode(&format!(" {}", answer.trim())),
        }
    }

    /// Both dialogues of a comparison as a preference model reads them; of a tie none.
    pub(crate) fn pair(&self, comparison: &LabelledComparison) -> Result<Option<Pair>> {
        let Some((chosen, rejected)) = comparison.chosen_and_rejected() else { return Ok(None) };
        let [chosen, rejected] =
            [chosen, rejected].map(|answer| [self.answer(answer).as_slice(), &[self.end()]].concat());
        let strength = comparison.strength;
        Ok(Some(Pair { strength, ..Pair::new(self.prompt(comparison.prompt())?, chosen, rejected) }))
    }

    /// How a response ends.
    pub(crate) fn responses(&self) -> ResponseFormat {
        let stop: &[&str] = if self.chat.template.is_some() { &[] } else { &[dialogue::STOP, dialogue::SEPARATOR] };
        let stop = stop.iter().map(|text| self.tokenizer.encode(text)).collect();
        let tokenizer = self.tokenizer.clone();
        ResponseFormat {
            eoc: self.end(),
            ends: self.chat.ends.clone(),
            stop,
            decode: Arc::new(move |tokens| tokenizer.decode(tokens)),
        }
    }

    fn rendered(&self, template: &ChatTemplate, dialogue: &Dialogue, answers: bool) -> Result<Vec<TokenId>> {
        let message = |message: &firebrick_types::Message| {
            let role = match message.role {
                Role::Human => "user",
                Role::Assistant => "assistant",
            };
            Message::new(role, message.text.clone())
        };
        let messages = dialogue.messages.iter().map(message).collect::<Vec<_>>();
        let text = template.render(&messages, answers).context("the chat template of `base.model`")?;
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
        let ends = vec![end, tokenizer.encode("!")[0]];
        Format::new(tokenizer, Some(Chat { template: Some(template), end, ends, eoc: String::new() }))
    }

    fn comparison() -> LabelledComparison {
        let prompt = Dialogue::new(vec![Turn::human("What is it?")]);
        LabelledComparison::of_chosen(prompt, "It is an oak.", "Hi there.", "test")
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
        let judged = format.responses().scored_sequence(&prompt, &sampled);
        assert_eq!(judged, [&prompt[..], &sampled, &[tokenizer.eoc()]].concat());
    }

    #[test]
    fn a_template_renders_prompts_pairs_and_openings() {
        let format = chat();
        let encode = |text: &str| format.tokenizer().encode_with_special(text);
        let prompt = format.prompt(comparison().prompt()).unwrap();
        assert_eq!(prompt, encode("[user]What is it?<|eoc|>[assistant]"));
        let pair = format.pair(&comparison()).unwrap().unwrap();
        assert_eq!(pair.prompt, prompt);
        assert_eq!(pair.chosen, [&format.answer("It is an oak.")[..], &[format.end()]].concat());
        // What is judged of a sample is what is learnt from a comparison.
        assert_eq!(
            format.responses().scored_sequence(&prompt, &format.answer("It is an oak.")),
            pair.sequences(100)[0]
        );
        assert_eq!(format.unasked(&[7]).unwrap(), [&[7][..], &encode("[assistant]")].concat());
        assert_eq!(format.passage("\n\nHuman: Hi").unwrap(), encode("[user]Hi<|eoc|>"));
        assert_eq!(format.after(&[7], &[8, 9]), [7, 8, 9]);
        assert_eq!(Format::new(tokenizer(), None).after(&[7], &[8, 9]), [8, 7, 9]);
    }

    /// A prompt and its response are the tokens of the whole dialogue, cut where the response begins.
    #[test]
    fn a_dialogue_is_its_prompt_and_its_response() {
        let format = Format::new(tokenizer(), None);
        let pair = format.pair(&comparison()).unwrap().unwrap();
        let whole = comparison().prompt().with(Turn::assistant("It is an oak."));
        assert_eq!(pair.sequences(100)[0], format.judged_text(&dialogue::render(&whole)));
    }

    #[test]
    fn a_response_ends_with_any_of_the_tokens_and_is_judged_with_one() {
        let format = chat();
        let responses = format.responses();
        let answer = format.answer("It is an oak.");
        let judged = [&[7], &answer[..], &[format.end()]].concat();
        assert_eq!(responses.stop(9).tokens.len(), 2);
        for end in responses.ends.iter().map(|&end| vec![end]).chain([vec![]]) {
            let response = [&answer[..], &end].concat();
            assert_eq!(responses.text(&response).trim(), "It is an oak.", "{end:?}");
            assert_eq!(responses.scored_sequence(&[7], &response), judged, "{end:?}");
        }
    }

    #[test]
    fn a_special_token_in_what_people_write_is_text_in_an_answer() {
        let format = chat();
        assert!(!format.answer("<|eoc|>").contains(&format.end()));
    }
}
