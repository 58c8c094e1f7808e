//! The recipe of `vision`.

use anyhow::{Result, bail};
use firebrick_vision::generative::{CompleteConfig, Descent, ImputeConfig, MapConfig, SweepConfig};
use serde::{Deserialize, Serialize};

/// The numbers of a run of `vision`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    pub(crate) seed: u64,
    pub(crate) data: DataRecipe,
    pub(crate) cnn: CnnRecipe,
    pub(crate) judge: JudgeRecipe,
    pub(crate) model: ModelRecipe,
    pub(crate) sweep: SweepRecipe,
    pub(crate) complete: CompleteRecipe,
    pub(crate) baselines: BaselinesRecipe,
    pub(crate) descent: DescentRecipe,
    pub(crate) unknown: UnknownRecipe,
    pub(crate) overlap: OverlapRecipe,
    pub(crate) clutter: ClutterRecipe,
}

/// How many pictures.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataRecipe {
    /// To learn from, at most.
    pub(crate) train: usize,
    /// Taken from the end of the training pictures, to choose constants on.
    pub(crate) validation: usize,
    /// To measure on, at most.
    pub(crate) test: usize,
}

/// The classifier and its training.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CnnRecipe {
    /// Channels of each convolution; each is followed by a rectifier and a pool of 2 x 2.
    pub(crate) channels: Vec<usize>,
    /// Pixels on each side of their windows, an odd number.
    pub(crate) size: usize,
    /// Width of the hidden linear map.
    pub(crate) hidden: usize,
    pub(crate) epochs: u64,
    pub(crate) batch_size: usize,
    pub(crate) micro_batch_size: usize,
    /// Pixels that a picture is moved by at most.
    pub(crate) shift: usize,
    /// At its peak.
    pub(crate) learning_rate: f64,
    /// Of a hundred samples those in which the learning rate rises.
    pub(crate) warmup_percent: u64,
    /// What it falls to, as a share of the peak.
    pub(crate) learning_rate_floor: f64,
}

/// Another classifier of the same pictures, who judges what the model draws: what it has otherwise than the first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JudgeRecipe {
    /// Channels of each convolution.
    pub(crate) channels: Vec<usize>,
    /// Pixels on each side of their windows, an odd number.
    pub(crate) size: usize,
}

/// The generative model.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelRecipe {
    /// Factors of each component of the prior.
    pub(crate) factors: usize,
    /// Components of each class.
    pub(crate) components: usize,
    /// Iterations of expectation and maximisation.
    pub(crate) em_iterations: usize,
    /// Pictures that are looked at, at most.
    pub(crate) images: usize,
    /// Pixels that a picture is moved by at most.
    pub(crate) shift: usize,
    /// How often decoders are fitted anew under masks.
    pub(crate) robust: usize,
    /// Added to the mean square of each feature that decoders are fitted to.
    pub(crate) ridge: f64,
}

/// The constants of a sweep.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SweepRecipe {
    /// What log-likelihoods are divided by.
    pub(crate) temperature: f64,
    /// What variances of the way up are multiplied by.
    pub(crate) inflation: f64,
    /// Nats, so divided, below the best class beyond which a class is not asked about.
    pub(crate) class_cutoff: f64,
}

impl SweepRecipe {
    pub(crate) fn config(self) -> SweepConfig {
        let Self { temperature, inflation, class_cutoff } = self;
        SweepConfig { temperature, inflation, class_cutoff }
    }
}

/// Filling in what is hidden.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompleteRecipe {
    /// Training pictures that the nearest-neighbour filling averages.
    pub(crate) neighbours: usize,
    /// Labels that are iterated on.
    pub(crate) candidates: usize,
    /// Sweeps for each of them.
    pub(crate) sweeps: usize,
    /// How much the misfit of seen pixels counts there, and their variance.
    pub(crate) misfit_weight: f64,
    pub(crate) pixel_variance: f64,
    /// Remembered pictures of each class that an imputation is made of.
    pub(crate) remembered: usize,
    /// The variance of a pixel beyond what they say.
    pub(crate) noise: f64,
    /// Pictures that are explained by descent, at most: it takes long.
    pub(crate) descents: usize,
}

