//! What the stages of `vision` leave behind: typed folders.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use firebrick_pipeline::{Artifact, BoxError};
use firebrick_report::metrics::{self, Metrics};
use firebrick_vision::classifiers::{Cnn, open_cnn};
use firebrick_vision::generative::GenerativeModel;
use firebrick_vision::images::{Images, TrainTest, read_idx};

use super::results::{Cost, Results};
use crate::artifacts::{METRICS, read_json};

/// Pictures to learn from, to choose constants on and to measure on.
pub struct Pictures(PathBuf);

impl Pictures {
    pub(crate) const TRAIN: &str = "train";
    pub(crate) const VALIDATION: &str = "validation";
    pub(crate) const TEST: &str = "t10k";

    fn part(&self, part: &str) -> Result<Images> {
        let path = |kind: &str| self.0.join(format!("{part}-{kind}-ubyte"));
        Ok(read_idx(&path("images-idx3"), &path("labels-idx1"))?)
    }

    /// To choose constants on.
    pub(crate) fn validation(&self) -> Result<Images> {
        self.part(Self::VALIDATION)
    }

    /// To learn from and to measure on.
    pub fn train_test(&self) -> Result<TrainTest> {
        Ok(TrainTest { train: self.part(Self::TRAIN)?, test: self.part(Self::TEST)? })
    }
}

impl Artifact for Pictures {
    const KIND: &'static str = "pictures";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        let pictures = Self(folder.to_owned());
        pictures.part(Self::VALIDATION)?;
        Ok(pictures)
    }
}

/// A trained classifier, and what was measured while it was trained.
pub(crate) struct TrainedClassifier(PathBuf);

impl TrainedClassifier {
    pub(crate) const ACCURACY: &str = "accuracy.json";

    pub(crate) fn cnn(&self, device: &Device) -> Result<Cnn> {
        Ok(open_cnn(&self.0, device)?)
    }

    /// The share of the test pictures that it is right on.
    pub(crate) fn accuracy(&self) -> Result<f64> {
        read_json(&self.0.join(Self::ACCURACY))
    }

    pub(crate) fn metrics(&self) -> Result<Metrics> {
        Ok(metrics::read(self.0.join(METRICS))?)
    }
}

impl Artifact for TrainedClassifier {
    const KIND: &'static str = "classifier";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        let classifier = Self(folder.to_owned());
        classifier.accuracy()?;
        Ok(classifier)
    }
}

/// A network that draws what masks hide.
pub(crate) struct Denoiser(PathBuf);

impl Denoiser {
    pub(crate) fn cnn(&self, device: &Device) -> Result<Cnn> {
        Ok(open_cnn(&self.0, device)?)
    }
}

impl Artifact for Denoiser {
    const KIND: &'static str = "denoiser";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        let path = folder.join("config.json");
        fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(folder.to_owned()))
    }
}

/// A generative model of a classifier's activations.
pub(crate) struct Generative(PathBuf);

impl Generative {
    pub(crate) fn model(&self, device: &Device) -> Result<GenerativeModel> {
        Ok(GenerativeModel::open(&self.0, device)?)
    }
}

impl Artifact for Generative {
    const KIND: &'static str = "generative model";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        let path = folder.join("model.json");
        fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(folder.to_owned()))
    }
}

/// What was measured.
pub(crate) struct QuestionResults(pub(crate) Results);

impl QuestionResults {
    pub(crate) const FILE: &str = "results.json";
}

impl Artifact for QuestionResults {
    const KIND: &'static str = "answers";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        Ok(Self(read_json(&folder.join(Self::FILE))?))
    }
}

/// How long answers take.
pub(crate) struct Costs(pub(crate) Vec<Cost>);

impl Costs {
    pub(crate) const FILE: &str = "costs.json";
}

impl Artifact for Costs {
    const KIND: &'static str = "costs";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        Ok(Self(read_json(&folder.join(Self::FILE))?))
    }
}

/// The page.
pub(crate) struct Page;

impl Page {
    pub(crate) const FILE: &str = "report.html";
}

impl Artifact for Page {
    const KIND: &'static str = "report";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        let path = folder.join(Self::FILE);
        fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self)
    }
}
