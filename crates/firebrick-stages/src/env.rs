//! What stages are executed with; none of it bears on results, but that another device rounds otherwise.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Device;
use firebrick_pipeline::StageContext;
use firebrick_tensor::Workers;
use firebrick_train::{Checkpoints, Observer, Run, Silent};
use firebrick_types::Seed;

use crate::recorder::Recorder;

/// Gives a stage of this name somebody who shows how far it is.
type Display = dyn Fn(&str) -> Box<dyn Observer> + Send + Sync;

/// What stages are executed with.
#[derive(Clone)]
pub struct Env {
    /// Where tensors live.
    pub device: Device,
    /// A file or folder of data; none for what is built in.
    pub data: Option<PathBuf>,
    /// Other files that a pipeline reads, by the names of its inputs.
    pub files: BTreeMap<String, PathBuf>,
    /// Wall time between checkpoints.
    pub checkpoint_every: Duration,
    /// Who computes.
    pub workers: Workers,
    display: Arc<Display>,
}

impl Env {
    /// On this device, with all cores; nothing is shown, a checkpoint is written every 10 seconds.
    pub fn new(device: Device) -> Self {
        let display = Arc::new(|_: &str| Box::new(Silent) as Box<dyn Observer>);
        let (data, files) = (None, BTreeMap::new());
        Self { device, data, files, checkpoint_every: Duration::from_secs(10), workers: Workers::default(), display }
    }

    /// With data from this file or folder.
    #[must_use]
    pub fn data(self, path: impl Into<PathBuf>) -> Self {
        Self { data: Some(path.into()), ..self }
    }

    /// With another file that the pipeline reads, by the name of its input.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.files.insert(name.into(), path.into());
        self
    }

    /// The file or folder of an input: `data`, or one of the others.
    pub fn input(&self, name: &str) -> Option<&Path> {
        if name == "data" { self.data.as_deref() } else { self.files.get(name).map(PathBuf::as_path) }
    }

    /// With somebody who shows how far each stage is; `display` is given the stage's name.
    #[must_use]
    pub fn display(self, display: impl Fn(&str) -> Box<dyn Observer> + Send + Sync + 'static) -> Self {
        Self { display: Arc::new(display), ..self }
    }

    /// What a stage is observed by: its metrics are kept, and shown by the display.
    pub fn observer(&self, ctx: &StageContext) -> Recorder {
        Recorder::new(ctx.work(), (self.display)(ctx.stage()))
    }

    /// What a stage's training loop is run with.
    pub fn run<'a, M>(&self, ctx: &StageContext, seed: Seed) -> Run<'a, M> {
        let checkpoints = Checkpoints::new(ctx.work().join("checkpoint"), self.checkpoint_every);
        Run::new(seed).checkpoints(checkpoints).observer(self.observer(ctx)).workers(self.workers)
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, data, files, checkpoint_every, workers, .. } = self;
        let mut shown = formatter.debug_struct("Env");
        shown.field("device", device).field("data", data).field("files", files);
        shown.field("checkpoint_every", checkpoint_every).field("workers", workers).finish_non_exhaustive()
    }
}
