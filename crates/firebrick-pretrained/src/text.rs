//! What a checkpoint holds beside its weights.

use firebrick_data::Tokenizer;
use firebrick_types::TokenId;

use crate::{ChatTemplate, Error, GenerationConfig, Message, TurnEnds};

/// What a checkpoint holds beside its weights.
#[derive(Clone, Debug)]
pub struct Text {
    /// Text to token ids and back.
    pub tokenizer: Tokenizer,
    /// A conversation to text.
    pub template: ChatTemplate,
    /// Which tokens end an answer.
    pub turn_ends: TurnEnds,
    /// What the checkpoint says about generation.
    pub generation: GenerationConfig,
    /// Tokens of the network: it has no embedding of an id that is not below.
    pub vocab: usize,
}

impl Text {
    /// The tokens of a text, with what the tokenizer begins texts with before it, unless it begins so itself; names of special tokens in
    /// it count as these.
    ///
    /// # Errors
    /// If a token was added to the tokenizer, and not to the network.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        let tokens = self.rendered(text)?;
        let beginning = self.tokenizer.beginning();
        Ok(if tokens.starts_with(beginning) { tokens } else { [beginning, &tokens].concat() })
    }

    /// The tokens of a text that a template wrote, which writes the beginning itself.
    fn rendered(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        let tokens = self.tokenizer.encode_with_special(text);
        match tokens.iter().find(|&&id| id as usize >= self.vocab) {
            None => Ok(tokens),
            Some(&id) => Err(Error::NoEmbedding { token: self.tokenizer.token_text(id), id, vocab: self.vocab }),
        }
    }

    /// The tokens of a conversation, with the beginning of an answer.
    ///
    /// # Errors
    /// If the template refuses the conversation or fails, or a token was added to the tokenizer, and not to the network.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<TokenId>, Error> {
        let text = self.template.render(messages, true)?;
        if self.template.is_dialogue() { self.encode(&text) } else { self.rendered(&text) }
    }
}
