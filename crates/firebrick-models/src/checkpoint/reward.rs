//! A reward model as a folder that `transformers` reads.

use std::collections::BTreeSet;
use std::path::Path;

use firebrick_text::Renderer;
use firebrick_types::{Dialogue, Message, TokenId};
use serde_json::{Value, json};

use super::Text;
use super::save::{Ids, make, pretty, tokenizer_settings, write};
use crate::files::hugging_face;
use crate::files::hugging_face::text::{SETTINGS, TEMPLATE, TOKENIZER, scoring_template};
use crate::{DecoderConfig, Error, ScoredDecoder};

/// What a token for padding is called that is made here.
const PADDING: &str = "<|pad|>";

/// Writes a reward model, and what comes with it where there is something, into a folder that is made, or empty, as a class for sequence
/// classification of `transformers` with one label, for instance `LlamaForSequenceClassification`.
///
/// The chat template of the folder ends with the token at which the score is read, so that the tokens of `apply_chat_template` are those of
/// [`Renderer::comparison`]: the conversation up to its last answer as a prompt, that answer, and [`Renderer::end`]. [`Checkpoint`] reads the
/// template within.
///
/// `transformers` reads the score at the last token that is not `pad_token_id`, wherever a batch is padded, so this may not be the token at
/// which the score is read, and should stand in no conversation. It is the tokenizer's own `pad_token` where that is so; else a special token
/// that the template does not write, one called after padding or the end of a text before others; else a token that is added where the
/// network has more tokens than the tokenizer; else the token of a byte that UTF-8 never has, which the folder's tokenizer calls
/// `<|pad|>`. Batches are padded on the right, as learned positions need it. Without a tokenizer there is none, and `transformers` takes one
/// sequence at a time.
///
/// These classes have no output over tokens, so that of a model is not written, and their heads have no bias: see
/// [`ScoredDecoder::without_bias`].
///
/// [`Checkpoint`]: super::Checkpoint
///
/// # Errors
/// If the head has a bias that is not 0, the folder is not empty, a file cannot be written, no architecture of `transformers` has this shape,
/// no token is left to pad with, or the token at which the score is read is not recognised in a text.
pub fn save_reward_model(
    model: &ScoredDecoder,
    config: &DecoderConfig,
    text: Option<&Text>,
    dir: &Path,
) -> Result<(), Error> {
    let padded = text.map(|text| Padded::of(&text.renderer, config.vocab, dir)).transpose()?;
    let (mut described, checkpoint) = hugging_face::classifier(model, config)?;
    if let (Some(text), Some(padded)) = (text, &padded) {
        let Ids { bos, eos, .. } = Ids::of(&text.renderer, config.vocab);
        for (key, value) in [("bos_token_id", json!(bos)), ("eos_token_id", eos), ("pad_token_id", json!(padded.id))] {
            described[key] = value;
        }
    }
    make(dir)?;
    hugging_face::write(dir, &described, &checkpoint)?;
    let (Some(Text { renderer, .. }), Some(Padded { tokenizer, name, .. })) = (text, padded) else { return Ok(()) };
    let mut settings = tokenizer_settings(renderer, config);
    settings.insert("pad_token".to_owned(), name.into());
    settings.insert("padding_side".to_owned(), "right".into());
    for (name, text) in
        [(TOKENIZER, pretty(&tokenizer)), (SETTINGS, pretty(&settings.into())), (TEMPLATE, scoring_template(renderer))]
    {
        write(dir, name, &text)?;
    }
    Ok(())
}

/// A tokenizer that has a token to pad with.
struct Padded {
    /// Its `tokenizer.json`.
    tokenizer: Value,
    id: TokenId,
    name: String,
}

impl Padded {
    fn of(renderer: &Renderer, vocab: usize, dir: &Path) -> Result<Self, Error> {
        let refused = |reason: String| Error::Tokenizer { path: dir.join(TOKENIZER), reason };
        let (tokenizer, template) = (renderer.tokenizer(), renderer.template());
        let mut json: Value = serde_json::from_str(&tokenizer.to_json()).expect("a tokenizer is written as JSON");
        let added = json["added_tokens"].as_array().into_iter().flatten().filter_map(|token| {
            let id = TokenId::try_from(token["id"].as_u64()?).ok()?;
            Some((id, token["content"].as_str()?.to_owned(), token["special"] == true))
        });
        let added = added.collect::<Vec<_>>();
        let end = renderer.end();
        if !added.iter().any(|&(id, ..)| id == end) {
            return Err(refused(format!(
                "the score is read at {:?} ({end}), which is not among the `added_tokens`, so that other programs do not \
                 recognise it in a text; add it there",
                tokenizer.token_text(end)
            )));
        }
        let turns = [Message::human("Hi"), Message::assistant("Hello"), Message::human("Bye")];
        let mut used = BTreeSet::from([end]);
        used.extend(renderer.start());
        used.extend(renderer.prompt(&Dialogue::new(turns.to_vec()))?);
        let named = |key: &str| template.tokens().get(key);
        let free = added.into_iter().filter(|(id, name, special)| {
            let unknown = named("unk_token") == Some(name);
            let written = used.contains(id) || template.source().contains(name.as_str());
            *special && (*id as usize) < vocab && !written && !unknown
        });
        let fitness = |(id, name, _): &(TokenId, String, bool)| match () {
            () if named("pad_token") == Some(name) => (0, *id),
            () if name.to_lowercase().contains("pad") => (1, *id),
            () if *id == tokenizer.eoc() => (2, *id),
            () => (3, *id),
        };
        if let Some((id, name, _)) = free.min_by_key(fitness) {
            return Ok(Self { tokenizer: json, id, name });
        }
        let id = if tokenizer.vocab_size() < vocab {
            tokenizer.vocab_size() as TokenId
        } else {
            unwritten_byte(&mut json["model"]).ok_or_else(|| {
                refused(format!(
                    "each of the {vocab} tokens may stand in a text, so that none is left to pad batches with; give the \
                     tokenizer a `pad_token` and the network an embedding of it"
                ))
            })?
        };
        let token = json!({"id": id, "content": PADDING, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true});
        json["added_tokens"].as_array_mut().expect("the end of a text is one of them").push(token);
        Ok(Self { tokenizer: json, id, name: PADDING.to_owned() })
    }
}

/// Gives the token of a byte that UTF-8 never has, and that no other is made of, the name of one to pad with.
fn unwritten_byte(model: &mut Value) -> Option<TokenId> {
    // Encodings of characters write bytes as hexadecimal digits, those of bytes as the characters of Latin-1.
    let hexadecimal = model["byte_fallback"] == true;
    let vocabulary = model["vocab"].as_object_mut()?;
    let names = (0xf5..=0xff_u8).rev().chain([0xc1, 0xc0]).map(|byte| match hexadecimal {
        true => format!("<0x{byte:02X}>"),
        false => char::from(byte).to_string(),
    });
    let free = names.into_iter().find(|name| {
        vocabulary.contains_key(name) && !vocabulary.keys().any(|other| other != name && other.contains(name))
    })?;
    if vocabulary.contains_key(PADDING) {
        return None;
    }
    let id = vocabulary.remove(&free)?;
    vocabulary.insert(PADDING.to_owned(), id.clone());
    TokenId::try_from(id.as_u64()?).ok()
}
