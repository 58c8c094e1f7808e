//! Text to token ids and back.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use firebrick_types::TokenId;
use serde_json::json;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, PostProcessorWrapper};

use crate::Error;

/// The end of a context: of a document, and of a turn. A tokenizer of ours gives it the id 0.
pub const EOC: &str = "<|eoc|>";

/// What ends a context in tokenizers of ours and of other people, in the order in which it is looked for.
const KNOWN_EOC: &[&str] = &[EOC, "<|endoftext|>", "</s>"];

/// All bytes and the end of context.
const LEAST_VOCABULARY: usize = 257;

/// The most that a `tokenizer.json` may hold, in bytes; the largest known take about 40 million.
const MAX_BYTES: u64 = 256 << 20;

/// What stands for a space in tokens of SentencePiece.
const SPACE: char = '\u{2581}';

/// A byte-pair encoding over bytes, or over characters with bytes to fall back on.
///
/// A byte-level one encodes every text, and decoding gives the text back (D-01); one of somebody else's may put the text into a
/// normal form first, lack bytes that UTF-8 hardly uses, or begin with a space. Copies share what they hold.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    /// Takes special tokens that a text holds as text.
    plain: Arc<tokenizers::Tokenizer>,
    /// Recognises them; made when it is first asked for.
    special: Arc<OnceLock<tokenizers::Tokenizer>>,
    spelling: Spelling,
    /// One more than the largest id.
    size: usize,
    /// One more than the largest id of a token that was not added.
    learned: usize,
    beginning: Vec<TokenId>,
    eoc: TokenId,
}

/// Whether two give the same tokens of every text.
impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &tokenizers::Tokenizer, b: &tokenizers::Tokenizer| {
            let text =
                |one: &tokenizers::Tokenizer| one.to_string(false).expect("a tokenizer is made of text and numbers");
            text(a) == text(b)
        };
        (&self.beginning, self.eoc) == (&other.beginning, other.eoc)
            && (Arc::ptr_eq(&self.plain, &other.plain) || same(&self.plain, &other.plain))
    }
}

/// What bytes a token's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each character for a byte.
    Bytes,
    /// Characters for themselves, [`SPACE`] for a space, `<0x0A>` for a byte; a text begins with so many spaces too many.
    Characters { spaces: usize },
}

impl Tokenizer {
    /// A tokenizer trained on these documents, with [`EOC`] as token 0 and the 256 bytes after it; a text begins with [`EOC`], the end of what
    /// came before it, as it does where models are trained.
    ///
    /// The vocabulary has the size asked for or, where the documents do not give as many merges, fewer tokens:
    /// [`vocab_size`](Self::vocab_size) tells. The same documents in any order give the same tokenizer. Spec: D-01,
    ///
    ///
    /// # Errors
    /// If the vocabulary asked for is smaller than 257.
    pub fn train<I, S>(documents: I, vocab_size: usize) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S, IntoIter: Send>,
        S: AsRef<str> + Send,
    {
        if vocab_size < LEAST_VOCABULARY {
            return Err(Error::VocabularyTooSmall { asked: vocab_size, least: LEAST_VOCABULARY });
        }
        let mut trainer = TrainerWrapper::from(
            BpeTrainer::builder()
                .vocab_size(vocab_size)
                .show_progress(false)
                .special_tokens(vec![AddedToken::from(EOC, true)])
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .build(),
        );
        let mut inner = tokenizers::Tokenizer::new(ModelWrapper::BPE(BPE::default()));
        inner.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
        inner.with_decoder(Some(ByteLevel::default()));
        inner.train(&mut trainer, documents.into_iter()).expect("training fails on files only, and there are none");
        let made = Self::new(inner, None).expect("this is a byte-level encoding without a dropout");
        let made = made.expect("the trainer was given the end of context");
        let eoc = made.eoc;
        Ok(made.with_beginning(&[eoc]))
    }

