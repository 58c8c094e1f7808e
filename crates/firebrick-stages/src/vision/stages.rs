//! Stages `images`, `cnn` and `model`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use burn::module::Module;
use firebrick_pipeline::{BoxError, Output, Stage, StageContext, digest};
use firebrick_tensor::Workers;
use firebrick_train::{AdamWConfig, FitConfig, Schedule};
use firebrick_types::Seed;
use firebrick_vision::baselines::denoise;
use firebrick_vision::classifiers::{self, ClassifierConfig, CnnConfig, accuracy, save_cnn};
use firebrick_vision::generative::{DecoderMode, GenerativeConfig, GenerativeModel, Network, PriorConfig};
use firebrick_vision::images::degradations::Occluder;
use firebrick_vision::images::glyphs::glyphs;
use firebrick_vision::images::{Folder, Images, TrainTest, files, read_folder, write_idx};
use rand::RngExt;
use serde::Serialize;

use super::artifacts::{Denoiser, Generative, Pictures, TrainedClassifier};
use super::recipe::{CnnRecipe, DataRecipe, JudgeRecipe, ModelRecipe, Recipe, SMALLEST};
use crate::Env;
use crate::artifacts::write_json;
use crate::language::keep_metrics;

/// Pictures of a folder, or made up.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Collect {
    seed: u64,
    data: DataRecipe,
}

impl Collect {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { seed: recipe.seed, data: recipe.data }
    }
}

impl Stage<Env> for Collect {
    const VERSION: u32 = 1;
    type Inputs = ();
    type Output = Pictures;

    fn external(&self, env: &Env) -> Result<BTreeMap<String, String>, BoxError> {
        let Some(dir) = &env.data else { return Ok(BTreeMap::new()) };
        let fingerprint = |path: &PathBuf| {
            let name = path.strip_prefix(dir).unwrap_or(path);
            Ok((name.display().to_string(), digest(path)?))
        };
        files(dir)?.iter().map(fingerprint).collect()
    }

    fn run(&self, (): (), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        let DataRecipe { train, validation, test } = self.data;
        let found = match &env.data {
            Some(dir) => {
                let Folder { images, composited } = read_folder(dir)?;
                if composited > 0 {
                    tracing::info!("  {composited} pictures have transparent pixels: they lie over black");
                }
                images
            }
            None => {
                let seed = Seed::new(self.seed).derive("vision/glyphs");
                TrainTest { train: glyphs(train, seed.derive("train")), test: glyphs(test, seed.derive("test")) }
            }
        };
        let (train, test) = (train.min(found.train.len()), test.min(found.test.len()));
        let known = train.saturating_sub(validation);
        let parts = [
            (Pictures::TRAIN, found.train.chosen(0..known)),
            (Pictures::VALIDATION, found.train.chosen(known..train)),
            (Pictures::TEST, found.test.chosen(0..test)),
        ];
        check(&parts.each_ref().map(|(_, pictures)| pictures))?;
        for (part, pictures) in parts {
            write_idx(&pictures, ctx.artifact(), part)?;
        }
        Ok(())
    }
}

/// The most pictures that a canvas takes.
const FEWEST: usize = 4;

/// Whether these are pictures to learn from, to choose constants on and to measure on: told here, before anything is trained.
fn check([train, validation, test]: &[&Images; 3]) -> Result<()> {
    let ([height, width, _], known, chosen) = (train.size(), train.len(), validation.len());
    if known == 0 {
        let tenth = (chosen / 10).max(FEWEST);
        let told = format!("`data.validation` takes all {chosen} pictures to learn from");
        bail!("{told}: `--set data.validation={tenth}` leaves the others");
    }
    if test.size() != train.size() {
        let [rows, columns, _] = test.size();
        bail!("pictures to learn from have {height} x {width} pixels, those to measure on {rows} x {columns}");
    }
    if height.min(width) < SMALLEST {
        bail!("pictures of {height} x {width} pixels; masks hide squares of {SMALLEST}");
    }
    if test.len().min(chosen) < FEWEST {
        let told = format!("{} pictures to measure on and {chosen} to choose constants on", test.len());
        bail!("{told}; a canvas takes {FEWEST}: raise `data.test` and `data.validation`");
    }
    let labels = || [train, validation, test].into_iter().flat_map(|pictures| pictures.labels());
    let last = labels().copied().max().unwrap_or(0);
    if let Some(class) = (0..=last).find(|class| !train.labels().contains(class)) {
        let told = format!("none of {known} pictures to learn from is of class {class}");
        bail!("{told}, and there are classes up to {last}: count labels from 0 on, without gaps");
    }
    if last == 0 {
        bail!("all pictures are of class 0: two classes at least are needed, to tell them apart");
    }
    Ok(())
}

