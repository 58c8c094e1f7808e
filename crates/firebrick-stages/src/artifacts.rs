//! What stages leave behind: typed folders.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use firebrick_data::pmp::RankedPair;
use firebrick_data::store;
use firebrick_models::{Decoder, DecoderConfig, ScoredDecoder, open_decoder, open_scored};
use firebrick_pipeline::{Artifact, BoxError};
use firebrick_report::metrics::{self, Metrics};
use firebrick_text::Renderer;
use firebrick_types::{Dialogue, Example, HhhItem, LabelledComparison, Seed};
use firebrick_world::{World, WorldConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::pipelines::rlhf::results::Results;

/// Reads a JSON file of an artifact.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not as it was written", path.display()))
}

/// Writes a JSON file of an artifact.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_vec_pretty(value).context("plain data can be written as JSON")?;
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// Text, comparisons and evaluation items, split by conversation.
pub struct Corpus(PathBuf);

/// Where the data came from, how much there is, and what was dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The source in words.
    pub source: String,
    /// Counts of what is kept, by name.
    pub kept: Vec<(String, usize)>,
    /// What happened to each file, a line each.
    pub notes: Vec<String>,
    /// The built-in world, if the data is of it.
    pub world: Option<(WorldConfig, u64)>,
}

impl Corpus {
    pub(crate) const TRAIN_TEXT: &str = "text_train.parquet";
    pub(crate) const HELD_OUT_TEXT: &str = "text_held_out.parquet";
    pub(crate) const DIALOGUES: &str = "dialogues.parquet";
    pub(crate) const TRAIN_COMPARISONS: &str = "comparisons_train.parquet";
    pub(crate) const TEST_COMPARISONS: &str = "comparisons_test.parquet";
    pub(crate) const TEST_PROBABILITIES: &str = "comparisons_test_probabilities.json";
    pub(crate) const RANKED_PAIRS: &str = "ranked_pairs.parquet";
    pub(crate) const HELD_OUT_RANKED_PAIRS: &str = "ranked_pairs_held_out.parquet";
    pub(crate) const TRAIN_EXAMPLES: &str = "examples_train.json";
    pub(crate) const HELD_OUT_EXAMPLES: &str = "examples_held_out.json";
    pub(crate) const TRAIN_PROMPTS: &str = "prompts_train.json";
    pub(crate) const HELD_OUT_PROMPTS: &str = "prompts_held_out.json";
    pub(crate) const HHH_ITEMS: &str = "hhh_items.json";
    pub(crate) const PROMPT: &str = "hhh_prompt.txt";
    pub(crate) const SUMMARY: &str = "summary.json";

    fn rows<T: store::Table>(&self, name: &str) -> Result<Vec<T>> {
        Ok(store::read(&self.0.join(name))?)
    }

    /// Rows of a part that not every corpus has.
    fn rows_if_any<T: store::Table>(&self, name: &str) -> Result<Vec<T>> {
        if self.0.join(name).exists() { self.rows(name) } else { Ok(Vec::new()) }
    }

    /// Documents to learn from.
    pub fn train_text(&self) -> Result<Vec<String>> {
        self.rows(Self::TRAIN_TEXT)
    }

    /// Documents to measure on.
    pub fn held_out_text(&self) -> Result<Vec<String>> {
        self.rows(Self::HELD_OUT_TEXT)
    }

    /// Rendered dialogues to distil on.
    pub fn dialogues(&self) -> Result<Vec<String>> {
        self.rows_if_any(Self::DIALOGUES)
    }

    /// Comparisons to learn from.
    pub fn train_comparisons(&self) -> Result<Vec<LabelledComparison>> {
        self.rows(Self::TRAIN_COMPARISONS)
    }

    /// Comparisons to measure on.
    pub fn test_comparisons(&self) -> Result<Vec<LabelledComparison>> {
        self.rows(Self::TEST_COMPARISONS)
    }

    /// Rows to finetune on.
    pub fn train_examples(&self) -> Result<Vec<Example>> {
        read_json(&self.0.join(Self::TRAIN_EXAMPLES))
    }

    /// The same to measure on.
    pub fn held_out_examples(&self) -> Result<Vec<Example>> {
        read_json(&self.0.join(Self::HELD_OUT_EXAMPLES))
    }

    /// What a policy may be asked that is to learn: prompts, or else those of the comparisons.
    pub fn train_prompts(&self) -> Result<Vec<Dialogue>> {
        self.prompts_or(Self::TRAIN_PROMPTS, Self::train_comparisons)
    }

    /// The same to measure on.
    pub fn held_out_prompts(&self) -> Result<Vec<Dialogue>> {
        self.prompts_or(Self::HELD_OUT_PROMPTS, Self::test_comparisons)
    }

    fn prompts_or(
        &self,
        name: &str,
        comparisons: fn(&Self) -> Result<Vec<LabelledComparison>>,
    ) -> Result<Vec<Dialogue>> {
        if self.0.join(name).exists() {
            return read_json(&self.0.join(name));
        }
        if !self.0.join(Self::TEST_COMPARISONS).exists() {
            return Ok(Vec::new());
        }
        Ok(comparisons(self)?.into_iter().map(|one| one.comparison.prompt).collect())
    }

    /// The probability of each test comparison's outcome, where the annotators are simulated.
    pub fn test_probabilities(&self) -> Result<Option<Vec<f64>>> {
        let path = self.0.join(Self::TEST_PROBABILITIES);
        path.exists().then(|| read_json(&path)).transpose()
    }