    /// The tokenizer of a `tokenizer.json`, ours or somebody else's byte-pair encoding.
    ///
    /// The end of context is `<|eoc|>`, else `<|endoftext|>`, else `</s>`.
    ///
    /// # Errors
    /// If the file cannot be read, is no such tokenizer, or has none of these tokens.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::parse(&read(path)?, path, None)
    }

    /// The tokenizer of a `tokenizer.json`, which ends a context with this token where it has none of those that
    /// [`open`](Self::open) looks for.
    ///
    /// # Errors
    /// If the file cannot be read, is no such tokenizer, or has no token to end a context with.
    pub fn open_or_ending(path: &Path, eoc: Option<&str>) -> Result<Self, Error> {
        Self::parse(&read(path)?, path, eoc)
    }

    /// The tokenizer of the text of a `tokenizer.json`; the path is what errors name, the token as in
    /// [`open_or_ending`](Self::open_or_ending).
    ///
    /// # Errors
    /// If the text is no such tokenizer, or it has no token to end a context with.
    pub fn parse(json: &str, path: &Path, eoc: Option<&str>) -> Result<Self, Error> {
        let refused = |source: BoxError| Error::Tokenizer { path: path.into(), reason: source.to_string() };
        // The library panics where its parts are not whole JSON, a table of characters is not whole, or a token is shorter than the
        // prefix of tokens that go on.
        let value: serde_json::Value = serde_json::from_str(json).map_err(|error| refused(error.into()))?;
        check_normalizer(&value["normalizer"]).map_err(refused)?;
        check_post_processor(&value["post_processor"]).map_err(refused)?;
        if let Some(prefix) = value["model"].get("continuing_subword_prefix").filter(|prefix| !prefix.is_null())
            && prefix != ""
        {
            return Err(refused(format!("`model.continuing_subword_prefix` is {prefix}, expected null").into()));
        }
        let parsed = json.parse().map_err(|error: BoxError| match error.to_string() {
            reason if reason.contains("out of vocabulary") => format!("`model.merges`: {reason}").into(),
            _ => error,
        });
        let mut inner: tokenizers::Tokenizer = parsed.map_err(refused)?;
        // Lengths are the caller's business: a file must not cut or fill what is encoded.
        inner.with_truncation(None).map_err(refused)?;
        inner.with_padding(None);
        Self::new(inner, eoc)
            .map_err(refused)?
            .ok_or_else(|| Error::NoEndOfContext { path: path.into(), known: KNOWN_EOC })
    }

    /// Nothing, where no token ends a context.
    fn new(mut inner: tokenizers::Tokenizer, eoc: Option<&str>) -> Result<Option<Self>, BoxError> {
        let mut known = KNOWN_EOC.iter().copied().chain(eoc);
        let Some(eoc) = known.find_map(|token| inner.token_to_id(token)) else { return Ok(None) };
        check(&inner)?;
        let spelling = spelling(inner.get_decoder())?;
        // The text of a special token inside data is text: nobody ends a context by writing `<|eoc|>`.
        inner.set_encode_special_tokens(true);
        let size = |ids: &mut dyn Iterator<Item = TokenId>| ids.max().map_or(0, |largest| largest as usize + 1);
        let added = inner.get_added_vocabulary().get_vocab();
        let learned = size(
            &mut inner.get_vocab(false).into_iter().filter_map(|(name, id)| (!added.contains_key(&name)).then_some(id)),
        );
        let size = size(&mut inner.get_vocab(true).into_values());
        let beginning = beginning(&inner)?;
        Ok(Some(Self { plain: inner.into(), special: Arc::default(), spelling, size, learned, beginning, eoc }))
    }

    /// The text of a `tokenizer.json`.
    pub fn to_json(&self) -> String {
        self.plain.to_string(true).expect("a tokenizer is made of text and numbers")
    }

    /// Writes the `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        fs::write(path, self.to_json()).map_err(|source| Error::Write { path: path.into(), source })
    }

    /// The tokens of a text, no special token among them.
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        encode(&self.plain, text)
    }

    /// The tokens of a text, the names of special tokens in it taken as these tokens: for what a chat template wrote, never
    /// for what came from outside.
    pub fn encode_with_special(&self, text: &str) -> Vec<TokenId> {
        let special = self.special.get_or_init(|| {
            let mut inner = (*self.plain).clone();
            inner.set_encode_special_tokens(false);
            inner
        });
        encode(special, text)
    }

    /// The text of tokens, without the special ones; bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Panics
    /// If a token is not in the vocabulary.
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        let size = self.vocab_size();
        assert!(tokens.iter().all(|&token| (token as usize) < size), "tokens lie within the vocabulary of {size}");
        let mut stream = self.stream();
        let mut text = tokens.iter().map(|&token| stream.push(token)).collect::<String>();
        text.push_str(&stream.finish());
        text
    }

    /// Whether every text is given a space to begin with, as SentencePiece does.
    pub(crate) fn begins_with_space(&self) -> bool {
        matches!(self.spelling, Spelling::Characters { spaces } if spaces > 0)
    }

    /// Text that grows with its tokens.
    pub fn stream(&self) -> TextStream {
        let spaces = match self.spelling {
            Spelling::Bytes => 0,
            Spelling::Characters { spaces } => spaces,
        };
        TextStream { tokenizer: self.clone(), spaces, pending: Vec::new() }
    }

    /// The bytes that a token stands for inside a text, those of its name if it is special, none if there is no such token.
    pub fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        let Some(name) = self.plain.id_to_token(token) else { return Vec::new() };
        if self.is_special(token) {
            return name.into_bytes();
        }
        match self.spelling {
            Spelling::Bytes => name.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| name.into_bytes()),
            Spelling::Characters { .. } => match hexadecimal(&name) {
                Some(byte) => vec![byte],
                None => name.replace(SPACE, " ").into_bytes(),
            },
        }
    }

    /// The text of a token by itself; bytes that are no UTF-8 become U+FFFD.
    pub fn token_text(&self, token: TokenId) -> String {
        String::from_utf8_lossy(&self.token_bytes(token)).into_owned()
    }

    /// Whether a token is a special one, which has no text.
    pub fn is_special(&self, token: TokenId) -> bool {
        let name = self.plain.id_to_token(token);
        name.is_some_and(|name| self.plain.get_added_vocabulary().is_special_token(&name))
    }

    /// The token of this name.
    pub fn token(&self, name: &str) -> Option<TokenId> {
        self.plain.token_to_id(name)
    }

    /// How many ids there are, special ones included: one more than the largest.
    pub fn vocab_size(&self) -> usize {
        self.size
    }

    /// How many ids a network needs for text without added tokens: one more than the largest of the others.
    ///
    /// Tokens are often added, to fill batches in for instance, to a network that has no embedding of them.
    pub fn learned_size(&self) -> usize {
        self.learned
    }

    /// The tokens that a text begins with, for instance `<s>`: those that the post-processor puts before it.
    pub fn beginning(&self) -> &[TokenId] {
        &self.beginning
    }

    /// The same tokenizer for texts that begin with these tokens, and with no others.
    ///
    /// # Panics
    /// If there is no such token.
    #[must_use]
    pub fn with_beginning(self, tokens: &[TokenId]) -> Self {
        let name = |&id: &TokenId| self.plain.id_to_token(id).expect("a text begins with tokens of the vocabulary");
        let names = tokens.iter().map(name).collect::<Vec<_>>();
        let special = names.iter().map(|name| json!({"SpecialToken": {"id": name, "type_id": 0}})).collect::<Vec<_>>();
        let of = |part: &str, kind: u32| vec![json!({"Sequence": {"id": part, "type_id": kind}})];
        let described = names
            .iter()
            .zip(tokens)
            .map(|(name, id)| (name.clone(), json!({"id": name, "ids": [id], "tokens": [name]})))
            .collect::<serde_json::Map<_, _>>();
        let (single, pair) = ([special.clone(), of("A", 0)].concat(), [special, of("A", 0), of("B", 1)].concat());
        let processor = (!tokens.is_empty()).then(|| {
            let json = json!({
                "type": "TemplateProcessing",
                "single": single,
                "pair": pair,
                "special_tokens": described,
            });
            serde_json::from_value::<PostProcessorWrapper>(json).expect("the template names its tokens")
        });
        let mut inner = (*self.plain).clone();
        inner.with_post_processor(processor);
        Self { plain: inner.into(), special: Arc::default(), beginning: tokens.to_vec(), ..self }
    }

    /// The end of a context: of a document, and of a turn.
    pub fn eoc(&self) -> TokenId {
        self.eoc
    }
}