/// The classifier.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Train {
    /// What its seed is derived for.
    name: &'static str,
    /// Whether it learns from pictures under masks.
    masked: bool,
    seed: u64,
    cnn: CnnRecipe,
}

impl Train {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { name: "vision/cnn", masked: false, seed: recipe.seed, cnn: recipe.cnn.clone() }
    }

    /// Another classifier of the same pictures, who judges what the model draws: other windows, another width, another seed.
    pub(crate) fn judge(recipe: &Recipe) -> Self {
        let JudgeRecipe { channels, size } = recipe.judge.clone();
        let cnn = CnnRecipe { channels, size, ..recipe.cnn.clone() };
        Self { name: "vision/judge", masked: false, seed: recipe.seed, cnn }
    }
}

impl Train {
    /// The same classifier, that learns twice as long from pictures under the families of masks that questions are asked with.
    pub(crate) fn masked(recipe: &Recipe) -> Self {
        let cnn = CnnRecipe { epochs: 2 * recipe.cnn.epochs, ..recipe.cnn.clone() };
        Self { name: "vision/masked", masked: true, seed: recipe.seed, cnn }
    }
}

impl CnnRecipe {
    /// The convolutions, each with its rectifier and pool.
    fn features(&self, plan: CnnConfig) -> CnnConfig {
        let block = |plan: CnnConfig, channels: &usize| {
            plan.conv(*channels, self.size, 1, self.size / 2).relu().max_pool(2, 2, 0)
        };
        self.channels.iter().fold(plan, block)
    }

    /// So many passes over the pictures, which are so many samples.
    fn config(&self, epochs: u64, samples: u64) -> ClassifierConfig {
        let fit = FitConfig {
            learning_rate: self.learning_rate,
            schedule: Schedule::Cosine {
                warmup: samples * self.warmup_percent / 100,
                total: samples,
                floor: self.learning_rate_floor,
            },
            adamw: AdamWConfig::default(),
            ..FitConfig::default()
        };
        let Self { batch_size, micro_batch_size, shift, .. } = *self;
        ClassifierConfig { epochs, batch_size, micro_batch_size, shift, fit }
    }
}

/// So many copies of every picture, each under a mask of any family, or none.
fn under_masks(pictures: &Images, copies: u64, seed: Seed) -> Images {
    let [height, width, channels] = pictures.size();
    let mut masked = Images::new(pictures.size());
    for copy in 0..copies {
        for index in 0..pictures.len() {
            let seed = seed.at(&[copy, index as u64]);
            let family = seed.derive("family").rng().random_range(0..=Occluder::ALL.len());
            let mut picture = pictures.image(index).to_vec();
            if let Some(occluder) = Occluder::ALL.get(family) {
                let seen = occluder.mask(height, width, seed);
                let hidden = picture.chunks_exact_mut(channels).zip(seen).filter(|(_, seen)| !seen);
                hidden.for_each(|(pixel, _)| pixel.fill(0));
            }
            masked.push(&picture, pictures.labels()[index]);
        }
    }
    masked
}

impl Stage<Env> for Train {
    const VERSION: u32 = 1;
    type Inputs = (Output<Pictures>,);
    type Output = TrainedClassifier;

    fn run(&self, (pictures,): (Pictures,), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        let TrainTest { train, test } = pictures.train_test()?;
        let [height, width, channels] = train.size();
        let features = self.cnn.features(CnnConfig::image(height, width, channels));
        let plan = features.linear(self.cnn.hidden).relu().linear(train.classes());
        let seed = Seed::new(self.seed).derive(self.name);
        let samples = self.cnn.epochs * train.len() as u64;
        // Every passage sees other masks.
        let (train, epochs) =
            if self.masked { (under_masks(&train, self.cnn.epochs, seed), 1) } else { (train, self.cnn.epochs) };
        let config = self.cnn.config(epochs, samples);
        let cnn = plan.init(seed, &env.device.clone().autodiff()).context("`cnn` does not fit the pictures")?;
        // What cannot be modelled is not worth training.
        let told = || format!("pictures of {height} x {width} pixels");
        Network::of(cnn.valid()).with_context(told)?;
        let run = env.run(ctx, seed);
        let cnn = classifiers::fit(cnn, &train, &config, run)?.valid();
        save_cnn(&cnn, ctx.artifact())?;
        keep_metrics(ctx)?;
        let accuracy = accuracy(&cnn, &test, self.cnn.micro_batch_size, &Workers::default());
        write_json(&ctx.artifact().join(TrainedClassifier::ACCURACY), &accuracy)?;
        Ok(())
    }
}

