//! Stage `questions`: what the model answers, beside simple ways.

use std::collections::BTreeMap;

use anyhow::Result;
use burn::tensor::Tensor;
use firebrick_inference::complete::{filled, mean, nearest, zero};
use firebrick_inference::metrics::{ink_assignment, intersection_over_union, mean_square, points_at};
use firebrick_inference::tasks::Occluder;
use firebrick_inference::{Compose, Evidence, GenerativeModel, MapConfig, Query, SweepConfig};
use firebrick_models::Cnn;
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_tensor::Classifier;
use firebrick_train::classify::pixels;
use firebrick_train::parallel_map;
use firebrick_types::{Images, Seed};
use serde::Serialize;

use super::artifacts::{Answers, Classifier as Trained, Generative, Pictures};
use super::blends::blends;
use super::recipe::{CompleteRecipe, OverlapRecipe, Recipe, SweepRecipe};
use super::results::{Completion, Grid, Overlap, Results, share};
use crate::env::{Env, Voice};
use crate::hh::write_json;
use crate::say::remark;

/// Pictures that are computed at a time.
pub(super) const CHUNK: usize = 25;
/// Brightness from which on a pixel is ink.
const INK: f32 = 0.3;
/// Rows of a grid.
const SHOWN: usize = 8;

/// What is asked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ask {
    seed: u64,
    sweep: SweepRecipe,
    complete: CompleteRecipe,
    overlap: OverlapRecipe,
}

impl Ask {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { seed: recipe.seed, sweep: recipe.sweep, complete: recipe.complete, overlap: recipe.overlap }
    }
}

impl Stage<Env> for Ask {
    const VERSION: u32 = 2;
    type Inputs = (Output<Pictures>, Output<Generative>, Output<Trained>, Output<Trained>);
    type Output = Answers;

    fn run(
        &self,
        (pictures, model, judge, trained): (Pictures, Generative, Trained, Trained),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let [judge, trained] = [judge.cnn(&env.device)?, trained.cnn(&env.device)?];
        let model = model.model(&env.device)?;
        let found = pictures.train_test()?;
        let known = all(&found.train, &model);
        let mut results = Results {
            completion: Vec::new(),
            overlap: self.overlaps(&found.test, &model)?,
            ambiguity: blends(&found.test, self.overlap.pairs, &model, &judge, &self.sweep(), &self.descent())?,
            temperature: self.temperature(&pictures.validation()?, &model)?,
            grids: Vec::new(),
            metrics: BTreeMap::new(),
        };
        for occluder in Occluder::ALL {
            self.complete(occluder, &found.test, &known, &model, &trained, &mut results)?;
            if env.voice > Voice::Quiet {
                let told = results.completion.iter().filter(|one| one.occluder == occluder.name());
                let told = told.map(|one| format!("{} {:.3} {}", one.method, one.accuracy.mean, one.told_error()));
                remark(format_args!("  {}: {}", occluder.name(), told.collect::<Vec<_>>().join(", ")));
            }
        }
        for one in &results.completion {
            let name = format!("{}/{}", one.occluder, one.method);
            results.metrics.insert(format!("accuracy/{name}"), one.accuracy.mean);
            if let Some(error) = one.error {
                results.metrics.insert(format!("error/{name}"), error);
            }
        }
        results.metrics.insert("overlap/pointing".into(), results.overlap.pointing.mean);
        results.metrics.insert("ambiguity/judged".into(), results.ambiguity.judged.mean);
        results.metrics.insert("overlap/ink_assignment".into(), results.overlap.ink_assignment);
        write_json(&ctx.artifact().join(Answers::FILE), &results)?;
        Ok(())
    }
}

/// Pictures as the classifier reads them.
pub(super) fn all(images: &Images, model: &GenerativeModel) -> Tensor<4> {
    let bytes = (0..images.len()).flat_map(|index| images.image(index)).copied().collect::<Vec<_>>();
    pixels(&bytes, images.size(), &model.network().device())
}

