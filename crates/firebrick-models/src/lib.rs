#![doc = include_str!("../README.md")]

mod attention;
mod cache;
mod config;
mod decoder;
mod error;
mod files;
mod layers;
mod scored;

pub use cache::KvCache;
pub use config::DecoderConfig;
pub use decoder::Decoder;
pub use error::Error;
pub use files::{open_decoder, open_scored, save_decoder, save_scored};
pub use scored::ScoredDecoder;
