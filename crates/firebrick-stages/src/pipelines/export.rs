//! `OUT/model`: what a run has made, as a folder that `transformers` loads.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use firebrick_models::checkpoint::{GenerationConfig, Text, save, save_reward_model};
use firebrick_pipeline::{open, read_record};

use super::Made;
use crate::artifacts::{LanguageModel, PreferenceModel, Vocabulary};

/// Writes the model of a finished run as `RUN/model`, unless it lies there already; the folder.
///
/// It is there as a whole or not at all.
///
/// # Errors
/// If the run is not finished, a file cannot be written, or no architecture of `transformers` has this shape.
pub fn export(run: &Path, made: Made) -> Result<PathBuf> {
    let stage = match made {
        Made::LanguageModel(stage) | Made::PreferenceModel(stage) => stage,
    };
    let (folder, partial, mark) = (run.join("model"), run.join(".model.partial"), run.join(".model"));
    let digest = read_record(run, stage)?.digest;
    if folder.exists() && fs::read_to_string(&mark).is_ok_and(|of| of == digest) {
        return Ok(folder);
    }
    for old in [&folder, &partial].into_iter().filter(|old| old.exists()) {
        fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    let vocabulary: Vocabulary = open(run, "tokenizer")?;
    let text = Text { renderer: vocabulary.renderer().clone(), generation: GenerationConfig::default() };
    let device = Device::flex();
    match made {
        Made::LanguageModel(stage) => {
            let (model, config) = open::<LanguageModel>(run, stage)?.load_with_config(&device)?;
            save(&model, &config, Some(&text), &partial)?;
        }
        Made::PreferenceModel(stage) => {
            let (model, config) = open::<PreferenceModel>(run, stage)?.load_with_config(&device)?;
            save_reward_model(&model.without_bias(), &config, Some(&text), &partial)?;
        }
    }
    fs::rename(&partial, &folder).with_context(|| format!("cannot write {}", folder.display()))?;
    fs::write(&mark, digest).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(folder)
}