impl CompleteRecipe {
    pub(crate) fn complete(self) -> CompleteConfig {
        let Self { candidates, sweeps, misfit_weight, pixel_variance, .. } = self;
        CompleteConfig { candidates, sweeps, misfit_weight, pixel_variance }
    }

    pub(crate) fn impute(self) -> ImputeConfig {
        ImputeConfig { neighbours: self.remembered, noise: self.noise, ..ImputeConfig::default() }
    }
}

/// Other ways to fill in.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BaselinesRecipe {
    /// Training pictures that the analysers of pixels and the mean are made of, at most.
    pub(crate) pictures: usize,
    /// Factors of each analyser, one of each class.
    pub(crate) factors: usize,
    /// Their iterations of expectation and maximisation.
    pub(crate) em_iterations: usize,
    /// Training pictures that the binary model is counted in, at most.
    pub(crate) counted_pictures: usize,
    /// Steps of predictive coding.
    pub(crate) predictive_steps: usize,
    /// Passes down and up of the rectified Gaussians.
    pub(crate) rectified_passes: usize,
}

/// The descent of the energy.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DescentRecipe {
    /// Of Adam.
    pub(crate) learning_rate: f64,
    /// The variance of a seen pixel.
    pub(crate) pixel_variance: f64,
    /// The weight of the prior beside the pixels.
    pub(crate) prior_weight: f64,
    /// What energies are divided by beside the classifier's score of a label, and of a pair of labels.
    pub(crate) energy_temperature: f64,
    pub(crate) pair_energy_temperature: f64,
}

impl DescentRecipe {
    /// With so many steps.
    pub(crate) fn config(self, steps: usize) -> MapConfig {
        let Self { learning_rate, pixel_variance, prior_weight, energy_temperature, pair_energy_temperature } = self;
        MapConfig {
            steps,
            learning_rate,
            pixel_variance,
            prior_weight,
            descent: Descent::Adam,
            energy_temperature,
            pair_energy_temperature,
        }
    }
}

/// Something that lies over pictures, where nobody says so.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnknownRecipe {
    /// Pictures, at most.
    pub(crate) pictures: usize,
    /// Pixels on each side of the square that is covered.
    pub(crate) size: usize,
    /// The share of the pixels that is expected to be covered.
    pub(crate) covered: f64,
    /// How much neighbours of a covered pixel count.
    pub(crate) coherence: f64,
}

/// Two shapes over each other.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OverlapRecipe {
    /// Pictures of two shapes.
    pub(crate) pairs: usize,
    /// The first of them whose labels are searched by energy too.
    pub(crate) searched: usize,
    /// Labels of the classifier whose pairs are searched there.
    pub(crate) candidates: usize,
    /// Steps of the descent.
    pub(crate) steps: usize,
    /// Brightness from which on a pixel is ink.
    pub(crate) ink: f64,
}

/// Several shapes on one canvas.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClutterRecipe {
    /// Canvases of three and four shapes by turns, and as many to choose constants on.
    pub(crate) canvases: usize,
    /// Pixels between the middles of two shapes, down or across, at least.
    pub(crate) apart: usize,
    /// Brightness from which on a pixel is ink.
    pub(crate) ink: f64,
}

/// Pixels on each side that a picture has at least: the largest square that hides some.
pub(super) const SMALLEST: usize = 16;

