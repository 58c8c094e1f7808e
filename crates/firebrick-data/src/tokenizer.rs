//! Text to token ids and back.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use firebrick_types::TokenId;
use serde_json::json;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, PostProcessorWrapper};

use crate::file::write_atomically;
use crate::{Error, Place};

/// The end of a context: of a document, and of a turn (A-34). A tokenizer of ours gives it the id 0.
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

/// What bytes a token's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each character for a byte.
    Bytes,
    /// Characters for themselves, [`SPACE`] for a space, `<0x0A>` for a byte; a text begins with so many spaces too many.
    Characters { spaces: usize },
}

impl Tokenizer {
    /// A tokenizer trained on these documents, with [`EOC`] as token 0 and the 256 bytes after it.
    ///
    /// The vocabulary has the size asked for or, where the documents do not give as many merges, fewer tokens:
    /// [`vocab_size`](Self::vocab_size) tells. The same documents in any order give the same tokenizer. Spec: D-01,
    /// A-34.
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
        Ok(made.expect("the trainer was given the end of context"))
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
        let refused = |source| Error::Tokenizer { path: path.into(), source };
        // The library panics where its parts are not whole JSON, a table of characters is not whole, or a token is shorter than the
        // prefix of tokens that go on.
        let value: serde_json::Value = serde_json::from_str(json).map_err(|error| refused(error.into()))?;
        check_normalizer(&value["normalizer"]).map_err(refused)?;
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