/// Text that grows with its tokens, made by [`Tokenizer::stream`].
///
/// What is pushed and finished is, put together, the text that [`Tokenizer::decode`] gives.
#[derive(Clone, Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    /// Spaces that the text begins with and that are none of it.
    spaces: usize,
    /// The beginning of a character.
    pending: Vec<u8>,
}

impl TextStream {
    /// What a token adds: characters that are whole now, or that cannot become so, as U+FFFD. Special tokens, and ids that are none,
    /// add nothing.
    pub fn push(&mut self, token: TokenId) -> String {
        if self.tokenizer.is_special(token) {
            return String::new();
        }
        let bytes = self.tokenizer.token_bytes(token);
        let superfluous = bytes.iter().take(self.spaces).take_while(|&&byte| byte == b' ').count();
        self.spaces = if superfluous == bytes.len() { self.spaces - superfluous } else { 0 };
        self.pending.extend_from_slice(&bytes[superfluous..]);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let whole = error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.pending[..whole]));
                    self.pending.drain(..whole);
                    let Some(broken) = error.error_len() else { return text };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.pending.drain(..broken);
                }
            }
        }
    }

    /// What is left when no token follows: U+FFFD for a character that was begun.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The text of a file of a bounded size.
fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { path: path.into(), limit: MAX_BYTES });
    }
    let not_text = |error: std::string::FromUtf8Error| Error::NotUtf8 {
        path: path.into(),
        byte: error.utf8_error().valid_up_to(),
    };
    String::from_utf8(bytes).map_err(not_text)
}

