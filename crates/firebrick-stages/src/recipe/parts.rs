//! The numbers that stages take.

use anyhow::{Result, bail};
use firebrick_kernels::Precision;
use firebrick_models::{Architecture, DecoderConfig, LoraConfig};
use firebrick_text::Counted;
use firebrick_train::{AdamWConfig, FitConfig, Passes, Schedule};
use firebrick_world::WorldConfig;
use serde::{Deserialize, Serialize};

/// What the models begin with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRecipe {
    /// A checkpoint: a folder, a `.gguf` file or `hub:owner/name`; its tokenizer and template come with it. Empty: pretrain one.
    pub model: String,
    /// Rank of the adapters that are trained instead of all weights; 0 trains all.
    pub lora_rank: usize,
    /// What the adapters add is scaled by this over the rank.
    pub lora_alpha: f64,
}

impl BaseRecipe {
    /// The checkpoint to begin with, if one was named.
    pub fn checkpoint(&self) -> Option<&str> {
        (!self.model.is_empty()).then_some(self.model.as_str())
    }

    /// How the models are adapted, unless all of their weights are trained.
    pub fn lora(&self) -> Option<LoraConfig> {
        let Self { lora_rank: rank, lora_alpha: alpha, .. } = *self;
        (rank > 0).then(|| LoraConfig { rank, alpha, ..LoraConfig::default() })
    }
}

/// An error that names a number of a recipe that must be at least 1 and is 0.
pub(crate) fn positive(numbers: &[(&str, usize)]) -> Result<()> {
    match numbers.iter().find(|(_, number)| *number == 0) {
        Some((key, _)) => bail!("recipe: `{key}` is 0; it must be at least 1"),
        None => Ok(()),
    }
}

/// An error that names a share of a recipe that does not lie between 0 and 1.
fn share(key: &str, number: f64) -> Result<()> {
    if 0.0 < number && number < 1.0 {
        return Ok(());
    }
    bail!("recipe: `{key}` is {number}; it must lie between 0 and 1")
}

impl BaseRecipe {
    /// Checks its numbers.
    ///
    /// # Errors
    /// With the key and the fix.
    pub fn validate(&self) -> Result<()> {
        if self.lora_rank > 0 && self.checkpoint().is_none() {
            bail!(
                "recipe: `base.lora_rank` = {} adapts weights that were never trained; name a checkpoint in `base.model` \
                 (`--model`), or set it to 0",
                self.lora_rank
            );
        }
        Ok(())
    }
}

/// How much data is taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Share of documents, and of the world's conversations, held out.
    pub held_out: f64,
    /// Documents of text, at most; the preferred dialogues of a folder's training comparisons are read beside them.
    pub documents: usize,
    /// Longest document, in characters; longer ones are cut at paragraphs.
    pub document_characters: usize,
    /// Comparisons, at most.
    pub comparisons: usize,
    /// Questions with answers, at most.
    pub threads: usize,
    /// Two-way evaluation items of the built-in world.
    pub hhh_items: usize,
    /// Example conversations of the world's HHH prompt; for data from a folder 1 is the short prompt, 14 the full one.
    pub prompt_conversations: usize,
    /// The built-in world.
    pub world: WorldConfig,
}

/// How much of one's own data is taken.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsRecipe {
    /// Share of the conversations that is held out, where no file of the data is a test set.
    pub held_out: f64,
    /// Rows to learn from, at most.
    pub rows: usize,
    /// Rows to measure on, at most.
    pub held_out_rows: usize,
    /// Longest document, in characters; longer ones are cut at paragraphs.
    pub document_characters: usize,
}

impl RowsRecipe {
    /// Checks its numbers.
    ///
    /// # Errors
    /// With the key and the fix.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("data.rows", self.rows),
            ("data.held_out_rows", self.held_out_rows),
            ("data.document_characters", self.document_characters),
        ];
        positive(&counts)?;
        share("data.held_out", self.held_out)
    }
}

/// How a tokenizer is trained.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Tokens, at most.
    pub vocab: usize,
}

