//! The pipelines, each built from stages by its recipe.

pub mod distill;
pub mod evaluate;
mod export;
pub mod pmp;
pub mod reward;
pub mod rl;
pub mod rlhf;
pub mod sft;
pub mod vision;

use std::path::Path;

use anyhow::{Result, bail};
use firebrick_data::hub;
use firebrick_pipeline::{Pipeline, open};
use firebrick_rl::ppo::PpoConfig;
use firebrick_types::Measured;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::measurements::Measurements;
use crate::{BadInput, Env, recipe};

pub use export::export;

/// The recipe of a pipeline: every number that bears on its results.
pub trait Recipe: Serialize + DeserializeOwned + 'static {
    /// The pipeline's name.
    const NAME: &'static str;
    /// What it does, in a line.
    const ABOUT: &'static str;
    /// The built-in recipes, name and text; each has every key.
    const BUILT_IN: &'static [(&'static str, &'static str)];
    /// The expected bands of metrics, for the built-in recipes that have them.
    const BANDS: &'static [(&'static str, &'static str)] = &[];
    /// What it is given beside its recipe.
    const INPUTS: &'static [Input];
    /// Commands that show how it is used, without the program's name and `pipeline`, each with what it does.
    const EXAMPLES: &'static [(&'static str, &'static str)];

    /// The built-in recipe that is usual where these inputs are given.
    fn usual(given: &[&str]) -> &'static str;

    /// Checks that the numbers can work before anything is computed.
    ///
    /// # Errors
    /// With the key and the fix.
    fn validate(&self) -> Result<()>;

    /// The stages, the last of which writes the report.
    ///
    /// # Errors
    /// If something outside that the recipe names is not there.
    fn pipeline(&self, env: &Env) -> Result<Pipeline<Env>>;

    /// Quantities that follow from the recipe, a line each: what a plan shows.
    ///
    /// # Errors
    /// If something outside that the recipe names is not there.
    fn derived(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What a finished run found: usually the measurements of its stage `evaluate`.
    ///
    /// # Errors
    /// If the run is not finished.
    fn results(run: &Path) -> Result<Results> {
        let measurements: Measurements = open(run, "evaluate")?;
        Ok(Results { summary: measurements.summary(), metrics: measurements.metrics })
    }

    /// The stage whose model is the run's, if it makes one.
    const MADE: Option<Made> = None;
}

/// What a pipeline is given beside its recipe, by an option of its name.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Its name.
    pub name: &'static str,
    /// What may stand there, for a help text.
    pub value: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Whether nothing goes without it.
    pub required: bool,
    /// What becomes of it.
    pub goes: Goes,
}

impl Input {
    /// The checkpoint that a model begins with.
    pub const MODEL: Self = Self {
        name: "model",
        value: "DIR|FILE|hub:REPO",
        about: "A checkpoint to begin with: a folder of transformers, a GGUF file, a stage of a run; default: a small model from nothing",
        required: false,
        goes: Goes::Setting("base.model"),
    };
}

