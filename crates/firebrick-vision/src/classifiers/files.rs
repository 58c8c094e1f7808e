//! Classifiers as folders: `config.json` and `model.safetensors`.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use firebrick_tensor::Parameters;

use super::cnn::Cnn;
use super::config::CnnConfig;
use crate::Error;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// Writes a convolutional classifier into a folder that exists.
///
/// # Errors
/// If a file cannot be written.
pub fn save_cnn(model: &Cnn, dir: &Path) -> Result<(), Error> {
    let json = serde_json::to_vec_pretty(model.config()).expect("plain numbers can be written as JSON");
    for (name, bytes) in [(CONFIG, json), (WEIGHTS, Parameters::of(model).to_bytes())] {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

/// Reads a convolutional classifier from a folder.
///
/// # Errors
/// If a file is missing, or does not hold such a model.
pub fn open_cnn(dir: &Path, device: &Device) -> Result<Cnn, Error> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source }).map(|bytes| (path, bytes))
    };
    let (path, json) = read(CONFIG)?;
    let config: CnnConfig = serde_json::from_slice(&json).map_err(|source| Error::Config { path, source })?;
    let model = config.blank(device)?;
    let (path, bytes) = read(WEIGHTS)?;
    Parameters::from_bytes(&bytes)
        .and_then(|parameters| parameters.load(model))
        .map_err(|source| Error::Parameters { path, source })
}