    /// Writes the `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = self.plain.to_string(true).expect("a tokenizer is made of text and numbers");
        write_atomically(path, |file| {
            file.write_all(text.as_bytes()).map_err(|source| Error::Write { path: path.into(), source })
        })
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
            .map(|(name, id)| (name.clone(), json!({"id": name, "ids": [id], "tokens": [name]})));
        let processor = (!tokens.is_empty()).then(|| {
            let single = [special.clone(), of("A", 0)].concat();
            let pair = [special.clone(), of("A", 0), of("B", 1)].concat();
            let json = json!({
                "type": "TemplateProcessing",
                "single": single,
                "pair": pair,
                "special_tokens": described.collect::<serde_json::Map<_, _>>(),
            });
            serde_json::from_value::<PostProcessorWrapper>(json).expect("the template names its tokens")
        });
        let mut inner = (*self.plain).clone();
        inner.with_post_processor(processor);
        Self { plain: inner.into(), special: Arc::default(), beginning: tokens.to_vec(), ..self }
    }

    /// The end of a context: of a document, and of a turn (A-34).
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
        return Err(Error::FileTooLarge { path: path.into(), limit: MAX_BYTES });
    }
    let place = Place { path: path.into(), line: None };
    String::from_utf8(bytes).map_err(|error| Error::NotUtf8 { place, byte: error.utf8_error().valid_up_to() })
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::file::tests::{file_of, real_data};

    const TEXT: &str = "the cat sat on the mat; the other cat, the thin one, sat there. The end — thé.";

    fn json(tokenizer: &Tokenizer) -> String {
        tokenizer.plain.to_string(true).unwrap()
    }

    #[test]
    fn the_first_token_is_the_end_of_context_then_come_the_bytes() {
        let tokenizer = Tokenizer::train([TEXT], 257).unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.eoc()), (257, 0));
        // One token a byte: `é` is two bytes.
        assert_eq!(tokenizer.encode("aé").len(), 3);
        let all: Vec<TokenId> = tokenizer.encode("ab");
        assert!(all.iter().all(|token| (1..257).contains(token)), "{all:?}");
    }

    #[test]
    fn the_vocabulary_is_the_size_asked_for_or_what_the_text_gives() {
        assert_eq!(Tokenizer::train([TEXT], 270).unwrap().vocab_size(), 270);
        let most = Tokenizer::train([TEXT], 100_000).unwrap().vocab_size();
        assert!((271..400).contains(&most), "{most}");
        assert_eq!(Tokenizer::train::<_, &str>([], 1000).unwrap().vocab_size(), 257);
        assert_eq!(
            Tokenizer::train([TEXT], 256).unwrap_err().to_string(),
            "a vocabulary of 256 tokens is too small: 256 bytes and the end of context take 257"
        );
    }

    #[test]
    fn the_first_merge_is_the_commonest_pair() {
        // "aab" three times: `a a` and `a b` both occur three times, and the pair of the lower tokens goes first.
        let tokenizer = Tokenizer::train(["aab", "aab", "aab"], 258).unwrap();
        assert_eq!(tokenizer.encode("aab").len(), 2);
        assert_eq!(tokenizer.encode("aab")[0], 257);
        assert_eq!(tokenizer.decode(&[257]), "aa");
    }

    #[test]
    fn training_is_deterministic() {
        let documents: Vec<String> = (0..200).map(|index| format!("{TEXT} {}", index * 7919)).collect();
        let first = json(&Tokenizer::train(&documents, 600).unwrap());
        assert_eq!(first, json(&Tokenizer::train(&documents, 600).unwrap()));
        assert_eq!(first, json(&Tokenizer::train(documents.iter().rev(), 600).unwrap()), "the order does not matter");
    }

    #[test]
    fn t42_the_end_of_context_written_in_data_is_text() {
        let tokenizer = Tokenizer::train([TEXT, "a <|eoc|> b <|eoc|><|eoc|>"], 1000).unwrap();
        let text = "I write <|eoc|> here<|eoc|>";
        assert!(!tokenizer.encode(text).contains(&tokenizer.eoc()));
        assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
        // The token itself has no text, and a saved tokenizer behaves the same.
        let with_end = [tokenizer.encode("a"), vec![tokenizer.eoc()]].concat();
        assert_eq!(tokenizer.decode(&with_end), "a");
        let (_dir, path) = file_of("tokenizer.json", b"");
        tokenizer.save(&path).unwrap();
        let again = Tokenizer::open(&path).unwrap();
        assert_eq!((again.encode(text), again.eoc()), (tokenizer.encode(text), 0));
        assert_eq!(json(&again), json(&tokenizer));
    }

    #[test]
    fn special_tokens_are_recognised_where_a_template_wrote_them() {
        let tokenizer = Tokenizer::train([TEXT], 300).unwrap();
        let text = "a<|eoc|> the cat";
        let expected = [tokenizer.encode("a"), vec![0], tokenizer.encode(" the cat")].concat();
        assert_eq!(tokenizer.encode_with_special(text), expected);
        assert!(!tokenizer.encode(text).contains(&0), "asking for special tokens changes no other encoding");
        assert_eq!((tokenizer.token_text(0), tokenizer.is_special(0)), (EOC.to_owned(), true));
        assert_eq!(tokenizer.token_bytes(9_999), b"");
    }

    #[test]
    fn a_text_begins_as_the_post_processor_says() {
        let plain = Tokenizer::train([TEXT], 300).unwrap();
        assert!(plain.beginning().is_empty());
        let the = plain.token("the").expect("it is merged");
        for beginning in [&[0][..], &[0, the], &[]] {
            let tokenizer = plain.clone().with_beginning(&[the]).with_beginning(beginning);
            let again = Tokenizer::parse(&json(&tokenizer), Path::new("x"), None).unwrap();
            for tokenizer in [&tokenizer, &again] {
                assert_eq!(tokenizer.beginning(), beginning);
                assert_eq!(tokenizer.encode(TEXT), plain.encode(TEXT), "it is told, and not added");
            }
            // As the library puts it before a text.
            let whole = again.plain.encode_fast(TEXT, true).unwrap();
            assert_eq!(whole.get_ids(), [beginning, &plain.encode(TEXT)].concat());
        }
        // What stands behind a text is none of its beginning.
        let mut behind: serde_json::Value = serde_json::from_str(&json(&plain.clone().with_beginning(&[0]))).unwrap();
        behind["post_processor"]["single"].as_array_mut().unwrap().reverse();
        assert!(Tokenizer::parse(&behind.to_string(), Path::new("x"), None).unwrap().beginning().is_empty());
    }

    #[test]
    fn added_tokens_are_counted_apart() {
        let tokenizer = Tokenizer::train([TEXT], 300).unwrap();
        let (learned, size) = (tokenizer.learned_size(), tokenizer.vocab_size());
        assert_eq!(learned, size);
        let pad = format!(
            r#""added_tokens": [{{"id": {size}, "content": "[PAD]", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}}, "#
        );
        let padded = json(&tokenizer).replacen(r#""added_tokens": ["#, &pad, 1);
        let padded = Tokenizer::parse(&padded, Path::new("x"), None).unwrap();
        assert_eq!((padded.learned_size(), padded.vocab_size()), (learned, size + 1));
        assert_eq!(padded.encode_with_special("a[PAD]").last(), Some(&(size as TokenId)));
    }

    /// A tokenizer as SentencePiece makes them: characters, with bytes to fall back on.
    fn characters() -> Tokenizer {
        let mut vocab =
            serde_json::json!({"<unk>": 0, "</s>": 1, "\u{2581}": 2, "a": 3, "b": 4, "\u{2581}a": 5, "<0x+A>": 6});
        for byte in 0..=255_u64 {
            vocab[format!("<0x{byte:02X}>")] = (7 + byte).into();
        }
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [{"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u{2581}"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "fuse_unk": true, "vocab": vocab,
                "merges": [["\u{2581}", "a"]]},
        });
        Tokenizer::parse(&json.to_string(), Path::new("tokenizer.json"), None).unwrap()
    }

    #[test]
    fn characters_with_bytes_to_fall_back_on_are_encoded_and_decoded() {
        let tokenizer = characters();
        // `é` is the bytes C3 A9: 7 + 195, 7 + 169.
        assert_eq!(tokenizer.encode("a bé"), [5, 2, 4, 202, 176]);
        for text in ["a bé", " a", "  a  ", "", "a\n\u{1f642}</s>"] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
        }
        assert_eq!(tokenizer.decode(&[1, 5, 1, 6]), "a<0x+A>");
        let mut stream = tokenizer.stream();
        let pushed = [5, 202, 176, 202, 3].map(|token| stream.push(token));
        assert_eq!(pushed, ["a", "", "é", "", "\u{fffd}a"]);
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_what_is_decoded(
            tokens in proptest::collection::vec(0_u32..270, 0..40),
            characters_too in proptest::collection::vec(0_u32..263, 0..40),
        ) {
            let bytes = Tokenizer::train([TEXT], 270).unwrap();
            for (tokenizer, tokens) in [(&bytes, &tokens), (&characters(), &characters_too)] {
                let mut stream = tokenizer.stream();
                let mut text = tokens.iter().map(|&token| stream.push(token)).collect::<String>();
                text += &stream.finish();
                prop_assert_eq!(&text, &tokenizer.decode(tokens));
            }
            // The library decodes a whole list at once; bytes to fall back on it replaces by other rules where they are no UTF-8.
            prop_assert_eq!(bytes.decode(&tokens), bytes.plain.decode(&tokens, true).unwrap());
        }

        #[test]
        fn a_character_appears_whole(text in "[a é漢\u{1f469}\u{200d}\u{1f680}]{0,20}") {
            for tokenizer in [Tokenizer::train([TEXT], 260).unwrap(), characters()] {
                let mut stream = tokenizer.stream();
                let pushed = tokenizer.encode(&text).iter().map(|&token| stream.push(token)).collect::<String>();
                prop_assert_eq!((pushed, stream.finish()), (text.clone(), String::new()));
            }
        }
    }

    #[test]
    fn text_made_to_be_slow_is_encoded() {
        let tokenizer = Tokenizer::train([TEXT], 300).unwrap();
        for text in [" ".repeat(200_000) + "x", "the".repeat(100_000), "'".repeat(100_000)] {
            assert!(tokenizer.decode(&tokenizer.encode(&text)) == text);
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in "\\PC{0,30}|[ \n\t\r\u{0}the]{0,30}") {
            let tokenizer = Tokenizer::train([TEXT], 290).unwrap();
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
        }
    }

    #[test]
    #[should_panic(expected = "tokens lie within the vocabulary of 257")]
    fn a_token_outside_the_vocabulary_panics() {
        Tokenizer::train([TEXT], 257).unwrap().decode(&[257]);
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_an_error() {
        let (_dir, path) = file_of("tokenizer.json", b"{}");
        let message = Tokenizer::open(&path).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json: not a tokenizer.json of the `tokenizers` library"), "{message}");
        let plain =
            r#"{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
        let (_dir, path) = file_of("tokenizer.json", plain.as_bytes());
        let message = Tokenizer::open(&path).unwrap_err().to_string();
        assert!(
            message.contains(r#"no end-of-context token; add one of ["<|eoc|>", "<|endoftext|>", "</s>"]"#),
            "{message}"
        );
    }

    #[test]
    fn what_would_fail_while_encoding_is_refused_when_opened() {
        let (_dir, path) = file_of("tokenizer.json", b"");
        let good = json(&Tokenizer::train([TEXT], 257).unwrap());
        let reason = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            let error = Tokenizer::parse(&good.replace(from, to), &path, None).unwrap_err();
            std::error::Error::source(&error).expect("it says why").to_string()
        };
        let decoder = good[good.find("\"decoder\"").unwrap()..good.find("\"model\"").unwrap()].to_owned();
        for (from, to, expected) in [
            (r#""dropout": null"#, r#""dropout": 0.5"#, "`model.dropout` is not null"),
            (r#""unk_token": null"#, r#""unk_token": "<unk>""#, "`model.unk_token` is `<unk>`, which is not in"),
            (decoder.as_str(), "\"decoder\": null, ", "`decoder` of type null cannot be read"),
            (
                r#""normalizer": null"#,
                r#""normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "AA=="}]}"#,
                "`normalizer` of type Precompiled cannot be read",
            ),
            (
                r#""continuing_subword_prefix": null"#,
                r#""continuing_subword_prefix": "Sequence""#,
                "`model.continuing_subword_prefix` is \"Sequence\"",
            ),
            (r#""merges": []"#, r#""merges": [["a", "zebra"]]"#, "`model.merges`: Token `zebra` out of vocabulary"),
            (&good[good.len() - 30..], "", "EOF while parsing"),
        ] {
            let reason = reason(from, to);
            assert!(reason.starts_with(expected), "{reason}");
        }
    }

    #[test]
    fn other_peoples_tokenizers_are_opened() {
        let Some(models) = real_data("models") else { return };
        for (model, size) in [("smollm2-135m-instruct", 49_152), ("gpt-neox-tokenizer", 50_280)] {
            let tokenizer = Tokenizer::open(&models.join(model).join("tokenizer.json")).unwrap();
            assert_eq!((tokenizer.vocab_size(), tokenizer.eoc()), (size, 0), "{model}");
            let text = "It's 10 o'clock.\n\nHuman: <|endoftext|>   thé";
            let tokens = tokenizer.encode(text);
            assert!(!tokens.contains(&0));
            assert_eq!(tokenizer.decode(&tokens), text, "{model}");
        }
    }

    /// Ties between pairs are common in real text, and hash maps are seeded anew each time.
    #[test]
    fn training_on_real_text_is_deterministic() {
        let Some(folder) = real_data("text") else { return };
        let documents = crate::text::read(&folder.join("tinyshakespeare.txt.gz"), 10_000).unwrap();
        let tokenizer = Tokenizer::train(&documents, 4096).unwrap();
        assert_eq!(tokenizer.vocab_size(), 4096);
        assert_eq!(json(&tokenizer), json(&Tokenizer::train(documents.iter().rev(), 4096).unwrap()));
        let document = &documents[3];
        assert_eq!(&tokenizer.decode(&tokenizer.encode(document)), document);
    }
}
