//! What can be wrong with a model's shape or files.

use std::path::PathBuf;

use firebrick_tensor::ParametersError;

/// What can be wrong with a model's shape or files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number of the shape is zero.
    #[error("`{key}` is 0; it must be at least 1")]
    Zero {
        /// Which.
        key: &'static str,
    },
    /// The heads do not divide the width.
    #[error("`heads` = {heads} does not divide `d_model` = {d_model}; choose a divisor")]
    Heads {
        /// Attention heads.
        heads: usize,
        /// Width.
        d_model: usize,
    },
    /// The context is too long.
    #[error("`context` = {context} is more than {longest} tokens; lower it")]
    Context {
        /// Tokens.
        context: usize,
        /// Tokens, at most.
        longest: usize,
    },
    /// The heads of keys and values do not divide those of queries.
    #[error("`key_value_heads` = {key_value_heads} does not divide `heads` = {heads}; choose a divisor")]
    KeyValueHeads {
        /// Heads of keys and values.
        key_value_heads: usize,
        /// Heads of queries.
        heads: usize,
    },
    /// More of a head is to be turned than there is, or half a pair.
    #[error("rotary `dims` = {dims} must be even, at least 2 and at most the width of a head, {d_head}")]
    RotaryDims {
        /// Numbers that are turned.
        dims: usize,
        /// Numbers of a head.
        d_head: usize,
    },
    /// A file or folder cannot be read.
    #[error("{}: cannot be read: {source}; check that it is there and readable", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or folder cannot be written.
    #[error("{}: cannot be written: {source}; check that its folder is there, writable and has space left", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any of its kind.
    #[error("{}: holds more than {limit} bytes, the limit of such a file; fetch it anew", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file is not JSON.
    #[error("{}: not whole JSON: {source}; fetch it anew", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file is not text.
    #[error("{}: not UTF-8; fetch it anew", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// Weights are damaged, or none of a language model.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A reward model stands where a language model is wanted.
    #[error(
        "{}: a reward model, whose head gives a score and no tokens; `firebrick model info` and `firebrick model convert` take \
         it: name a language model here",
        path.display()
    )]
    RewardModel {
        /// The folder.
        path: PathBuf,
    },
    /// A language model stands where a reward model is wanted.
    #[error(
        "{}: a language model, which has no head that gives a score; `firebrick generate`, `firebrick chat` and `firebrick model \
         logprobs` take it: name a reward model here, the folder of a stage that learnt preferences or of a class for \
         sequence classification of transformers with one label",
        path.display()
    )]
    LanguageModel {
        /// The folder or file.
        path: PathBuf,
    },
    /// A classifier gives something else than one score.
    #[error(
        "{}: `id2label` tells {labels} labels (2 where it is missing), expected 1; a reward model gives one score: name one, or \
         train this classifier with `num_labels` 1",
        path.display()
    )]
    Labels {
        /// The `config.json`.
        path: PathBuf,
        /// Labels.
        labels: usize,
    },
    /// The head of a reward model adds something that folders of `transformers` have no place for.
    #[error(
        "`head.bias` is {bias}, but reward models of transformers have no bias; scores of preferences are defined up to a \
         constant: take the model `without_bias`"
    )]
    HeadBias {
        /// What it adds.
        bias: f32,
    },
    /// A key holds something else than it should.
    #[error("{}: `{key}` is {found}, expected {expected}; correct it", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: String,
    },
    /// There is no checkpoint.
    #[error(
        "{}: no checkpoint; looked for `config.json` with `model.safetensors` or its shards, and for one `.gguf` file; \
         found {found}; name a folder or a file that holds one, or hub:OWNER/NAME (pickled weights, `.bin` and `.pt`, \
         are not read: save them as safetensors)",
        path.display()
    )]
    NoCheckpoint {
        /// Where it was looked for.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A checkpoint has no tokenizer.
    #[error(
        "{}: no tokenizer; put `tokenizer.json`, or `vocab.json` and `merges.txt`, beside `config.json`; a GGUF file \
         carries its own",
        path.display()
    )]
    NoTokenizer {
        /// The folder or file.
        path: PathBuf,
    },
    /// A tokenizer is damaged, or of a kind that is not built here.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tokenizer gives ids that the network does not have.
    #[error(
        "{}: the tokenizer has {tokens} tokens, but the network's vocabulary has {vocab}; they are of different models: \
         take both from one",
        path.display()
    )]
    Vocabulary {
        /// The folder or file.
        path: PathBuf,
        /// Ids of the tokenizer.
        tokens: usize,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// The tokenizer or the chat template is wrong.
    #[error(transparent)]
    Text(#[from] firebrick_text::Error),
    /// A checkpoint may only be written where nothing is.
    #[error("{}: not an empty folder; name another one, or remove it first", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A file may only be written where none is.
    #[error("{}: is there already; name another file, or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A `config.json` is not one of ours.
    #[error("{path}: {source}")]
    Config {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// An architecture that is not built here.
    #[error("{path}: `model_type` is `{found}`; known are {known}")]
    Architecture {
        /// The `config.json`.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What could be read.
        known: &'static str,
    },
    /// A part of a known architecture that is not built here.
    #[error("{path}: `{key}` = {found} is not supported")]
    Unsupported {
        /// The `config.json`.
        path: PathBuf,
        /// Its key.
        key: &'static str,
        /// What stands there.
        found: String,
    },
    /// A key that an architecture cannot do without.
    #[error("{path}: `{key}` is missing")]
    MissingKey {
        /// The `config.json`.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// Two keys for one thing say different things of it.
    #[error(
        "{}: `{}` is `{}`, but `{}` is `{}`; they are names of one setting: leave out the wrong one",
        path.display(), values[0].0, values[0].1, values[1].0, values[1].1
    )]
    Contradiction {
        /// The `config.json`.
        path: PathBuf,
        /// The keys and what they say.
        values: [(&'static str, String); 2],
    },
    /// A list of shards names something that is not a file of its folder.
    #[error("{path}: the shard `{shard}` is not a file of this folder")]
    Shard {
        /// The list.
        path: PathBuf,
        /// What it names.
        shard: String,
    },
    /// A GGUF file is damaged, or holds something that is not built here.
    #[error("{path}: {reason}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A shape that no known architecture has, so that it cannot be written for others.
    #[error("no architecture of {known} has this shape; it can be written in this project's own format only")]
    NoSuchArchitecture {
        /// What could be written.
        known: &'static str,
    },
    /// A weights file does not fit the model.
    #[error("{path}: {source}")]
    Parameters {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ParametersError,
    },
}
