//! Models as folders: `config.json` and `model.safetensors`.

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use firebrick_tensor::Parameters;
use firebrick_types::Seed;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Decoder, DecoderConfig, Error, ScoredDecoder};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// Writes a decoder into a folder that exists.
///
/// # Errors
/// If a file cannot be written.
pub fn save_decoder(model: &Decoder, config: &DecoderConfig, dir: &Path) -> Result<(), Error> {
    save(model, config, dir)
}

/// Writes a decoder with a scalar head into a folder that exists.
///
/// # Errors
/// If a file cannot be written.
pub fn save_scored(model: &ScoredDecoder, config: &DecoderConfig, dir: &Path) -> Result<(), Error> {
    save(model, config, dir)
}

/// Reads a decoder from a folder.
///
/// # Errors
/// If a file is missing, or does not hold such a model.
pub fn open_decoder(dir: &Path, device: &Device) -> Result<(Decoder, DecoderConfig), Error> {
    open(dir, |config: &DecoderConfig| config.validate().map(|()| config.blank(device)))
}

/// Reads a decoder with a scalar head from a folder.
///
/// # Errors
/// If a file is missing, or does not hold such a model.
pub fn open_scored(dir: &Path, device: &Device) -> Result<(ScoredDecoder, DecoderConfig), Error> {
    open(dir, |config: &DecoderConfig| {
        config.validate().map(|()| ScoredDecoder::from_body(config.blank(device), Seed::new(0)))
    })
}

fn save<M: Module>(model: &M, config: &impl Serialize, dir: &Path) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(config).expect("plain numbers can be written as JSON");
    for (name, bytes) in [(CONFIG, json.into_bytes()), (WEIGHTS, Parameters::of(model).to_bytes())] {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

fn open<M: Module, C: DeserializeOwned>(dir: &Path, init: impl Fn(&C) -> Result<M, Error>) -> Result<(M, C), Error> {
    let path = dir.join(CONFIG);
    let json = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let config: C = serde_json::from_slice(&json).map_err(|source| Error::Config { path, source })?;
    let model = init(&config)?;
    let path = dir.join(WEIGHTS);
    let bytes = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let model = Parameters::from_bytes(&bytes)
        .and_then(|parameters| parameters.load(model))
        .map_err(|source| Error::Parameters { path, source })?;
    Ok((model, config))
}
