//! Models as folders: `config.json` and `model.safetensors`.

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use firebrick_tensor::Parameters;
use firebrick_types::Seed;

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
    open(dir, |config| config.init(Seed::new(0), device))
}

/// Reads a decoder with a scalar head from a folder.
///
/// # Errors
/// If a file is missing, or does not hold such a model.
pub fn open_scored(dir: &Path, device: &Device) -> Result<(ScoredDecoder, DecoderConfig), Error> {
    open(dir, |config| config.init_scored(Seed::new(0), device))
}

fn save<M: Module>(model: &M, config: &DecoderConfig, dir: &Path) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(config).expect("plain numbers can be written as JSON");
    for (name, bytes) in [(CONFIG, json.into_bytes()), (WEIGHTS, Parameters::of(model).to_bytes())] {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(|source| Error::Io { path, source })?;
    }
    Ok(())
}

fn open<M: Module>(dir: &Path, init: impl Fn(&DecoderConfig) -> M) -> Result<(M, DecoderConfig), Error> {
    let path = dir.join(CONFIG);
    let json = fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    let config: DecoderConfig = serde_json::from_slice(&json).map_err(|source| Error::Config { path, source })?;
    config.validate()?;
    let path = dir.join(WEIGHTS);
    let bytes = fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    let model = Parameters::from_bytes(&bytes)
        .and_then(|parameters| parameters.load(init(&config)))
        .map_err(|source| Error::Parameters { path, source })?;
    Ok((model, config))
}
