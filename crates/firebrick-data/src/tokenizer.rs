//! Text to token ids and back.

use std::io::Write;
use std::path::Path;

use firebrick_types::TokenId;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, ModelWrapper};

use crate::Error;
use crate::file::{read_to_string, write_atomically};

/// The end of a context: of a document, and of a turn (A-34). A tokenizer of ours gives it the id 0.
pub const EOC: &str = "<|eoc|>";

/// What ends a context in tokenizers of ours and of other people, in the order in which it is looked for.
const KNOWN_EOC: &[&str] = &[EOC, "<|endoftext|>", "</s>"];

/// All bytes and the end of context.
const LEAST_VOCABULARY: usize = 257;

/// A byte-level byte-pair encoding: it encodes every text, and decoding gives the text back (D-01).
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    eoc: TokenId,
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
        Ok(Self::new(inner).expect("the trainer was given the end of context"))
    }

    /// The tokenizer of a `tokenizer.json`, ours or somebody else's byte-level one.
    ///
    /// The end of context is `<|eoc|>`, else `<|endoftext|>`, else `</s>`.
    ///
    /// # Errors
    /// If the file cannot be read, is no tokenizer, or has none of these tokens.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let text = read_to_string(path)?;
        let mut inner: tokenizers::Tokenizer =
            text.parse().map_err(|source| Error::Tokenizer { path: path.into(), source })?;
        // Lengths are the caller's business: a file must not cut or fill what is encoded.
        inner.with_truncation(None).map_err(|source| Error::Tokenizer { path: path.into(), source })?;
        inner.with_padding(None);
        Self::new(inner).ok_or_else(|| Error::NoEndOfContext { path: path.into(), known: KNOWN_EOC })
    }

    fn new(mut inner: tokenizers::Tokenizer) -> Option<Self> {
        // The text of a special token inside data is text: nobody ends a context by writing `<|eoc|>`.
        inner.set_encode_special_tokens(true);
        let eoc = KNOWN_EOC.iter().find_map(|token| inner.token_to_id(token))?;
        Some(Self { inner, eoc })
    }

    /// Writes the `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = self.inner.to_string(true).expect("a tokenizer is made of text and numbers");
        write_atomically(path, |file| {
            file.write_all(text.as_bytes()).map_err(|source| Error::Write { path: path.into(), source })
        })
    }

    /// The tokens of a text, no special token among them.
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        let encoding = self.inner.encode_fast(text, false).expect("a byte-level encoding takes every text");
        encoding.get_ids().to_vec()
    }

    /// The text of tokens, without the special ones; bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Panics
    /// If a token is not in the vocabulary.
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        let size = self.vocab_size();
        assert!(tokens.iter().all(|&token| (token as usize) < size), "tokens lie within the vocabulary of {size}");
        self.inner.decode(tokens, true).expect("a byte-level decoding takes every token")
    }

    /// How many tokens there are, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The end of a context: of a document, and of a turn (A-34).
    pub fn eoc(&self) -> TokenId {
        self.eoc
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::file::tests::{file_of, real_data};

    const TEXT: &str = "the cat sat on the mat; the other cat, the thin one, sat there. The end — thé.";

    fn json(tokenizer: &Tokenizer) -> String {
        tokenizer.inner.to_string(true).unwrap()
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
