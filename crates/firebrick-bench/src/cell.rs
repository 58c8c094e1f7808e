//! What is measured: the cells and their jobs.

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use firebrick_models::{
    Architecture, DecoderConfig, FeedForward, LoraConfig, ScoredDecoder, open_gguf, save_decoder, save_hugging_face,
    save_scored,
};
use firebrick_rl::ppo::PpoConfig;
use firebrick_tensor::Parameters;
use firebrick_train::{AdamWConfig, FitConfig, Schedule};
use firebrick_types::{Seed, TokenId};
use firebrick_vision::classifiers::{CnnConfig, CnnLayer, save_cnn};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// What makes a cell's work, from a folder of weights where the cell needs one.
pub type MakePlan = fn(Option<&Path>) -> Result<Plan>;

/// A row of the table, before anything is measured.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is, in words.
    pub title: &'static str,
    /// PyTorch's time over ours that is aimed at: of eager PyTorch in f32, and of the fastest of its settings.
    pub goals: [f64; 2],
    /// What makes the work.
    pub plan: MakePlan,
}

/// A model and what is done with it.
#[derive(Debug)]
pub struct Plan {
    config: Shape,
    task: Task,
    /// A file of weights; none for drawn ones.
    gguf: Option<PathBuf>,
}

/// Everything that both sides need to know of a cell beside the weights; a file that both read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The cell's name.
    pub cell: String,
    /// The shape of every model in it.
    pub config: Shape,
    /// The optimiser of every model in it.
    pub fit: FitConfig,
    /// What is done.
    pub task: Task,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Shape {
    /// Of a transformer.
    Decoder(DecoderConfig),
    /// Of a convolutional classifier.
    Cnn(CnnConfig),
}

/// What is done in a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Task {
    /// One optimiser step of next-token cross-entropy.
    Lm {
        /// The tokens of each row.
        rows: Vec<Vec<TokenId>>,
    },
    /// One optimiser step of the ranked loss and the language-model loss on the chosen sequences.
    Pairs {
        /// The preferred sequences.
        chosen: Vec<Vec<TokenId>>,
        /// The others.
        rejected: Vec<Vec<TokenId>>,
        /// Weight of the ranked loss.
        ranked_weight: f64,
        /// Weight of the language-model loss.
        lm_weight: f64,
        /// The adapters that are trained instead of all weights, which are BF16 then.
        lora: Option<LoraConfig>,
    },
    /// One optimiser step of the cross-entropy of images' labels.
    Images {
        /// `[images, height, width, channels]`, one number after another.
        pixels: Vec<f32>,
        /// The class of each.
        labels: Vec<u8>,
    },
    /// One iteration of sampling, scoring and learning.
    Ppo {
        /// What is answered.
        prompts: Vec<Vec<TokenId>>,
        /// The loop.
        ppo: PpoConfig,
        /// The end-of-context token, which the policy's weights make improbable, so that every response has its full length.
        eoc: TokenId,
    },
    /// Greedy continuations of a fixed length.
    Generate {
        /// What is continued.
        prompts: Vec<Vec<TokenId>>,
        /// Tokens of every continuation.
        new_tokens: usize,
    },
}

/// Every cell, in the order of the table.
pub const CELLS: [Cell; 9] = [
    Cell {
        name: "lm-small",
        title: "language-model step, 4 layers of 256, vocabulary 4096, 8 × 128 tokens",
        goals: [2.0, 1.5],
        plan: |_| lm(4096, 256, 4, [8, 128]),
    },
    Cell {
        name: "lm-medium",
        title: "language-model step, 6 layers of 512, vocabulary 8192, 4 × 256 tokens",
        goals: [2.0, 1.3],
        plan: |_| lm(8192, 512, 6, [4, 256]),
    },
    Cell {
        name: "pm",
        title: "preference-model step, 4 layers of 256, vocabulary 4096, 16 pairs × 128 tokens",
        goals: [2.0, 1.3],
        plan: |_| pairs(),
    },
    Cell {
        name: "ppo",
        title: "PPO iteration against TRL, 4 layers of 256, vocabulary 4096, 16 episodes of 32 + 32 tokens, 4 passes",
        goals: [2.5, 2.0],
        plan: |_| ppo(),
    },
    Cell {
        name: "generate",
        title: "greedy generation against `generate`, the model of lm-small, 16 prompts of 32 + 64 tokens",
        goals: [2.5, 2.5],
        plan: |_| generation(16),
    },
    Cell {
        name: "generate-1",
        title: "greedy generation against `generate`, the model of lm-small, 1 prompt of 32 + 64 tokens",
        goals: [4.0, 4.0],
        plan: |_| generation(1),
    },
    Cell {
        name: "smollm2",
        title: "greedy generation against `generate`, SmolLM2-135M, 1 prompt of 128 + 64 tokens",
        goals: [2.0, 1.5],
        plan: smollm2,
    },
    Cell {
        name: "smollm2-lora",
        title: "preference-model step with LoRA of rank 16, SmolLM2-135M, 4 pairs × 256 tokens",
        goals: [1.3, 1.0],
        plan: smollm2_lora,
    },
    Cell {
        name: "cnn",
        title: "classifier step, convolutions of 32 and 64, maps of 128 and 10, 128 images of 28 × 28",
        goals: [1.5, 1.2],
        plan: |_| images(),
    },
];