fn encode(inner: &tokenizers::Tokenizer, text: &str) -> Vec<TokenId> {
    let encoding =
        inner.encode_fast(text, false).expect("only an unknown token that is missing fails, which was checked");
    encoding.get_ids().to_vec()
}

/// What the post-processor of a file puts before a text.
fn beginning(inner: &tokenizers::Tokenizer) -> Result<Vec<TokenId>, BoxError> {
    let encoding = inner.encode_fast("a", true)?;
    let ids = encoding.get_ids().iter().zip(encoding.get_special_tokens_mask());
    Ok(ids.take_while(|&(_, &is_special)| is_special == 1).map(|(&id, _)| id).collect())
}

/// Refuses what could fail or change from one call to the next while a text is encoded.
fn check(inner: &tokenizers::Tokenizer) -> Result<(), BoxError> {
    let ModelWrapper::BPE(model) = inner.get_model() else {
        return Err("`model.type` is not BPE, the only kind that can be read".into());
    };
    if model.dropout.is_some_and(|dropout| dropout > 0.0) {
        return Err("`model.dropout` is not null: the same text would give other tokens each time".into());
    }
    if let Some(unknown) = &model.unk_token
        && inner.token_to_id(unknown).is_none()
    {
        return Err(format!("`model.unk_token` is `{unknown}`, which is not in `model.vocab`").into());
    }
    Ok(())
}

/// Refuses a table of characters, alone or in a sequence.
fn check_normalizer(part: &serde_json::Value) -> Result<(), BoxError> {
    if part["type"] == "Precompiled" || part.get("precompiled_charsmap").is_some() {
        return Err("`normalizer` of type Precompiled cannot be read".into());
    }
    part["normalizers"].as_array().into_iter().flatten().try_for_each(check_normalizer)
}

/// Refuses a template of texts that names a token which it does not describe, or a second text where there is one, alone or in a sequence:
/// the library panics on it.
fn check_post_processor(part: &serde_json::Value) -> Result<(), BoxError> {
    let pieces = [&part["single"], &part["pair"]].into_iter().filter_map(|pieces| pieces.as_array()).flatten();
    let mut named = pieces.filter_map(|piece| piece["SpecialToken"]["id"].as_str());
    if let Some(name) = named.find(|name| part["special_tokens"].get(name).is_none()) {
        return Err(format!("`post_processor` names `{name}`, which is not among its `special_tokens`").into());
    }
    if part["single"].as_array().into_iter().flatten().any(|piece| piece["Sequence"]["id"] == "B") {
        return Err("`post_processor` has a second text, B, in its template of one, `single`".into());
    }
    part["processors"].as_array().into_iter().flatten().try_for_each(check_post_processor)
}

/// How the decoder of a file spells, read from its JSON: the parts do not tell what they hold.
fn spelling(decoder: Option<&DecoderWrapper>) -> Result<Spelling, BoxError> {
    let decoder = serde_json::to_value(decoder)?;
    let parts = match decoder["type"].as_str() {
        Some("Sequence") => decoder["decoders"].as_array().cloned().unwrap_or_default(),
        _ => vec![decoder],
    };
    let (mut bytes, mut characters, mut spaces) = (false, false, 0);
    for part in &parts {
        match part["type"].as_str() {
            Some("ByteLevel") => bytes = true,
            Some("Replace") if part["pattern"]["String"] == SPACE.to_string() && part["content"] == " " => {
                characters = true;
            }
            Some("Metaspace") if part["replacement"] == SPACE.to_string() => {
                characters = true;
                spaces = usize::from(part["prepend_scheme"] != "never");
            }
            Some("Strip") if part["content"] == " " && part["stop"] == 0 => {
                spaces = part["start"].as_u64().and_then(|start| usize::try_from(start).ok()).unwrap_or(0);
            }
            Some("ByteFallback" | "Fuse") => {}
            other => return Err(format!("`decoder` of type {} cannot be read", other.unwrap_or("null")).into()),
        }
    }
    match (bytes, characters) {
        (true, false) => Ok(Spelling::Bytes),
        (false, true) => Ok(Spelling::Characters { spaces }),
        _ => Err("`decoder` is neither ByteLevel nor of SentencePiece's kind".into()),
    }
}

/// The byte that a character of a byte-level token stands for: printable ones of Latin-1 for themselves, the characters from U+0100
/// for the other bytes in their order.
fn byte_of(character: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match u8::try_from(character) {
        Ok(byte) => printable(&byte).then_some(byte),
        Err(_) => {
            let others = (0..=255_u8).filter(|byte| !printable(byte));
            others.zip('\u{100}'..).find_map(|(byte, stand_in)| (stand_in == character).then_some(byte))
        }
    }
}

/// The byte of a token such as `<0x0A>`.
fn hexadecimal(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    let whole = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    whole.then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests;