impl TokenizerRecipe {
    /// Checks its number.
    ///
    /// # Errors
    /// With the key and the fix.
    pub fn validate(&self) -> Result<()> {
        if self.vocab < 257 {
            bail!("recipe: `tokenizer.vocab` is {}; 256 bytes and the end of context need at least 257", self.vocab);
        }
        Ok(())
    }
}

/// The shapes of the models: the policy's, and in what the others differ from it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// Layers of the policy.
    pub n_layer: usize,
    /// Its width.
    pub d_model: usize,
    /// Its heads.
    pub heads: usize,
    /// The width inside its feed-forward layers.
    pub d_ff: usize,
    /// Tokens that every model reads at most.
    pub context: usize,
    /// What linear maps round their factors to, `f32` (not at all) or `bf16`.
    pub precision: Precision,
    /// In what the preference models differ from the policy.
    pub preference_model: RoleRecipe,
    /// In what the critic differs from the preference models.
    pub critic: RoleRecipe,
}

/// In what the shape of a model differs from the one it inherits from.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRecipe {
    /// Layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_layer: Option<usize>,
    /// Width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d_model: Option<usize>,
    /// Heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// Width inside feed-forward layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d_ff: Option<usize>,
}

/// The shape of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Layers.
    pub n_layer: usize,
    /// Width.
    pub d_model: usize,
    /// Heads.
    pub heads: usize,
    /// Width inside feed-forward layers.
    pub d_ff: usize,
    /// Tokens that it reads at most.
    pub context: usize,
    /// What linear maps round their factors to.
    pub precision: Precision,
}

impl ModelRecipe {
    /// The policy's shape.
    pub fn policy(&self) -> Shape {
        let Self { n_layer, d_model, heads, d_ff, context, precision, .. } = *self;
        Shape { n_layer, d_model, heads, d_ff, context, precision }
    }

    /// The preference models' shape.
    pub fn preference_model(&self) -> Shape {
        self.preference_model.over(self.policy())
    }

    /// The critic's shape.
    pub fn critic(&self) -> Shape {
        self.critic.over(self.preference_model())
    }
}

/// How far a checkpoint reads, and how it rounds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextRecipe {
    /// Tokens that the model reads at most.
    pub context: usize,
    /// What linear maps round their factors to.
    pub precision: Precision,
}

impl RoleRecipe {
    fn over(&self, shape: Shape) -> Shape {
        Shape {
            n_layer: self.n_layer.unwrap_or(shape.n_layer),
            d_model: self.d_model.unwrap_or(shape.d_model),
            heads: self.heads.unwrap_or(shape.heads),
            d_ff: self.d_ff.unwrap_or(shape.d_ff),
            ..shape
        }
    }
}

impl Shape {
    /// A decoder of this shape over so many tokens.
    pub fn config(&self, vocab: usize) -> DecoderConfig {
        let Self { n_layer, d_model, heads, d_ff, context, precision } = *self;
        let architecture = Architecture { precision, ..Architecture::gpt() };
        DecoderConfig { vocab, context, n_layer, d_model, heads, d_ff, architecture }
    }
}

/// How a learning rate falls after its warm-up.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Not at all (the papers' preference models).
    Constant,
    /// Half a cosine to this share of the peak (GPT-3's pretraining: a tenth).
    Cosine {
        /// The share of the peak that is left at the end.
        floor: f64,
    },
    /// A line to zero (the papers' distillation).
    Linear,
}

/// How samples are learnt from.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Samples of one step.
    pub batch_size: usize,
    /// Samples computed at a time.
    pub micro_batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Samples until it is reached.
    pub warmup: u64,
    /// How often all samples are taken.
    pub passes: usize,
    /// How it falls.
    pub decay: Decay,
    /// Gradients longer than this are scaled down to it.
    pub clip_norm: f64,
    /// The optimiser.
    pub adamw: AdamWConfig,
}