/// GPT-2's architecture at another size; heads of 64.
fn shape(vocab: usize, d_model: usize, n_layer: usize, context: usize) -> DecoderConfig {
    let architecture = Architecture::gpt();
    DecoderConfig { vocab, context, n_layer, d_model, heads: d_model / 64, d_ff: 4 * d_model, architecture }
}

/// Uniformly drawn tokens, `[rows, length]`.
fn rows(name: &str, [rows, length]: [usize; 2], vocab: usize) -> Vec<Vec<TokenId>> {
    let mut rng = Seed::new(7).derive(name).rng();
    let row = |_| (0..length).map(|_| rng.random_range(0..vocab as TokenId)).collect();
    (0..rows).map(row).collect()
}

fn lm(vocab: usize, d_model: usize, n_layer: usize, [batch, seq]: [usize; 2]) -> Result<Plan> {
    let task = Task::Lm { rows: rows("lm", [batch, seq], vocab) };
    Ok(Plan { config: Shape::Decoder(shape(vocab, d_model, n_layer, seq)), task, gguf: None })
}

fn pairs() -> Result<Plan> {
    let (vocab, size) = (4096, [16, 128]);
    let (chosen, rejected) = (rows("better", size, vocab), rows("worse", size, vocab));
    let task = Task::Pairs { chosen, rejected, ranked_weight: 1.0, lm_weight: 1.0, lora: None };
    Ok(Plan { config: Shape::Decoder(shape(vocab, 256, 4, size[1])), task, gguf: None })
}

fn ppo() -> Result<Plan> {
    let (vocab, prompt, response, prompts) = (4096, 32, 32, 16);
    let eoc = vocab as TokenId - 1;
    // The prompts do not hold the end of context.
    let answered = rows("prompts", [prompts, prompt], vocab - 1);
    let ppo = PpoConfig {
        iterations: 1,
        prompts_per_iteration: prompts,
        samples_per_prompt: 1,
        sequences_per_update: prompts,
        micro_batch_size: prompts,
        passes: 4,
        max_response_tokens: response,
        temperature: 1.0,
        kl_coefficient: 0.05,
        gamma: 1.0,
        lambda: 0.95,
        policy_clip: 0.2,
        value_clip: 0.2,
        policy_learning_rate: 1e-5,
        value_learning_rate: 1e-5,
        schedule: Schedule::Constant,
        clip_norm: 1.0,
        adamw: AdamWConfig { beta_2: 0.999, weight_decay: 0.0, ..AdamWConfig::default() },
    };
    let config = Shape::Decoder(shape(vocab, 256, 4, prompt + response + 1));
    Ok(Plan { config, task: Task::Ppo { prompts: answered, ppo, eoc }, gguf: None })
}

fn generation(batch: usize) -> Result<Plan> {
    let (vocab, prompt, new_tokens) = (4096, 32, 64);
    let task = Task::Generate { prompts: rows("prompts", [batch, prompt], vocab), new_tokens };
    Ok(Plan { config: Shape::Decoder(shape(vocab, 256, 4, prompt + new_tokens)), task, gguf: None })
}

/// The shape of SmolLM2-135M, and where its weights are.
fn smollm2_weights(gguf: Option<&Path>) -> Result<(DecoderConfig, PathBuf)> {
    let gguf = gguf.context("no GGUF file of SmolLM2-135M; name it with `--gguf`")?;
    let (_, config) = open_gguf(gguf, &Device::flex())?;
    Ok((config, gguf.to_owned()))
}

fn smollm2(gguf: Option<&Path>) -> Result<Plan> {
    let (config, gguf) = smollm2_weights(gguf)?;
    let task = Task::Generate { prompts: rows("prompts", [1, 128], config.vocab), new_tokens: 64 };
    Ok(Plan { config: Shape::Decoder(config), task, gguf: Some(gguf) })
}

