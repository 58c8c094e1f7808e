//! The numbers of a run.

use anyhow::{Result, bail};
use firebrick_data::synthetic::WorldConfig;
use firebrick_kernels::Precision;
use firebrick_models::{Architecture, DecoderConfig, LoraConfig};
use firebrick_rl::ppo::PpoConfig;
use firebrick_train::{AdamWConfig, FitConfig, Schedule};
use serde::{Deserialize, Serialize};

/// The numbers of a run of `hh`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    pub(crate) seed: u64,
    pub(crate) base: BaseRecipe,
    pub(crate) data: DataRecipe,
    pub(crate) tokenizer: TokenizerRecipe,
    pub(crate) model: ModelRecipe,
    pub(crate) pretrain: TrainRecipe,
    pub(crate) distill: DistillRecipe,
    pub(crate) pmp: PmpRecipe,
    pub(crate) pm: PairRecipe,
    pub(crate) ppo: PpoConfig,
    pub(crate) evaluate: EvaluateRecipe,
}

/// What the models begin with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BaseRecipe {
    /// A checkpoint: a folder, a `.gguf` file or `hub:owner/name`; its tokenizer and template come with it. Empty: pretrain one.
    pub(crate) model: String,
    /// Rank of the adapters that are trained instead of all weights; 0 trains all.
    pub(crate) lora_rank: usize,
    /// What the adapters add is scaled by this over the rank.
    pub(crate) lora_alpha: f64,
}

impl BaseRecipe {
    /// The checkpoint to begin with, if one was named.
    pub(crate) fn checkpoint(&self) -> Option<&str> {
        (!self.model.is_empty()).then_some(self.model.as_str())
    }

    /// How the models are adapted, unless all of their weights are trained.
    pub(crate) fn lora(&self) -> Option<LoraConfig> {
        let Self { lora_rank: rank, lora_alpha: alpha, .. } = *self;
        (rank > 0).then(|| LoraConfig { rank, alpha, ..LoraConfig::default() })
    }
}

/// How much data is taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataRecipe {
    /// Share of documents, and of the world's conversations, held out.
    pub(crate) held_out: f64,
    /// Documents of text, at most; the preferred dialogues of a folder's training comparisons are read beside them.
    pub(crate) documents: usize,
    /// Longest document, in characters; longer ones are cut at paragraphs.
    pub(crate) document_characters: usize,
    /// Comparisons, at most.
    pub(crate) comparisons: usize,
    /// Questions with answers, at most.
    pub(crate) threads: usize,
    /// Two-way evaluation items of the built-in world.
    pub(crate) hhh_items: usize,
    /// Example conversations of the world's HHH prompt; for data from a folder 1 is the short prompt, 14 the full one.
    pub(crate) prompt_conversations: usize,
    /// The built-in world.
    pub(crate) world: WorldConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizerRecipe {
    /// Tokens, at most.
    pub(crate) vocab: usize,
}

/// The shape of every model.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelRecipe {
    pub(crate) n_layer: usize,
    pub(crate) d_model: usize,
    pub(crate) heads: usize,
    pub(crate) d_ff: usize,
    pub(crate) context: usize,
    /// What linear maps round their factors to, `f32` (not at all) or `bf16`.
    pub(crate) precision: Precision,
}

impl ModelRecipe {
    pub(crate) fn config(&self, vocab: usize) -> DecoderConfig {
        let Self { n_layer, d_model, heads, d_ff, context, precision } = *self;
        let architecture = Architecture { precision, ..Architecture::gpt() };
        DecoderConfig { vocab, context, n_layer, d_model, heads, d_ff, architecture }
    }
}

/// How a learning rate falls after its warm-up.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decay {
    /// Not at all (the papers' preference models).
    Constant,
    /// Half a cosine to this share of the peak (GPT-3's pretraining: a tenth).
    Cosine { floor: f64 },
    /// A line to zero (the papers' distillation).
    Linear,
}

/// How samples are learnt from.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainRecipe {
    /// Samples of one step.
    pub(crate) batch_size: usize,
    /// Samples computed at a time.
    pub(crate) micro_batch_size: usize,
    /// Peak learning rate.
    pub(crate) learning_rate: f64,
    /// Samples until it is reached.
    pub(crate) warmup: u64,
    /// How often all samples are taken.
    pub(crate) passes: usize,
    /// How it falls.
    pub(crate) decay: Decay,
    /// Gradients longer than this are scaled down to it.
    pub(crate) clip_norm: f64,
    /// The optimiser.
    pub(crate) adamw: AdamWConfig,
}

