//! Stage `questions`: what the model answers, beside simple methods.

use firebrick_tensor::Workers;
use std::collections::BTreeMap;

use anyhow::Result;
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_types::Seed;
use firebrick_vision::classifiers::Cnn;
use firebrick_vision::generative::{
    Evidence, Exemplars, GenerativeModel, ImputeConfig, MapConfig, Query, SweepConfig, impute,
};
use firebrick_vision::images::Images;
use firebrick_vision::images::degradations::Occluder;
use serde::Serialize;

use super::artifacts::{Denoiser, Generative, Pictures, QuestionResults, TrainedClassifier};
use super::blends::blends;
use super::clutter::clutter;
use super::completion::Methods;
use super::covers::covers;
use super::overlap::overlaps;
use super::pictures::{CHUNK, TrainingSet, all, right};
use super::recipe::{
    BaselinesRecipe, ClutterRecipe, CompleteRecipe, DescentRecipe, OverlapRecipe, Recipe, SweepRecipe, UnknownRecipe,
};
use super::results::{CoverResult, Results, or_dash};
use crate::Env;
use crate::artifacts::write_json;

/// What is asked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ask {
    seed: u64,
    sweep: SweepRecipe,
    complete: CompleteRecipe,
    baselines: BaselinesRecipe,
    descent: DescentRecipe,
    unknown: UnknownRecipe,
    overlap: OverlapRecipe,
    clutter: ClutterRecipe,
}

impl Ask {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        let Recipe { seed, sweep, complete, baselines, descent, unknown, overlap, clutter, .. } = *recipe;
        Self { seed, sweep, complete, baselines, descent, unknown, overlap, clutter }
    }
}

impl Stage<Env> for Ask {
    const VERSION: u32 = 6;
    type Inputs =
        (Output<Pictures>, Output<Generative>, Output<TrainedClassifier>, Output<TrainedClassifier>, Output<Denoiser>);
    type Output = QuestionResults;

    fn run(
        &self,
        (pictures, model, judge, trained, denoiser): (
            Pictures,
            Generative,
            TrainedClassifier,
            TrainedClassifier,
            Denoiser,
        ),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let (judge, trained, denoiser) =
            (judge.cnn(&env.device)?, trained.cnn(&env.device)?, denoiser.cnn(&env.device)?);
        let model = model.model(&env.device)?;
        let found = pictures.train_test()?;
        let learnt = self.learnt(&found.train, &model);
        let (sweep, descent) = (self.sweep(), self.descent());
        let say = |told: String| {
            tracing::info!("  {told}");
        };
        let seed = Seed::new(self.seed);
        let validation = pictures.validation()?;
        let temperature = self.temperature(&validation, &model, &learnt.exemplars)?;
        let mut methods = self.methods(&model, &learnt, [&trained, &denoiser])?;
        methods.impute.temperature = temperature;
        let (mut completion, mut grids) = (Vec::new(), Vec::new());
        for occluder in Occluder::ALL {
            let (rows, grid) = methods.fill(occluder, &found.test, seed.derive("vision/occluder"))?;
            let told = rows.iter().map(|one| format!("{} {:.3} {}", one.method, one.accuracy.mean, or_dash(one.error)));
            say(format!("{}: {}", occluder.name(), told.collect::<Vec<_>>().join(", ")));
            completion.extend(rows);
            grids.push(grid);
        }
        let covered = covers(&found.test, &methods, &self.unknown, seed.derive("vision/covers"))?;
        say(format!("covers: {}", covered.iter().map(CoverResult::line).collect::<Vec<_>>().join(", ")));
        let overlap = overlaps(&found.test, (&model, &learnt.exemplars), &self.overlap, &sweep, &descent)?;
        say(format!("overlap: both labels {:.3} beside {:.3}", overlap.both_remembered.mean, overlap.both_first.mean));
        let clutter = clutter([&validation, &found.test], &model, &self.clutter, seed.derive("vision/clutter"))?;
        let told = clutter.found.iter().map(|one| format!("{} {:.3}", one.by, one.f1));
        say(format!("clutter, F1: {}", told.collect::<Vec<_>>().join(", ")));
        let ambiguity = blends(&found.test, self.overlap.pairs, (&model, &learnt.exemplars), &judge, &sweep, &descent)?;
        let mut results =
            Results { completion, covered, overlap, clutter, ambiguity, temperature, grids, metrics: BTreeMap::new() };
        results.measure();
        write_json(&ctx.artifact().join(QuestionResults::FILE), &results)?;
        Ok(())
    }
}

impl Ask {
    pub(super) fn learnt(&self, train: &Images, model: &GenerativeModel) -> TrainingSet {
        TrainingSet { exemplars: Exemplars::new(&all(train, model), train.labels()), images: train.clone() }
    }

    /// Everything that fills in.
    pub(super) fn methods<'a>(
        &self,
        model: &'a GenerativeModel,
        learnt: &'a TrainingSet,
        cnns: [&'a Cnn; 2],
    ) -> Result<Methods<'a>> {
        let seed = Seed::new(self.seed).derive("vision/ways");
        Methods::new(model, learnt, cnns, (self.complete, self.baselines), (self.sweep(), self.descent()), seed)
    }

    fn sweep(&self) -> SweepConfig {
        self.sweep.config()
    }

    fn descent(&self) -> MapConfig {
        self.descent.config(self.overlap.steps)
    }

    /// The temperature that is right most often on pictures kept apart, over all masks.
    fn temperature(&self, validation: &Images, model: &GenerativeModel, exemplars: &Exemplars) -> Result<f64> {
        const CHOICES: [f64; 5] = [2.0, 4.0, 8.0, 16.0, 32.0];
        /// Pictures of each family of masks.
        const TRIED: usize = 100;
        let seed = Seed::new(self.seed).derive("vision/validation");
        let [height, width, _] = validation.size();
        let indices = (0..TRIED.min(validation.len())).collect::<Vec<_>>();
        let work = Occluder::ALL
            .iter()
            .flat_map(|&occluder| indices.chunks(CHUNK).map(move |chunk| (occluder, chunk.to_vec())));
        let counted =
            Workers::default().map(work.collect(), |(occluder, chunk): (Occluder, Vec<usize>)| -> Result<_> {
                let part = validation.chosen(chunk.iter().copied());
                let seeds = chunk.iter().map(|&index| seed.at(&[index as u64])).collect::<Vec<_>>();
                let visible = occluder.masks(height, width, &seeds, &model.network().device());
                let evidence = Evidence { images: all(&part, model), visible };
                let counted = |temperature: f64| -> Result<usize> {
                    let config = ImputeConfig { temperature, ..self.complete.impute() };
                    Ok(right(&impute(model, &evidence, exemplars, &Query::Free, &config)?.labels, &part))
                };
                CHOICES.iter().map(|&temperature| counted(temperature)).collect::<Result<Vec<_>>>()
            });
        let counted = counted.into_iter().collect::<Result<Vec<_>>>()?;
        let right = |choice: usize| counted.iter().map(|counts| counts[choice]).sum::<usize>();
        // Of choices that are right as often the first.
        let best = (0..CHOICES.len()).rev().max_by_key(|&choice| right(choice)).expect("there are choices");
        Ok(CHOICES[best])
    }
}