    /// Pairs of answers, one of them chosen by its readers' votes.
    pub fn ranked_pairs(&self) -> Result<Vec<RankedPair>> {
        self.rows(Self::RANKED_PAIRS)
    }

    /// The same to measure on; none where the data has only a test set of comparisons.
    pub fn held_out_ranked_pairs(&self) -> Result<Vec<RankedPair>> {
        self.rows_if_any(Self::HELD_OUT_RANKED_PAIRS)
    }

    /// Documents to measure on; none in a corpus without text.
    pub(crate) fn held_out_text_if_any(&self) -> Result<Vec<String>> {
        self.rows_if_any(Self::HELD_OUT_TEXT)
    }

    /// Comparisons to measure on; none in a corpus without comparisons.
    pub(crate) fn test_comparisons_if_any(&self) -> Result<Vec<LabelledComparison>> {
        self.rows_if_any(Self::TEST_COMPARISONS)
    }

    /// Two-way evaluation items; none in a corpus without.
    pub(crate) fn hhh_items_if_any(&self) -> Result<Vec<HhhItem>> {
        if self.0.join(Self::HHH_ITEMS).exists() { self.hhh_items() } else { Ok(Vec::new()) }
    }

    /// Two-way evaluation items.
    pub fn hhh_items(&self) -> Result<Vec<HhhItem>> {
        read_json(&self.0.join(Self::HHH_ITEMS))
    }

    /// The prompt to distil.
    pub fn prompt(&self) -> Result<String> {
        let path = self.0.join(Self::PROMPT);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Where the data came from.
    pub fn summary(&self) -> Result<Summary> {
        read_json(&self.0.join(Self::SUMMARY))
    }

    /// The built-in world, if the data is of it.
    pub fn world(&self) -> Result<Option<World>> {
        let Some((config, seed)) = self.summary()?.world else { return Ok(None) };
        Ok(Some(World::new(config, Seed::new(seed))?))
    }
}

impl Artifact for Corpus {
    const KIND: &'static str = "corpus";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        let corpus = Self(folder.to_owned());
        corpus.summary()?;
        Ok(corpus)
    }
}

/// How conversations become tokens: a tokenizer and, of a checkpoint, its template and what ends its turns.
pub struct Vocabulary(pub(crate) Renderer);

impl Vocabulary {
    pub(crate) const FILE: &str = "tokenizer.json";

    /// What renders conversations as tokens.
    pub fn renderer(&self) -> &Renderer {
        &self.0
    }
}

impl Artifact for Vocabulary {
    const KIND: &'static str = "tokenizer";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        Ok(Self(Renderer::open(folder)?))
    }
}

macro_rules! model {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $model:ty, $open:ident) => {
        $(#[$doc])*
        pub struct $name(PathBuf);

        impl $name {
            /// The model on a device.
            pub fn load(&self, device: &Device) -> Result<$model> {
                Ok(self.load_with_config(device)?.0)
            }

            /// The model on a device, and its shape.
            pub fn load_with_config(&self, device: &Device) -> Result<($model, DecoderConfig)> {
                Ok($open(&self.0, device)?)
            }

            /// What was measured while it was trained.
            pub fn metrics(&self) -> Result<Metrics> {
                Ok(metrics::read(self.0.join(METRICS))?)
            }
        }

        impl Artifact for $name {
            const KIND: &'static str = $kind;

            fn open(folder: &Path) -> Result<Self, BoxError> {
                for name in ["config.json", "model.safetensors", METRICS] {
                    let path = folder.join(name);
                    fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
                }
                Ok(Self(folder.to_owned()))
            }
        }
    };
}

/// The metrics file of a model's training.
pub(crate) const METRICS: &str = "metrics.jsonl";

model!(
    /// A language model.
    LanguageModel, "language model", Decoder, open_decoder
);
model!(
    /// A preference model.
    PreferenceModel, "preference model", ScoredDecoder, open_scored
);

/// What a preference model learnt from.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) pairs: usize,
    /// Pairs left out because the context does not hold them.
    pub(crate) too_long: usize,
}

impl PreferenceModel {
    /// How it reads conversations, where that differs from how another model does; a model without a tokenizer of its own was trained
    /// with that other one's.
    pub(crate) fn own_renderer(&self, other: &Renderer) -> Result<Option<Renderer>> {
        if !self.0.join(Vocabulary::FILE).exists() {
            return Ok(None);
        }
        let own = Renderer::open(&self.0)?;
        Ok((!own.reads_as(other)).then_some(own))
    }

    pub(crate) const USED: &str = "used.json";

    pub(crate) fn used(&self) -> Result<Used> {
        read_json(&self.0.join(Self::USED))
    }
}

/// What was measured of the finished models.
pub struct Evaluation(pub(crate) Results);

impl Evaluation {
    pub(crate) const FILE: &str = "evaluation.json";
}

impl Artifact for Evaluation {
    const KIND: &'static str = "evaluation";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        Ok(Self(read_json(&folder.join(Self::FILE))?))
    }
}

/// The page.
pub struct Report;

impl Report {
    pub(crate) const FILE: &str = "report.html";
}

impl Artifact for Report {
    const KIND: &'static str = "report";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        let path = folder.join(Self::FILE);
        fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self)
    }
}