impl TrainRecipe {
    /// The optimisation of all passes over this many samples.
    pub(crate) fn fit(&self, samples: usize) -> FitConfig {
        let (warmup, total) = (self.warmup, (self.passes * samples) as u64);
        let schedule = match self.decay {
            Decay::Constant => Schedule::Warmup { warmup },
            Decay::Cosine { floor } => Schedule::Cosine { warmup, total, floor },
            Decay::Linear => Schedule::Linear { warmup, total },
        };
        FitConfig { learning_rate: self.learning_rate, schedule, clip_norm: self.clip_norm, adamw: self.adamw }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistillRecipe {
    /// Texts, half of them documents and half dialogues.
    pub(crate) texts: usize,
    /// Longest text, in tokens.
    pub(crate) max_tokens: usize,
    /// Tokens of the teacher's distribution that are kept.
    pub(crate) top_k: usize,
    /// The optimiser; samples are texts.
    pub(crate) train: TrainRecipe,
}

/// Unknown keys are found where recipes are loaded: serde cannot deny them beside flattened fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PmpRecipe {
    /// Whether each pair becomes two that differ in a label alone, or is ranked as it is.
    pub(crate) binarize: bool,
    /// How it is learned.
    #[serde(flatten)]
    pub(crate) pairs: PairRecipe,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PairRecipe {
    /// Weight of the ranked loss (λ of A-33).
    pub(crate) ranked_weight: f64,
    /// Weight of the language-model loss (μ of A-33).
    pub(crate) lm_weight: f64,
    /// The optimiser; samples are pairs.
    pub(crate) train: TrainRecipe,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvaluateRecipe {
    /// Held-out comparisons that the preference models judge, at most.
    pub(crate) comparisons: usize,
    /// Held-out prompts that every policy answers.
    pub(crate) prompts: usize,
    /// Sequences computed at a time.
    pub(crate) micro_batch_size: usize,
    /// Held-out documents for the perplexity, at most.
    pub(crate) documents: usize,
    /// Bootstrap resamples of every interval.
    pub(crate) resamples: usize,
    /// How often intervals hold what they estimate.
    pub(crate) confidence: f64,
    /// Wins and losses against each other that every two policies are given before the first, in Elo's fit.
    pub(crate) elo_prior: f64,
    /// Bins of the calibration curve.
    pub(crate) calibration_bins: usize,
    /// Dialogues shown in the report.
    pub(crate) shown: usize,
}

impl Recipe {
    /// Checks that the numbers can work before anything is computed.
    ///
    /// # Errors
    /// With the key and the fix.
    pub(crate) fn validate(&self) -> Result<()> {
        self.model.config(1).validate()?;
        self.data.world.validate()?;
        let positive = [
            ("data.documents", self.data.documents),
            ("data.document_characters", self.data.document_characters),
            ("data.comparisons", self.data.comparisons),
            ("data.threads", self.data.threads),
            ("pretrain.batch_size", self.pretrain.batch_size),
            ("pretrain.micro_batch_size", self.pretrain.micro_batch_size),
            ("pretrain.passes", self.pretrain.passes),
            ("distill.texts", self.distill.texts),
            ("distill.top_k", self.distill.top_k),
            ("distill.train.batch_size", self.distill.train.batch_size),
            ("distill.train.micro_batch_size", self.distill.train.micro_batch_size),
            ("distill.train.passes", self.distill.train.passes),
            ("pmp.train.batch_size", self.pmp.pairs.train.batch_size),
            ("pmp.train.micro_batch_size", self.pmp.pairs.train.micro_batch_size),
            ("pmp.train.passes", self.pmp.pairs.train.passes),
            ("pm.train.batch_size", self.pm.train.batch_size),
            ("pm.train.micro_batch_size", self.pm.train.micro_batch_size),
            ("pm.train.passes", self.pm.train.passes),
            ("ppo.prompts_per_iteration", self.ppo.prompts_per_iteration),
            ("ppo.samples_per_prompt", self.ppo.samples_per_prompt),
            ("ppo.sequences_per_update", self.ppo.sequences_per_update),
            ("ppo.micro_batch_size", self.ppo.micro_batch_size),
            ("ppo.passes", self.ppo.passes),
            ("ppo.max_response_tokens", self.ppo.max_response_tokens),
            ("evaluate.comparisons", self.evaluate.comparisons),
            ("evaluate.prompts", self.evaluate.prompts),
            ("evaluate.documents", self.evaluate.documents),
            ("evaluate.micro_batch_size", self.evaluate.micro_batch_size),
            ("evaluate.resamples", self.evaluate.resamples),
            ("evaluate.calibration_bins", self.evaluate.calibration_bins),
        ];
        if let Some((key, _)) = positive.into_iter().find(|&(_, number)| number == 0) {
            bail!("recipe: `{key}` is 0; it must be at least 1");
        }
        if !(0.0 < self.data.held_out && self.data.held_out < 1.0) {
            bail!("recipe: `data.held_out` is {}; it must lie between 0 and 1", self.data.held_out);
        }
        if self.tokenizer.vocab < 257 {
            bail!(
                "recipe: `tokenizer.vocab` is {}; 256 bytes and the end of context need at least 257",
                self.tokenizer.vocab
            );
        }
        if self.base.lora_rank > 0 && self.base.checkpoint().is_none() {
            bail!(
                "recipe: `base.lora_rank` = {} adapts weights that were never trained; name a checkpoint in `base.model`, or set \
                 it to 0",
                self.base.lora_rank
            );
        }
        let comparisons = self.data.comparisons as f64 * (1.0 - self.data.held_out) / 2.0;
        for (key, batch, samples) in [
            ("distill.train.batch_size", self.distill.train.batch_size, self.distill.texts as f64),
            ("pm.train.batch_size", self.pm.train.batch_size, comparisons),
        ] {
            if batch as f64 > samples {
                bail!(
                    "recipe: `{key}` = {batch} is larger than its data, {samples:.0} samples; lower it or take more data"
                );
            }
        }
        if self.ppo.max_response_tokens + 2 >= self.model.context {
            bail!(
                "recipe: `ppo.max_response_tokens` = {} leaves no room for a prompt in `model.context` = {}",
                self.ppo.max_response_tokens,
                self.model.context
            );
        }
        if self.ppo.temperature <= 0.0 || self.ppo.temperature.is_nan() {
            bail!("recipe: `ppo.temperature` is {}; it must be above 0", self.ppo.temperature);
        }
        Ok(())
    }
}