impl Recipe {
    /// # Errors
    /// If a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        let positive = [
            ("data.train", self.data.train),
            ("data.test", self.data.test),
            ("cnn.size", self.cnn.size),
            ("cnn.hidden", self.cnn.hidden),
            ("cnn.batch_size", self.cnn.batch_size),
            ("cnn.micro_batch_size", self.cnn.micro_batch_size),
            ("model.factors", self.model.factors),
            ("model.components", self.model.components),
            ("model.images", self.model.images),
            ("complete.neighbours", self.complete.neighbours),
            ("complete.candidates", self.complete.candidates),
            ("complete.sweeps", self.complete.sweeps),
            ("complete.remembered", self.complete.remembered),
            ("complete.descents", self.complete.descents),
            ("judge.size", self.judge.size),
            ("baselines.pictures", self.baselines.pictures),
            ("baselines.factors", self.baselines.factors),
            ("baselines.counted_pictures", self.baselines.counted_pictures),
            ("unknown.pictures", self.unknown.pictures),
            ("unknown.size", self.unknown.size),
            ("data.validation", self.data.validation),
            ("overlap.pairs", self.overlap.pairs),
            ("overlap.searched", self.overlap.searched),
            ("overlap.steps", self.overlap.steps),
            ("clutter.canvases", self.clutter.canvases),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, number)| *number == 0) {
            bail!("`{key}` is 0; it must be at least 1");
        }
        for (table, size, channels) in
            [("cnn", self.cnn.size, &self.cnn.channels), ("judge", self.judge.size, &self.judge.channels)]
        {
            if size.is_multiple_of(2) {
                bail!("`{table}.size` = {size} is even; windows that keep the size have an odd side");
            }
            if channels.is_empty() || channels.contains(&0) {
                bail!("`{table}.channels` = {channels:?}; there must be at least one convolution, each of at least 1");
            }
        }
        if self.cnn.warmup_percent > 100 {
            bail!("`cnn.warmup_percent` = {}; it is of a hundred samples", self.cnn.warmup_percent);
        }
        let shares = [
            ("cnn.learning_rate_floor", self.cnn.learning_rate_floor),
            ("complete.misfit_weight", self.complete.misfit_weight),
            ("overlap.ink", self.overlap.ink),
            ("clutter.ink", self.clutter.ink),
        ];
        if let Some((key, share)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            bail!("`{key}` = {share} must be from 0 to 1");
        }
        if self.overlap.searched > self.overlap.pairs {
            bail!("`overlap.searched` = {} of `overlap.pairs` = {}", self.overlap.searched, self.overlap.pairs);
        }
        if self.overlap.candidates < 2 {
            bail!("`overlap.candidates` = {}; a pair needs 2", self.overlap.candidates);
        }
        if self.data.validation >= self.data.train {
            bail!("`data.validation` = {} leaves none of `data.train` = {}", self.data.validation, self.data.train);
        }
        if self.unknown.size > SMALLEST {
            bail!("`unknown.size` = {}; pictures may have as few as {SMALLEST} pixels on a side", self.unknown.size);
        }
        if self.complete.noise < 1e-4 {
            bail!(
                "`complete.noise` = {}; below 0.0001 pictures that are alike leave nothing to divide by",
                self.complete.noise
            );
        }
        if self.unknown.covered >= 1.0 {
            bail!("`unknown.covered` = {}; it is a share of the pixels, less than 1", self.unknown.covered);
        }
        let finite = [
            ("cnn.learning_rate", self.cnn.learning_rate),
            ("sweep.temperature", self.sweep.temperature),
            ("sweep.inflation", self.sweep.inflation),
            ("sweep.class_cutoff", self.sweep.class_cutoff),
            ("model.ridge", self.model.ridge),
            ("complete.noise", self.complete.noise),
            ("complete.pixel_variance", self.complete.pixel_variance),
            ("descent.learning_rate", self.descent.learning_rate),
            ("descent.pixel_variance", self.descent.pixel_variance),
            ("descent.prior_weight", self.descent.prior_weight),
            ("descent.energy_temperature", self.descent.energy_temperature),
            ("descent.pair_energy_temperature", self.descent.pair_energy_temperature),
            ("unknown.covered", self.unknown.covered),
        ];
        match finite.iter().find(|(_, number)| !number.is_finite() || *number <= 0.0) {
            Some((key, number)) => bail!("`{key}` = {number} must be more than 0"),
            None => Ok(()),
        }
    }
}
