//! Stage `cost`: how long answers take.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::Tensor;
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_types::Seed;
use firebrick_vision::classifiers::Classifier as _;
use firebrick_vision::generative::{Composition, Evidence, Query, descend, sweep};
use firebrick_vision::images::degradations::Occluder;
use serde::Serialize;

use super::artifacts::{Costs, Denoiser, Generative, Pictures, TrainedClassifier};
use super::pictures::{CHUNK, all};
use super::questions::Ask;
use super::recipe::Recipe;
use super::results::Cost;
use crate::Env;
use crate::artifacts::write_json;

/// What is timed: what is asked. It is a stage of its own as no run takes as long as another: all others leave the same bits.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measure {
    ask: Ask,
}

impl Measure {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { ask: Ask::of(recipe) }
    }
}

impl Stage<Env> for Measure {
    const VERSION: u32 = 4;
    type Inputs = (Output<Pictures>, Output<Generative>, Output<TrainedClassifier>, Output<Denoiser>);
    type Output = Costs;

    fn run(
        &self,
        (pictures, model, trained, denoiser): (Pictures, Generative, TrainedClassifier, Denoiser),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let (trained, denoiser) = (trained.cnn(&env.device)?, denoiser.cnn(&env.device)?);
        let model = model.model(&env.device)?;
        let found = pictures.train_test()?;
        let learnt = self.ask.learnt(&found.train, &model);
        let methods = self.ask.methods(&model, &learnt, [&trained, &denoiser])?;
        let part = found.test.chosen(0..CHUNK.min(found.test.len()));
        let [height, width, _] = part.size();
        let seeds = (0..part.len()).map(|index| Seed::new(index as u64)).collect::<Vec<_>>();
        let visible = Occluder::Half.masks(height, width, &seeds, &env.device);
        let evidence = Evidence { images: all(&part, &model), visible };
        let forward = || {
            model.network().cnn().logits(evidence.images.clone()).into_data();
            Ok(())
        };
        let mut costs = Vec::new();
        let mut add = |what: &str, f: &dyn Fn() -> Result<()>| -> Result<()> {
            let [milliseconds, passes] = timed(&forward, f)?;
            costs.push(Cost { what: what.to_owned(), milliseconds: milliseconds / part.len() as f64, passes });
            Ok(())
        };
        add("one forward pass", &forward)?;
        add("one sweep", &|| Ok(sweep(&model, &evidence, &Query::Free, &methods.sweep).map(drop)?))?;
        // With what the classifier says of the pictures that were filled in.
        for method in methods.methods(part.len()) {
            add(method.name, &|| (method.predict)(&evidence).map(drop))?;
        }
        let whole = Evidence { visible: Tensor::ones([part.len(), height, width, 1], &env.device), ..evidence.clone() };
        let labels = [0, 1].map(|label| vec![label; part.len()]);
        add("two instances, both labels given", &|| {
            descend(&model, &whole, &labels, Composition::Max, &methods.sweep, &methods.descent)?;
            Ok(())
        })?;
        write_json(&ctx.artifact().join(Costs::FILE), &costs)?;
        Ok(())
    }
}

/// The milliseconds of `f`, and how many times those of `forward` that is: medians of turns of both, as a machine that others use is now
/// faster, now slower.
fn timed(forward: &dyn Fn() -> Result<()>, f: &dyn Fn() -> Result<()>) -> Result<[f64; 2]> {
    /// Seconds after which nothing is timed again, and until which all is: what is short is slow at first.
    const LONG: f64 = 10.0;
    const SHORT: f64 = 1.0;
    let seconds = |f: &dyn Fn() -> Result<()>| -> Result<f64> {
        let begun = Instant::now();
        f()?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let [mut forwards, mut times] = [Vec::new(), Vec::<f64>::new()];
    while times.iter().sum::<f64>() < if times.len() < 3 { LONG } else { SHORT } {
        forwards.push(seconds(forward)?);
        times.push(seconds(f)?);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let time = median(&mut times);
    Ok([1e3 * time, time / median(&mut forwards)])
}