fn smollm2_lora(gguf: Option<&Path>) -> Result<Plan> {
    let (config, gguf) = smollm2_weights(gguf)?;
    let [chosen, rejected] = ["better", "worse"].map(|name| rows(name, [4, 256], config.vocab));
    let lora = Some(LoraConfig { rank: 16, alpha: 32.0, ..LoraConfig::default() });
    let task = Task::Pairs { chosen, rejected, ranked_weight: 1.0, lm_weight: 1.0, lora };
    Ok(Plan { config: Shape::Decoder(config), task, gguf: Some(gguf) })
}

fn images() -> Result<Plan> {
    let config = CnnConfig::image(28, 28, 1).conv(32, 3, 1, 1).relu().max_pool(2, 2, 0);
    let config = config.conv(64, 3, 1, 1).relu().max_pool(2, 2, 0).linear(128).relu().linear(10);
    let mut rng = Seed::new(7).derive("images").rng();
    let images = 128;
    let pixels = (0..images * 28 * 28).map(|_| rng.random::<f32>()).collect();
    let labels = (0..images).map(|_| rng.random_range(0..10)).collect();
    Ok(Plan { config: Shape::Cnn(config), task: Task::Images { pixels, labels }, gguf: None })
}

/// What the adapters of a cell are drawn from.
pub const ADAPTERS: u64 = 12;

/// The name of a job's file in its folder.
const JOB: &str = "job.json";

impl Job {
    /// Reads the job of a folder.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(JOB);
        let json = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&json).with_context(|| format!("{} is not a job", path.display()))
    }

    /// Writes a cell's job and its models into a folder: both sides read them there.
    ///
    /// # Errors
    /// If a file cannot be written, or the weights cannot be had.
    pub fn create(cell: &Cell, plan: Plan, dir: &Path) -> Result<Self> {
        let Plan { config, task, gguf } = plan;
        let (seed, device) = (Seed::new(11), Device::flex());
        let folder = |name: &str| -> Result<PathBuf> {
            let folder = dir.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
            Ok(folder)
        };
        match (&task, &config) {
            (Task::Lm { .. }, Shape::Decoder(config)) => {
                save_decoder(&config.init(seed, &device), config, &folder("model")?)?;
            }
            (Task::Pairs { lora, .. }, Shape::Decoder(config)) => {
                let model = match &gguf {
                    // As the checkpoint was released: the bits of BF16.
                    Some(path) => ScoredDecoder::from_body(open_gguf(path, &device)?.0.half_width(), seed),
                    None => config.init_scored(seed, &device),
                };
                save_scored(&model, config, &folder("model")?)?;
                if let Some(lora) = lora {
                    let training = Device::flex().autodiff();
                    let adapted = ScoredDecoder::from_body(config.init(seed, &training), seed)
                        .with_lora(lora, Seed::new(ADAPTERS));
                    let path = dir.join("adapters.safetensors");
                    fs::write(&path, Parameters::trained(&adapted).to_bytes())
                        .with_context(|| format!("cannot write {}", path.display()))?;
                }
            }
            (Task::Ppo { eoc, .. }, Shape::Decoder(config)) => {
                let policy = Parameters::of(&config.init(seed, &device));
                let policy = improbable(policy, *eoc, config.d_model).load(config.init(seed, &device))?;
                save_decoder(&policy, config, &folder("model")?)?;
                save_hugging_face(&policy, config, &folder("hugging-face")?)?;
                let named = |name| config.init_scored(seed.derive(name), &device);
                save_scored(&named("critic"), config, &folder("critic")?)?;
                save_scored(&named("scorer"), config, &folder("scorer")?)?;
            }
            (Task::Generate { .. }, Shape::Decoder(config)) => {
                let model = match &gguf {
                    Some(path) => open_gguf(path, &device)?.0,
                    None => config.init(seed, &device),
                };
                save_decoder(&model, config, &folder("model")?)?;
                save_hugging_face(&model, config, &folder("hugging-face")?)?;
            }
            (Task::Images { .. }, Shape::Cnn(config)) => save_cnn(&config.init(seed, &device)?, &folder("model")?)?,
            _ => bail!("a job of one kind of model with another"),
        }
        let job = Self { cell: cell.name.to_owned(), config, fit: FitConfig::default(), task };
        let json = serde_json::to_vec(&job).expect("plain numbers can be written as JSON");
        fs::write(dir.join(JOB), json).context("cannot write the job")?;
        Ok(job)
    }

    /// Tokens that a step reads; of generation, tokens that it writes; of a classifier, images.
    pub fn tokens(&self) -> usize {
        let all = |rows: &[Vec<TokenId>]| rows.iter().map(Vec::len).sum::<usize>();
        match &self.task {
            Task::Lm { rows } => all(rows),
            Task::Pairs { chosen, rejected, .. } => all(chosen) + all(rejected),
            Task::Ppo { prompts, ppo, .. } => prompts.len() * ppo.max_response_tokens,
            Task::Generate { prompts, new_tokens } => prompts.len() * new_tokens,
            Task::Images { labels, .. } => labels.len(),
        }
    }

    /// Whether something is learnt.
    pub fn trains(&self) -> bool {
        !matches!(self.task, Task::Generate { .. })
    }

    /// Rows that a step can be cut into: rows of tokens, pairs, prompts or images.
    pub fn rows(&self) -> usize {
        match &self.task {
            Task::Lm { rows } => rows.len(),
            Task::Pairs { chosen, .. } => chosen.len(),
            Task::Ppo { prompts, .. } | Task::Generate { prompts, .. } => prompts.len(),
            Task::Images { labels, .. } => labels.len(),
        }
    }

    /// The floating-point operations that a step needs: products alone, attention over the causal half, nothing computed twice.
    ///
    /// ```text
    /// forward = 2 · (weights of the layers · tokens + d_model · vocab · tokens with logits) + 4 · n_layer · d_model · pairs of positions
    /// training = 3 · forward, and 2 · forward of weights that are not trained themselves
    /// ```
    pub fn operations(&self) -> f64 {
        match &self.config {
            Shape::Decoder(config) => decoder_operations(config, &self.task),
            Shape::Cnn(config) => 3.0 * self.rows() as f64 * cnn_operations(config),
        }
    }
}

