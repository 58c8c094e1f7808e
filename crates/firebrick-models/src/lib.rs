#![doc = include_str!("../README.md")]

mod attention;
mod cache;
pub mod checkpoint;
mod config;
mod decoder;
mod error;
mod files;
mod layers;
mod lora;
mod scored;

pub use cache::KvCache;
pub use config::{Architecture, Biases, DecoderConfig, FeedForward, Norm, Positions, RotaryConfig, RotaryScaling};
pub use decoder::Decoder;
pub use error::Error;
pub use files::firebrick::{open_decoder, open_scored, save_decoder, save_scored};
pub use files::gguf::write::GgufFormat;
pub use files::gguf::{GgufTokenizer, open_gguf, read_gguf_formats, read_gguf_tokenizer};
pub use files::hugging_face::{open_hugging_face, save_hugging_face};
pub use firebrick_kernels::Precision;
pub use lora::LoraConfig;
pub use scored::ScoredDecoder;