/// What becomes of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    /// It is the text of this key of the recipe.
    Setting(&'static str),
    /// It may be repeated, and all of it is the list of this key of the recipe.
    Settings(&'static str),
    /// It is the data: a file or a folder, or of a dataset of the hub what is wanted.
    Data(hub::Wanted),
    /// It is another file, which stages find under the input's name.
    File,
}

impl Goes {
    /// Whether it may be given more than once.
    pub fn is_many(self) -> bool {
        matches!(self, Self::Settings(_))
    }
}

/// The model that a pipeline makes, for `OUT/model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The language model of this stage.
    LanguageModel(&'static str),
    /// The preference model (reward model) of this stage.
    PreferenceModel(&'static str),
}

/// What a finished run found.
#[derive(Clone, Debug)]
pub struct Results {
    /// The main results in lines and tables.
    pub summary: String,
    /// Every number that may have a band.
    pub metrics: Vec<Measured>,
}

/// Reads a recipe, a built-in one by its name or a file by its path, with settings over it.
type Load = fn(&str, &[String]) -> Result<Box<dyn Loaded>>;

/// A pipeline whose recipe's type is forgotten: what a command knows of it.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// The built-in recipes, name and text.
    pub built_in: &'static [(&'static str, &'static str)],
    /// The expected bands of metrics, by recipe.
    pub bands: &'static [(&'static str, &'static str)],
    /// What it is given beside its recipe.
    pub inputs: &'static [Input],
    /// Commands that show how it is used, each with what it does.
    pub examples: &'static [(&'static str, &'static str)],
    /// The model that it makes.
    pub made: Option<Made>,
    usual: fn(&[&str]) -> &'static str,
    load: Load,
    results: fn(&Path) -> Result<Results>,
}

/// All pipelines.
pub const ALL: &[Entry] = &[
    Entry::of::<rlhf::Recipe>(),
    Entry::of::<sft::Recipe>(),
    Entry::of::<reward::Recipe>(),
    Entry::of::<pmp::Recipe>(),
    Entry::of::<distill::Recipe>(),
    Entry::of::<rl::Recipe>(),
    Entry::of::<evaluate::Recipe>(),
    Entry::of::<vision::Recipe>(),
];

/// A recipe that was read and checked.
pub trait Loaded {
    /// The stages that it asks for.
    ///
    /// # Errors
    /// If something outside that the recipe names is not there.
    fn pipeline(&self, env: &Env) -> Result<Pipeline<Env>>;

    /// Quantities that follow from it, a line each.
    ///
    /// # Errors
    /// If something outside that the recipe names is not there.
    fn derived(&self) -> Result<Vec<String>>;

    /// It, as a file has it.
    ///
    /// # Errors
    /// If it cannot be written as TOML.
    fn to_toml(&self) -> Result<String>;
}

impl<R: Recipe> Loaded for R {
    fn pipeline(&self, env: &Env) -> Result<Pipeline<Env>> {
        Recipe::pipeline(self, env)
    }

    fn derived(&self) -> Result<Vec<String>> {
        Recipe::derived(self)
    }

    fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

impl Entry {
    /// What a command knows of a pipeline.
    const fn of<R: Recipe>() -> Self {
        Self {
            name: R::NAME,
            about: R::ABOUT,
            built_in: R::BUILT_IN,
            bands: R::BANDS,
            inputs: R::INPUTS,
            examples: R::EXAMPLES,
            made: R::MADE,
            usual: R::usual,
            load: |name, settings| {
                let recipe: R = recipe::load(name, R::BUILT_IN, settings).map_err(|error| BadInput::of(&error))?;
                recipe.validate().map_err(|error| BadInput::of(&error))?;
                Ok(Box::new(recipe))
            },
            results: R::results,
        }
    }

    /// The built-in recipe that is usual where these inputs are given.
    pub fn usual(&self, given: &[&str]) -> &'static str {
        (self.usual)(given)
    }

    /// A recipe by the name of a built-in one or the path of a file, with settings such as `ppo.iterations=10` laid over it, checked.
    ///
    /// # Errors
    /// If there is no such recipe, a key is unknown, missing or of another type, or a number cannot work.
    pub fn load(&self, recipe: &str, settings: &[String]) -> Result<Box<dyn Loaded>> {
        (self.load)(recipe, settings)
    }

    /// What a finished run found.
    ///
    /// # Errors
    /// If the run is not finished.
    pub fn results(&self, run: &Path) -> Result<Results> {
        (self.results)(run)
    }
}

/// The pipeline of this name.
pub fn named(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

/// Checks the numbers of PPO.
///
/// # Errors
/// With the key and the fix.
fn validate_ppo(ppo: &PpoConfig, context: usize) -> Result<()> {
    let counts = [
        ("ppo.prompts_per_iteration", ppo.prompts_per_iteration),
        ("ppo.samples_per_prompt", ppo.samples_per_prompt),
        ("ppo.sequences_per_update", ppo.sequences_per_update),
        ("ppo.micro_batch_size", ppo.micro_batch_size),
        ("ppo.passes", ppo.passes),
        ("ppo.max_response_tokens", ppo.max_response_tokens),
    ];
    recipe::positive(&counts)?;
    if ppo.max_response_tokens + 2 >= context {
        bail!(
            "recipe: `ppo.max_response_tokens` = {} leaves no room for a prompt in `model.context` = {context}",
            ppo.max_response_tokens
        );
    }
    if ppo.temperature <= 0.0 || ppo.temperature.is_nan() {
        bail!("recipe: `ppo.temperature` is {}; it must be above 0", ppo.temperature);
    }
    Ok(())
}