impl TrainRecipe {
    /// Checks its numbers, which stand below `key`.
    ///
    /// # Errors
    /// With the key and the fix.
    pub fn validate(&self, key: &str) -> Result<()> {
        let Self { batch_size, micro_batch_size, passes, .. } = *self;
        for (name, number) in [("batch_size", batch_size), ("micro_batch_size", micro_batch_size), ("passes", passes)] {
            positive(&[(&format!("{key}.{name}"), number)])?;
        }
        Ok(())
    }

    /// How this many samples are read.
    pub fn passes(&self, samples: usize) -> Passes {
        let Self { batch_size, micro_batch_size, passes, .. } = *self;
        Passes { batch_size, micro_batch_size, passes, fit: self.fit(samples) }
    }

    /// The optimisation of all passes over this many samples.
    pub fn fit(&self, samples: usize) -> FitConfig {
        let (warmup, total) = (self.warmup, (self.passes * samples) as u64);
        let schedule = match self.decay {
            Decay::Constant => Schedule::Warmup { warmup },
            Decay::Cosine { floor } => Schedule::Cosine { warmup, total, floor },
            Decay::Linear => Schedule::Linear { warmup, total },
        };
        FitConfig { learning_rate: self.learning_rate, schedule, clip_norm: self.clip_norm, adamw: self.adamw }
    }
}

/// How a prompt is distilled.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillRecipe {
    /// Texts, half of them documents and half dialogues.
    pub texts: usize,
    /// Longest text, in tokens.
    pub max_tokens: usize,
    /// Tokens of the teacher's distribution that are kept.
    pub top_k: usize,
    /// The optimiser; samples are texts.
    pub train: TrainRecipe,
}

/// How preference models are pretrained.
///
/// Unknown keys are found where recipes are loaded: serde cannot deny them beside flattened fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PmpRecipe {
    /// Whether each pair becomes two that differ in a label alone, or is ranked as it is.
    pub binarize: bool,
    /// How it is learned.
    #[serde(flatten)]
    pub pairs: PairRecipe,
}

/// How often a model is measured on held-out samples while it learns.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRecipe {
    /// Samples between two measurements; 0: it is not measured.
    pub every: u64,
    /// Held-out samples that it is measured on, at most.
    pub samples: usize,
}

/// How pairs are learnt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairRecipe {
    /// Weight of the ranked loss (λ of A-33).
    pub ranked_weight: f64,
    /// Weight of the language-model loss (μ of A-33).
    pub lm_weight: f64,
    /// How often held-out pairs are judged meanwhile.
    pub probe: ProbeRecipe,
    /// The optimiser; samples are pairs.
    pub train: TrainRecipe,
}

/// How a language model is finetuned.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftRecipe {
    /// Whether all tokens of a conversation are learnt, or the assistant's alone.
    pub all_tokens: bool,
    /// How often held-out rows are measured meanwhile.
    pub probe: ProbeRecipe,
    /// The optimiser; samples are rows.
    pub train: TrainRecipe,
}

impl SftRecipe {
    /// Which tokens of a conversation are learnt.
    pub fn counted(&self) -> Counted {
        if self.all_tokens { Counted::All } else { Counted::Assistant }
    }
}

/// How a finetuned language model is measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftEvaluateRecipe {
    /// Sequences computed at a time.
    pub micro_batch_size: usize,
    /// Bootstrap resamples of every interval.
    pub resamples: usize,
    /// How often intervals hold what they estimate.
    pub confidence: f64,
    /// Held-out prompts that are answered before and after, for the report.
    pub shown: usize,
    /// Longest response, in tokens.
    pub max_response_tokens: usize,
    /// What logits are divided by when responses are drawn; 0 takes the likeliest token.
    pub temperature: f64,
}

impl SftEvaluateRecipe {
    /// Checks its numbers.
    ///
    /// # Errors
    /// With the key and the fix.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("evaluate.micro_batch_size", self.micro_batch_size),
            ("evaluate.resamples", self.resamples),
            ("evaluate.max_response_tokens", self.max_response_tokens),
        ];
        positive(&counts)?;
        share("evaluate.confidence", self.confidence)
    }
}

