//! Which tokens end a turn.

use std::fmt;

use firebrick_data::Tokenizer;
use firebrick_types::TokenId;
use serde_json::Value;

use crate::files::Settings;
use crate::{ChatTemplate, Error, Message};

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
    pub(crate) fn find(keys: &[(TokenId, Source)], tokenizer: &Tokenizer, template: &ChatTemplate) -> Self {
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

    /// One token that the end of a text is too.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        Self(vec![TurnEnd { token: tokenizer.eoc(), sources: vec![Source::EndOfText] }])
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

/// What the keys of a folder say, in the order in which they are believed.
///
/// # Errors
/// If something else than ids of the tokenizer stands there.
pub(crate) fn keys_of_folder(
    generation: &Settings<'_>,
    config: &Settings<'_>,
    eos: Option<&str>,
    tokenizer: &Tokenizer,
) -> Result<Vec<(TokenId, Source)>, Error> {
    let named = eos.and_then(|name| tokenizer.token(name));
    let mut keys = named.map(|id| (id, Source::Key("eos_token"))).into_iter().collect::<Vec<_>>();
    let listed = ids(generation, tokenizer)?;
    keys.extend(listed.iter().map(|&id| (id, Source::Key("eos_token_id of generation_config.json"))));
    // Numbers of `config.json` are often left over from another model, and nobody reads them where the other file is.
    let others = if listed.is_empty() { ids(config, tokenizer)? } else { ids(config, tokenizer).unwrap_or_default() };
    keys.extend(others.into_iter().map(|id| (id, Source::Key("eos_token_id of config.json"))));
    Ok(keys)
}

/// The tokens of `eos_token_id`, one or several.
fn ids(settings: &Settings<'_>, tokenizer: &Tokenizer) -> Result<Vec<TokenId>, Error> {
    const KEY: &str = "eos_token_id";
    let size = tokenizer.vocab_size();
    let wrong = || settings.wrong(KEY, format!("the id of a token, below {size}, or a list of such ids"));
    let id = |value: &Value| {
        let id = value.as_u64().filter(|&id| id < size as u64).ok_or_else(wrong)?;
        Ok(id as TokenId)
    };
    match settings.get(KEY) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(id).collect(),
        Some(value) => Ok(vec![id(value)?]),
    }
}

/// The token that a template writes behind an answer.
fn written(template: &ChatTemplate, tokenizer: &Tokenizer, is_said: impl Fn(TokenId) -> bool) -> Option<TokenId> {
    // Words that no template holds, and without white space at their ends, which templates take off.
    const ANSWERED: &str = "firebrick answers";
    const ASKED_AGAIN: &str = "firebrick goes on";
    let messages = [("user", "firebrick asks"), ("assistant", ANSWERED), ("user", ASKED_AGAIN)];
    let messages = messages.map(|(role, said)| Message::new(role, said));
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