/// Each picture, of so many, with the next one of another class.
pub(super) fn pairs(test: &Images, count: usize) -> Vec<[usize; 2]> {
    let partner = |first: usize| {
        let mut others = (1..test.len()).map(|step| (first + step) % test.len());
        others.find(|&other| test.labels()[other] != test.labels()[first]).unwrap_or(first)
    };
    (0..count.min(test.len())).map(|first| [first, partner(first)]).collect()
}

/// What a way to deal with hidden pixels says.
struct Answer {
    labels: Vec<usize>,
    /// The pictures filled in, where that is part of it.
    images: Option<Tensor<4>>,
}

type Way<'a> = Box<dyn Fn(&Evidence) -> Result<Answer> + Sync + 'a>;

/// A classifier's likeliest classes.
fn answers(cnn: &Cnn, images: Tensor<4>) -> Vec<usize> {
    cnn.logits(images).argmax(1).into_data().iter::<i64>().map(|label| label as usize).collect()
}

impl Ask {
    fn sweep(&self) -> SweepConfig {
        self.sweep.config()
    }

    fn descent(&self) -> MapConfig {
        MapConfig { steps: self.overlap.steps, ..MapConfig::default() }
    }

    /// The temperature of the components' weights that is right most often on pictures kept apart, over all masks.
    fn temperature(&self, validation: &Images, model: &GenerativeModel) -> Result<f64> {
        const CHOICES: [f64; 5] = [2.0, 4.0, 8.0, 16.0, 32.0];
        /// Pictures of each family of masks.
        const TRIED: usize = 200;
        let seed = Seed::new(self.seed).derive("vision/validation");
        let [height, width, _] = validation.size();
        let indices = (0..TRIED.min(validation.len())).collect::<Vec<_>>();
        let work = Occluder::ALL
            .iter()
            .flat_map(|&occluder| indices.chunks(CHUNK).map(move |chunk| (occluder, chunk.to_vec())));
        let counted = parallel_map(work.collect(), |(occluder, chunk): (Occluder, Vec<usize>)| -> Result<_> {
            let part = validation.chosen(chunk.iter().copied());
            let seeds = chunk.iter().map(|&index| seed.at(&[index as u64])).collect::<Vec<_>>();
            let visible = occluder.masks(height, width, &seeds, &model.network().device());
            let evidence = Evidence { images: all(&part, model), visible };
            let right = |temperature: f64| -> Result<usize> {
                let config = SweepConfig { temperature, ..self.sweep() };
                let found = model.impute(&evidence, self.complete.imputations, &config)?;
                Ok(found
                    .labels
                    .iter()
                    .zip(part.labels())
                    .filter(|(found, label)| **found == usize::from(**label))
                    .count())
            };
            CHOICES.iter().map(|&temperature| right(temperature)).collect::<Result<Vec<_>>>()
        });
        let counted = counted.into_iter().collect::<Result<Vec<_>>>()?;
        let right = |choice: usize| counted.iter().map(|counts| counts[choice]).sum::<usize>();
        // Of choices that are right as often the first.
        let best = (0..CHOICES.len()).rev().max_by_key(|&choice| right(choice)).expect("there are choices");
        Ok(CHOICES[best])
    }

