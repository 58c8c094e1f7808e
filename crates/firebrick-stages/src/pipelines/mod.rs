//! The pipelines, each built from stages by its recipe.

pub mod rlhf;
pub mod vision;

use std::path::Path;

use anyhow::Result;
use firebrick_data::hub;
use firebrick_pipeline::Pipeline;
use firebrick_types::Measured;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Env, recipe};

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
    /// The built-in recipe that is usual without a folder of data, and that with one.
    const USUAL: [&'static str; 2];
    /// What it takes from a dataset of the hub.
    const DATA: hub::Wanted;

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

    /// Quantities that follow from the recipe, a line each.
    fn derived(&self) -> Vec<String> {
        Vec::new()
    }

    /// What a finished run found.
    ///
    /// # Errors
    /// If the run is not finished.
    fn results(run: &Path) -> Result<Results>;
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
    /// The recipe that is usual without a folder of data, and that with one.
    pub usual: [&'static str; 2],
    /// What it takes from a dataset of the hub.
    pub data: hub::Wanted,
    load: Load,
    results: fn(&Path) -> Result<Results>,
}

/// All pipelines.
pub const ALL: &[Entry] = &[Entry::of::<rlhf::Recipe>(), Entry::of::<vision::Recipe>()];

/// A recipe that was read and checked.
pub trait Loaded {
    /// The stages that it asks for.
    ///
    /// # Errors
    /// If something outside that the recipe names is not there.
    fn pipeline(&self, env: &Env) -> Result<Pipeline<Env>>;

    /// Quantities that follow from it, a line each.
    fn derived(&self) -> Vec<String>;

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

    fn derived(&self) -> Vec<String> {
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
            usual: R::USUAL,
            data: R::DATA,
            load: |name, settings| {
                let recipe: R = recipe::load(name, R::BUILT_IN, settings)?;
                recipe.validate()?;
                Ok(Box::new(recipe))
            },
            results: R::results,
        }
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
