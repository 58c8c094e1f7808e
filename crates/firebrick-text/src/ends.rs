//! Which tokens end a turn.

use std::fmt;

use firebrick_types::{Message, TokenId};

use crate::{ChatTemplate, Tokenizer};

/// Control tokens that end turns in the models of some family, by their names.
const KNOWN: [&str; 12] = [
    // Llama 3.
    "<|eot_id|>",
    "<|eom_id|>",
    // ChatML.
    "<|im_end|>",
    // Gemma.
    "<end_of_turn>",
    // Phi, GPT-OSS.
    "<|end|>",
    "<|return|>",
    "<|call|>",
    // OpenChat, DeepSeek Coder, Command, EXAONE, Idefics.
    "<|end_of_turn|>",
    "<|EOT|>",
    "<|END_OF_TURN_TOKEN|>",
    "[|endofturn|]",
    "<end_of_utterance>",
];

/// Which tokens end a turn, and who says so. There is at least one.
///
/// A checkpoint says it in many places, of which each may name another token: the lists of `generation_config.json` and `config.json`, the
/// `eos_token` of the tokenizer, two keys of a GGUF file, the chat template by what it writes behind an answer, and the vocabulary by the
/// names of its control tokens. A response ends with any of them; the one that [`written`](Self::written) gives stands behind an answer
/// that is learnt from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnEnds(Vec<TurnEnd>);

/// A token that ends a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnEnd {
    /// The token.
    pub token: TokenId,
    /// Who says so; at least one.
    pub sources: Vec<Source>,
}

/// Where it stands that a token ends a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The chat template writes it behind an answer.
    Template,
    /// A key of a file, for instance `eos_token_id` of `generation_config.json`.
    Key(&'static str),
    /// It is a control token with the name that some family of models gives to the end of a turn.
    Name,
    /// It ends a text.
    EndOfText,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template => formatter.write_str("chat template"),
            Self::Key(key) => formatter.write_str(key),
            Self::Name => formatter.write_str("name of a control token"),
            Self::EndOfText => formatter.write_str("end of a text"),
        }
    }
}

impl TurnEnds {
    /// What the template and the vocabulary say beside what keys say, the keys in the order in which they are believed where the template
    /// writes no token.
    pub fn find(keys: &[(TokenId, Source)], tokenizer: &Tokenizer, template: &ChatTemplate) -> Self {
        let mut said = keys.to_vec();
        let named = KNOWN.iter().filter_map(|name| tokenizer.token(name)).filter(|&id| tokenizer.is_special(id));
        said.extend(named.map(|id| (id, Source::Name)));
        said.push((tokenizer.eoc(), Source::EndOfText));
        let is_said = |token: TokenId| said.iter().any(|&(other, _)| other == token);
        let written = written(template, tokenizer, is_said).map(|token| (token, Source::Template));
        let mut ends = Vec::<TurnEnd>::new();
        for (token, source) in written.into_iter().chain(said) {
            match ends.iter_mut().find(|end| end.token == token) {
                Some(end) if end.sources.contains(&source) => {}
                Some(end) => end.sources.push(source),
                None => ends.push(TurnEnd { token, sources: vec![source] }),
            }
        }
        Self(ends)
    }

    /// The token that ends a text, and no other.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        Self(vec![TurnEnd { token: tokenizer.eoc(), sources: vec![Source::EndOfText] }])
    }

    /// These tokens, the one behind an answer first, each because the same key says so.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn listed(tokens: &[TokenId], key: &'static str) -> Self {
        assert!(!tokens.is_empty(), "some token ends a turn");
        Self(tokens.iter().map(|&token| TurnEnd { token, sources: vec![Source::Key(key)] }).collect())
    }

    /// The token behind an answer that is learnt from: that of the template, or else the first that a key names.
    pub fn written(&self) -> TokenId {
        self.0[0].token
    }

    /// The tokens, that of [`written`](Self::written) first.
    pub fn tokens(&self) -> Vec<TokenId> {
        self.0.iter().map(|end| end.token).collect()
    }

    /// The tokens and who names them, in the same order.
    pub fn iter(&self) -> impl Iterator<Item = &TurnEnd> {
        self.0.iter()
    }
}

/// The token that a template writes behind an answer.
fn written(template: &ChatTemplate, tokenizer: &Tokenizer, is_said: impl Fn(TokenId) -> bool) -> Option<TokenId> {
    // Words that no template holds, and without white space at their ends, which templates take off.
    const ANSWERED: &str = "firebrick answers";
    const ASKED_AGAIN: &str = "firebrick goes on";
    let messages = [Message::human("firebrick asks"), Message::assistant(ANSWERED), Message::human(ASKED_AGAIN)];
    let whole = template.render(&messages[..2], false).ok()?;
    let (_, behind) = whole.rsplit_once(ANSWERED)?;
    let of = |text: &str, is_end: &dyn Fn(TokenId) -> bool| {
        tokenizer.encode_with_special(text).into_iter().find(|&token| is_end(token))
    };
    of(behind, &|token| tokenizer.is_special(token) || is_said(token)).or_else(|| {
        // Some end an answer with what begins the next turn.
        let longer = template.render(&messages, false).ok()?;
        let (_, behind) = longer.rsplit_once(ANSWERED)?;
        let (between, _) = behind.split_once(ASKED_AGAIN)?;
        of(between, &is_said)
    })
}