/// How a student is measured that a prompt was distilled into.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistilledRecipe {
    /// Held-out texts, at most.
    pub texts: usize,
    /// Sequences computed at a time.
    pub micro_batch_size: usize,
    /// Bootstrap resamples of every interval.
    pub resamples: usize,
    /// How often intervals hold what they estimate.
    pub confidence: f64,
}

impl DistilledRecipe {
    /// Checks its numbers.
    ///
    /// # Errors
    /// With the key and the fix.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("evaluate.texts", self.texts),
            ("evaluate.micro_batch_size", self.micro_batch_size),
            ("evaluate.resamples", self.resamples),
        ];
        positive(&counts)?;
        share("evaluate.confidence", self.confidence)
    }
}

/// How language models are compared.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareRecipe {
    /// Held-out prompts that every model answers, at most.
    pub prompts: usize,
    /// Held-out documents for the perplexity, at most.
    pub documents: usize,
    /// Longest response, in tokens.
    pub max_response_tokens: usize,
    /// What logits are divided by when responses are drawn; 0 takes the likeliest token.
    pub temperature: f64,
    /// Sequences computed at a time.
    pub micro_batch_size: usize,
    /// Bootstrap resamples of every interval.
    pub resamples: usize,
    /// How often intervals hold what they estimate.
    pub confidence: f64,
    /// Bins of the calibration curve.
    pub calibration_bins: usize,
    /// Prompts shown with the responses in the report.
    pub shown: usize,
}

impl CompareRecipe {
    /// Checks its numbers.
    ///
    /// # Errors
    /// With the key and the fix.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("evaluate.prompts", self.prompts),
            ("evaluate.documents", self.documents),
            ("evaluate.max_response_tokens", self.max_response_tokens),
            ("evaluate.micro_batch_size", self.micro_batch_size),
            ("evaluate.resamples", self.resamples),
            ("evaluate.calibration_bins", self.calibration_bins),
        ];
        positive(&counts)?;
        share("evaluate.confidence", self.confidence)
    }
}

/// How a preference model is measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeRecipe {
    /// Sequences computed at a time.
    pub micro_batch_size: usize,
    /// How often intervals hold what they estimate.
    pub confidence: f64,
    /// Bins of the calibration curve.
    pub calibration_bins: usize,
}

impl JudgeRecipe {
    /// Checks its numbers.
    ///
    /// # Errors
    /// With the key and the fix.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("evaluate.micro_batch_size", self.micro_batch_size),
            ("evaluate.calibration_bins", self.calibration_bins),
        ];
        positive(&counts)?;
        share("evaluate.confidence", self.confidence)
    }
}

/// A policy of the pipeline `rlhf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyName {
    /// The language model before alignment.
    Pretrained,
    /// The same behind the HHH prompt.
    Prompted,
    /// The one that the prompt was distilled into.
    Distilled,
    /// The one that PPO trained.
    Rlhf,
}

impl PolicyName {
    /// Its name in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pretrained => "pretrained",
            Self::Prompted => "prompted",
            Self::Distilled => "distilled",
            Self::Rlhf => "rlhf",
        }
    }
}

/// How finished models are measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateRecipe {
    /// The policies that are measured, in the order of the tables; Elo is relative to the first. The distilled one and that of PPO are
    /// compared with each other, so both must be among them.
    pub policies: Vec<PolicyName>,
    /// Held-out comparisons that the preference models judge, at most.
    pub comparisons: usize,
    /// Held-out prompts that every policy answers.
    pub prompts: usize,
    /// Sequences computed at a time.
    pub micro_batch_size: usize,
    /// Held-out documents for the perplexity, at most.
    pub documents: usize,
    /// Bootstrap resamples of every interval.
    pub resamples: usize,
    /// How often intervals hold what they estimate.
    pub confidence: f64,
    /// Wins and losses against each other that every two policies are given before the first, in Elo's fit.
    pub elo_prior: f64,
    /// Bins of the calibration curve.
    pub calibration_bins: usize,
    /// Dialogues shown in the report.
    pub shown: usize,
}
