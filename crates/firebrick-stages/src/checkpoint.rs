//! Checkpoints as commands and recipes name them.

use std::path::Path;

use anyhow::Result;
use firebrick_data::hub::{self, Hub};
use firebrick_models::checkpoint::Checkpoint;

/// The checkpoint of a folder of `transformers`, a stage of a pipeline's run, a `.gguf` file, or `hub:OWNER/NAME`.
///
/// # Errors
/// If there is none, or the hub fails and its cache does not hold the model.
pub fn located(source: &str) -> Result<Checkpoint> {
    match source.strip_prefix("hub:") {
        Some(name) => Ok(Checkpoint::at(&hub::model(name, &Hub::from_env(), |_, _, _| ())?)?.named(name)),
        None => Ok(Checkpoint::at(Path::new(source))?),
    }
}