/// A network that draws what masks hide, trained for nothing else.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Denoise {
    seed: u64,
    cnn: CnnRecipe,
}

impl Denoise {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { seed: recipe.seed, cnn: recipe.cnn.clone() }
    }
}

impl Stage<Env> for Denoise {
    const VERSION: u32 = 1;
    type Inputs = (Output<Pictures>,);
    type Output = Denoiser;

    fn run(&self, (pictures,): (Pictures,), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        let train = pictures.train_test()?.train;
        let [height, width, channels] = train.size();
        let seed = Seed::new(self.seed).derive("vision/denoiser");
        let cnn = self.cnn.features(CnnConfig::image(height, width, channels + 1));
        let plan = cnn.linear(2 * self.cnn.hidden).relu().linear(height * width * channels);
        let epochs = 2 * self.cnn.epochs;
        let config = self.cnn.config(epochs, epochs * train.len() as u64);
        let model = plan.init(seed, &env.device.clone().autodiff()).context("`cnn` does not fit the pictures")?;
        let mask = |seed: Seed| {
            let family = seed.derive("family").rng().random_range(0..Occluder::ALL.len());
            Occluder::ALL[family].mask(height, width, seed)
        };
        let run = env.run(ctx, seed);
        let model = denoise::fit(model, &train, mask, &config, run)?.valid();
        save_cnn(&model, ctx.artifact())?;
        keep_metrics(ctx)?;
        Ok(())
    }
}

/// The generative model.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fit {
    seed: u64,
    model: ModelRecipe,
}

impl Fit {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { seed: recipe.seed, model: recipe.model }
    }
}

impl Stage<Env> for Fit {
    const VERSION: u32 = 3;
    type Inputs = (Output<Pictures>, Output<TrainedClassifier>);
    type Output = Generative;

    fn run(
        &self,
        (pictures, classifier): (Pictures, TrainedClassifier),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let ModelRecipe { factors, components, em_iterations, images, shift, robust, ridge } = self.model;
        let prior = PriorConfig { factors, components, em_iterations };
        let config =
            GenerativeConfig { decoder: DecoderMode::Robust { alpha: ridge, rounds: robust }, prior, shift, images };
        let train = pictures.train_test()?.train;
        let seed = Seed::new(self.seed).derive("vision/model");
        GenerativeModel::fit(classifier.cnn(&env.device)?, &train, &config, seed)?.save(ctx.artifact())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of these labels and of this side.
    fn of(side: usize, labels: &[u8]) -> Images {
        Images::of([side, side, 1], vec![0; side * side * labels.len()], labels.to_vec())
    }

    #[test]
    fn pictures_that_cannot_be_learnt_from_or_measured_on_are_refused_beforehand() {
        let (four, none) = (of(SMALLEST, &[0, 1, 1, 0]), of(SMALLEST, &[]));
        assert!(check(&[&four; 3]).is_ok());
        let told = |pictures: [&Images; 3]| check(&pictures).unwrap_err().to_string();
        let hundred = of(SMALLEST, &[1; 100]);
        let validation =
            "`data.validation` takes all 100 pictures to learn from: `--set data.validation=10` leaves the others";
        assert_eq!(told([&none, &hundred, &four]), validation);
        let large = of(28, &[0, 1, 0, 1]);
        let sizes = "pictures to learn from have 16 x 16 pixels, those to measure on 28 x 28";
        assert_eq!(told([&four, &four, &large]), sizes);
        let small = of(12, &[0, 1, 0, 1]);
        assert_eq!(told([&small; 3]), "pictures of 12 x 12 pixels; masks hide squares of 16");
        let few = of(SMALLEST, &[0, 1]);
        assert!(told([&four, &four, &few]).starts_with("2 pictures to measure on and 4 to choose constants on; "));
        let gap = of(SMALLEST, &[0, 2, 2, 0]);
        let classes = "none of 4 pictures to learn from is of class 1, and there are classes up to 2: \
                       count labels from 0 on, without gaps";
        assert_eq!(told([&gap; 3]), classes);
        assert!(told([&four, &four, &gap]).starts_with("none of 4 pictures to learn from is of class 2, "));
        let one = of(SMALLEST, &[0; 4]);
        assert!(told([&one; 3]).starts_with("all pictures are of class 0: "));
    }
}