fn decoder_operations(config: &DecoderConfig, task: &Task) -> f64 {
    let DecoderConfig { vocab, n_layer, d_model, d_ff, .. } = *config;
    let qkv = d_model * config.heads().all() * config.d_head();
    let fed = if config.architecture.feed_forward == FeedForward::Swiglu { 3 } else { 2 };
    let weights = (n_layer * (qkv + d_model * d_model + fed * d_model * d_ff)) as f64;
    // Of one sequence of `seq` tokens, `told` of which get logits.
    let forward = |seq: usize, told: usize| {
        let seen = (seq * (seq + 1) / 2) as f64;
        2.0 * (weights * seq as f64 + (d_model * vocab * told) as f64) + 4.0 * (n_layer * d_model) as f64 * seen
    };
    match task {
        Task::Lm { rows } => rows.iter().map(|row| 3.0 * forward(row.len(), row.len() - 1)).sum(),
        Task::Pairs { chosen, rejected, lora, .. } => {
            let chosen = chosen.iter().map(|row| forward(row.len(), row.len() - 1)).sum::<f64>();
            let passes = if lora.is_some() { 2.0 } else { 3.0 };
            passes * (chosen + rejected.iter().map(|row| forward(row.len(), 0)).sum::<f64>())
        }
        Task::Ppo { prompts, ppo, .. } => {
            let response = ppo.max_response_tokens;
            let one = |prompt: &Vec<TokenId>| {
                let seq = prompt.len() + response;
                let (told, silent) = (forward(seq, response), forward(seq, 0));
                // Sampling, then policy, reference, critic and scorer once, then the passes of policy and critic.
                told + (2.0 * told + 2.0 * silent) + 3.0 * ppo.passes as f64 * (told + silent)
            };
            prompts.iter().map(one).sum()
        }
        Task::Generate { prompts, new_tokens } => {
            prompts.iter().map(|prompt| forward(prompt.len() + new_tokens - 1, *new_tokens)).sum()
        }
        Task::Images { .. } => 0.0,
    }
}

/// Of one image, forward.
fn cnn_operations(config: &CnnConfig) -> f64 {
    let shapes = config.shapes().expect("the model was made");
    let before = std::iter::once(&config.image).chain(&shapes);
    let layers = config.layers.iter().zip(before.zip(&shapes));
    let products = layers.map(|(layer, ([height, width, channels], [down, across, out]))| match layer {
        CnnLayer::Conv { size, .. } => down * across * size * size * channels * out,
        CnnLayer::Linear { .. } => height * width * channels * out,
        _ => 0,
    });
    2.0 * products.sum::<usize>() as f64
}

/// The weights, changed so that this token is hardly ever drawn: the last norm adds a direction that its embedding opposes.
fn improbable(weights: Parameters, token: TokenId, d_model: usize) -> Parameters {
    let direction = 1.0 / (d_model as f32).sqrt();
    let mut changed = Parameters::default();
    for (name, shape, values) in weights.iter() {
        let mut values = values.to_vec();
        match name {
            "ln_f.bias" => values.fill(4.0 * direction),
            "wte.weight" => values[token as usize * d_model..][..d_model].fill(-6.0 * direction),
            _ => {}
        }
        changed.insert(name.to_owned(), shape.to_vec(), values);
    }
    changed
}