    fn complete(
        &self,
        occluder: Occluder,
        test: &Images,
        known: &Tensor<4>,
        model: &GenerativeModel,
        trained: &Cnn,
        results: &mut Results,
    ) -> Result<()> {
        let seed = Seed::new(self.seed).derive("vision/occluder");
        let [height, width, _] = test.size();
        let CompleteRecipe { neighbours, candidates, passes, imputations } = self.complete;
        let tuned = SweepConfig { temperature: results.temperature, ..self.sweep() };
        let judged =
            |filled: Tensor<4>| Answer { labels: answers(model.network().cnn(), filled.clone()), images: Some(filled) };
        let methods: [(&str, Way<'_>); 8] = [
            ("zero", Box::new(|evidence| Ok(judged(zero(evidence))))),
            ("mean", Box::new(|evidence| Ok(judged(mean(evidence, known))))),
            ("nearest", Box::new(|evidence| Ok(judged(nearest(evidence, known, neighbours))))),
            ("trained", Box::new(|evidence| Ok(Answer { labels: answers(trained, zero(evidence)), images: None }))),
            (
                "prior",
                Box::new(|evidence| {
                    let swept = model.sweep(evidence, &Query::Free, &self.sweep())?;
                    Ok(judged(filled(evidence, swept.expected.clamp(0.0, 1.0))))
                }),
            ),
            ("sweep", Box::new(|evidence| Ok(judged(model.sweep(evidence, &Query::Free, &self.sweep())?.images)))),
            (
                "impute",
                Box::new(|evidence| {
                    let found = model.impute(evidence, imputations, &tuned)?;
                    Ok(Answer { labels: found.labels, images: Some(found.images) })
                }),
            ),
            (
                "iterate",
                Box::new(|evidence| Ok(judged(model.iterate(evidence, candidates, passes, &self.sweep())?.images))),
            ),
        ];
        let mut shown = vec![Vec::new(); SHOWN.min(test.len())];
        for (place, (method, way)) in methods.iter().enumerate() {
            let chunks = (0..test.len()).collect::<Vec<_>>();
            let chunks = chunks.chunks(CHUNK).map(<[usize]>::to_vec).collect::<Vec<_>>();
            let measured = parallel_map(chunks, |chunk: Vec<usize>| -> Result<_> {
                let part = test.chosen(chunk.iter().copied());
                let seeds = chunk.iter().map(|&index| seed.at(&[index as u64])).collect::<Vec<_>>();
                let visible = occluder.masks(height, width, &seeds, &model.network().device());
                let evidence = Evidence { images: all(&part, model), visible };
                let Answer { labels, images } = way(&evidence)?;
                let right =
                    labels.iter().zip(part.labels()).filter(|(found, label)| **found == usize::from(**label)).count();
                let drawn = images.is_some();
                let found = images.unwrap_or_else(|| zero(&evidence));
                let host = |x: Tensor<4>| x.into_data().iter::<f32>().collect::<Vec<_>>();
                let each = evidence.images.shape().num_elements() / part.len();
                let hidden = host((evidence.visible.clone().neg() + 1.0).expand(evidence.images.dims()));
                let (found, truth, seen) = (host(found), host(evidence.images.clone()), host(zero(&evidence)));
                let errors = (0..part.len()).map(|index| {
                    let of = |numbers: &[f32]| numbers[index * each..][..each].to_vec();
                    mean_square(&of(&found), &of(&truth), &of(&hidden))
                });
                let error = errors.filter(|error| error.is_finite()).sum::<f64>();
                Ok((right, drawn.then_some(error), [found, truth, seen]))
            });
            let (mut right, mut error) = (0, Some(0.0));
            for (index, chunk) in measured.into_iter().enumerate() {
                let (more, errors, [found, truth, seen]) = chunk?;
                right += more;
                error = error.zip(errors).map(|(error, more)| error + more);
                let each = truth.len() / CHUNK.min(test.len() - index * CHUNK);
                for row in (0..shown.len()).filter(|row| row / CHUNK == index) {
                    let bytes = |numbers: &[f32]| {
                        let numbers = &numbers[row % CHUNK * each..][..each];
                        numbers.iter().map(|&number| (255.0 * number.clamp(0.0, 1.0)).round() as u8).collect::<Vec<_>>()
                    };
                    if place == 0 {
                        shown[row].extend([bytes(&truth), bytes(&seen)]);
                    } else if *method != "trained" {
                        shown[row].push(bytes(&found));
                    }
                }
            }
            results.completion.push(Completion {
                occluder: occluder.name(),
                method: (*method).to_owned(),
                accuracy: share(right, test.len()),
                error: error.map(|error| error / test.len() as f64),
            });
        }
        let columns = ["picture", "seen"]
            .into_iter()
            .chain(methods.iter().skip(1).map(|(name, _)| *name).filter(|name| *name != "trained"));
        results.grids.push(Grid {
            title: occluder.name(),
            columns: columns.map(str::to_owned).collect(),
            size: [height, width],
            rows: shown,
        });
        Ok(())
    }

    fn overlaps(&self, test: &Images, model: &GenerativeModel) -> Result<Overlap> {
        let OverlapRecipe { pairs: count, candidates, .. } = self.overlap;
        let config = self.descent();
        let chunks = pairs(test, count).chunks(CHUNK).map(<[_]>::to_vec).collect();
        let measured = parallel_map(chunks, |chunk: Vec<[usize; 2]>| -> Result<Vec<[f64; 7]>> {
            let side = |side: usize| test.chosen(chunk.iter().map(|pair| pair[side]));
            let sides = [side(0), side(1)];
            let pictures = [all(&sides[0], model), all(&sides[1], model)];
            let both = pictures[0].clone().max_pair(pictures[1].clone());
            let [batch, height, width, _] = both.dims();
            let visible = Tensor::ones([batch, height, width, 1], &both.device());
            let evidence = Evidence { images: both.clone(), visible };
            let labels =
                sides.each_ref().map(|side| side.labels().iter().map(|&label| usize::from(label)).collect::<Vec<_>>());
            let told = model.explain_many(&evidence, &labels, Compose::Max, &self.sweep(), &config)?;
            let searched = model.pair_search(&evidence, candidates, Compose::Max, &self.sweep(), &config)?;
            let first = model.network().cnn().logits(both.clone()).argsort_descending(1).into_data();
            let first = first.iter::<i64>().map(|label| label as usize).collect::<Vec<_>>();
            let classes = first.len() / batch;
            let host = |x: &Tensor<4>| x.clone().into_data().iter::<f32>().collect::<Vec<_>>();
            let (both, truths) = (host(&both), pictures.each_ref().map(host));
            let found = [host(&told.rendered[0]), host(&told.rendered[1])];
            let each = both.len() / batch;
            let one = |index: usize| {
                let of = |numbers: &'_ [f32]| numbers[index * each..][..each].to_vec();
                let (truths, found, both) =
                    (truths.each_ref().map(|x| of(x)), found.each_ref().map(|x| of(x)), of(&both));
                let masks = truths.each_ref().map(|x| x.iter().map(|&pixel| pixel > INK).collect::<Vec<_>>());
                let owned = found.each_ref().map(|x| x.iter().map(|&pixel| pixel > INK).collect::<Vec<_>>());
                let counted = vec![1.0; each];
                let mean = |of: &dyn Fn(usize) -> f64| 0.5 * (of(0) + of(1));
                let alone = |side: usize| -> Vec<bool> {
                    masks[side].iter().zip(&masks[1 - side]).map(|(own, other)| *own && !*other).collect()
                };
                let ahead = |side: usize| -> Vec<f32> {
                    found[side].iter().zip(&found[1 - side]).map(|(own, other)| own - other).collect()
                };
                let is = |pair: [usize; 2]| {
                    let truth = [labels[0][index], labels[1][index]];
                    f64::from(u8::from(pair == truth || pair == [truth[1], truth[0]]))
                };
                [
                    ink_assignment([&found[0], &found[1]], [&masks[0], &masks[1]]),
                    mean(&|side| intersection_over_union(&owned[side], &masks[side])),
                    mean(&|side| f64::from(u8::from(points_at(&ahead(side), &alone(side), width, 0)))),
                    mean(&|side| mean_square(&found[side], &truths[side], &counted)),
                    mean(&|side| mean_square(&both, &truths[side], &counted)),
                    is([searched.labels[0][index], searched.labels[1][index]]),
                    is([first[index * classes], first[index * classes + 1]]),
                ]
            };
            Ok((0..batch).map(one).collect())
        });
        let rows = measured.into_iter().collect::<Result<Vec<_>>>()?.concat();
        let mean = |column: usize| {
            let finite = rows.iter().map(|row| row[column]).filter(|number| number.is_finite()).collect::<Vec<_>>();
            finite.iter().sum::<f64>() / finite.len().max(1) as f64
        };
        let of = |column: usize, times: f64| {
            let right = rows.iter().map(|row| times * row[column]).sum::<f64>().round() as usize;
            share(right, (times * rows.len() as f64) as usize)
        };
        Ok(Overlap {
            pairs: rows.len(),
            ink_assignment: mean(0),
            intersection_over_union: mean(1),
            pointing: of(2, 2.0),
            error: mean(3),
            composite_error: mean(4),
            both_found: of(5, 1.0),
            both_first: of(6, 1.0),
        })
    }
}
