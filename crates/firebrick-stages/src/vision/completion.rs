//! What hides behind a mask: ways to fill it in, beside each other.

use anyhow::Result;
use burn::tensor::{Tensor, activation};
use firebrick_stats::top_label_calibration_error;
use firebrick_tensor::Workers;
use firebrick_types::Seed;
use firebrick_vision::baselines::{
    ActivationModel, NoisyOr, PixelFactors, RectifiedGaussian, denoise, mean, nearest, predictive_coding, zero,
};
use firebrick_vision::classifiers::{Classifier, Cnn};
use firebrick_vision::generative::{
    Evidence, Exemplars, GenerativeModel, ImputeConfig, MapConfig, PriorConfig, Query, SweepConfig, complete, filled,
    impute, most_probable_explanation, sweep,
};
use firebrick_vision::images::Images;
use firebrick_vision::images::degradations::Occluder;
use firebrick_vision::metrics::{mean_square, ssim};

use super::pictures::{CHUNK, TrainingSet, all};
use super::recipe::{BaselinesRecipe, CompleteRecipe};
use super::results::{Completion, Grid, SHOWN, bytes, share};

/// What a way to deal with hidden pixels says.
pub(super) struct Prediction {
    pub(super) labels: Vec<usize>,
    /// The probability of each label, where there is one.
    confidence: Option<Vec<f64>>,
    /// The energy of every label's explanation, of each picture: `energies[label][picture]`, where there is one.
    energies: Option<Vec<Vec<f64>>>,
    /// The pictures filled in, where that is part of it.
    pub(super) images: Option<Tensor<4>>,
}

pub(super) type Predictor<'a> = Box<dyn Fn(&Evidence) -> Result<Prediction> + Sync + 'a>;

/// A way, and how many pictures it is given.
pub(super) struct Method<'a> {
    pub(super) name: &'static str,
    pictures: usize,
    pub(super) predict: Predictor<'a>,
}

/// Everything that fills in.
pub(super) struct Methods<'a> {
    pub(super) model: &'a GenerativeModel,
    pub(super) exemplars: &'a Exemplars,
    pub(super) trained: &'a Cnn,
    pub(super) denoiser: &'a Cnn,
    /// The mean picture, `[1, height, width, channels]`.
    known: Tensor<4>,
    factors: PixelFactors,
    binary: NoisyOr<'a>,
    rectified: RectifiedGaussian,
    pub(super) recipe: CompleteRecipe,
    baselines: BaselinesRecipe,
    pub(super) sweep: SweepConfig,
    pub(super) descent: MapConfig,
    pub(super) impute: ImputeConfig,
}

impl<'a> Methods<'a> {
    /// Those of a model, and those that have to learn from pictures first.
    pub(super) fn new(
        model: &'a GenerativeModel,
        learnt: &'a TrainingSet,
        [trained, denoiser]: [&'a Cnn; 2],
        (recipe, baselines): (CompleteRecipe, BaselinesRecipe),
        (sweep, descent): (SweepConfig, MapConfig),
        seed: Seed,
    ) -> Result<Self> {
        let TrainingSet { exemplars, images } = learnt;
        let part = |count: usize| images.chosen(0..count.min(images.len()));
        let (learnt, counted) = (part(baselines.pictures), part(baselines.counted_pictures));
        let prior = PriorConfig { factors: baselines.factors, components: 1, em_iterations: baselines.em_iterations };
        let known = all(&learnt, model);
        Ok(Self {
            factors: PixelFactors::fit(&known, learnt.labels(), &prior, seed)?,
            binary: NoisyOr::fit(model, &all(&counted, model), counted.labels())?,
            rectified: RectifiedGaussian::of(model.network(), &known.clone().mean_dim(0), baselines.rectified_passes)?,
            known: known.mean_dim(0),
            model,
            exemplars,
            trained,
            denoiser,
            recipe,
            baselines,
            sweep,
            descent,
            impute: recipe.impute(),
        })
    }

    pub(super) fn methods(&self, count: usize) -> Vec<Method<'_>> {
        let Self { model, exemplars, recipe, .. } = self;
        let judged = |filled: Tensor<4>| Prediction {
            images: Some(filled.clone()),
            ..Prediction::by(model.network().cnn(), filled)
        };
        let explained = |by: &dyn ActivationModel, evidence: &Evidence| -> Result<Prediction> {
            let found = by.inpaint(evidence, &Query::Free)?;
            Ok(Prediction { labels: found.labels, confidence: None, energies: None, images: Some(found.images) })
        };
        let methods: Vec<(&'static str, Predictor<'_>)> = vec![
            ("zero", Box::new(move |evidence| Ok(judged(zero(evidence))))),
            ("mean", Box::new(move |evidence| Ok(judged(mean(evidence, &self.known))))),
            ("nearest", Box::new(move |evidence| Ok(judged(nearest(evidence, exemplars, recipe.neighbours))))),
            ("factors", Box::new(move |evidence| Ok(judged(self.factors.fill(evidence))))),
            (
                "predictive",
                Box::new(move |evidence| {
                    Ok(judged(predictive_coding(model, evidence, self.baselines.predictive_steps)))
                }),
            ),
            (
                "denoiser",
                Box::new(move |evidence| {
                    let drawn =
                        denoise::reconstruction(self.denoiser, denoise::masked(&evidence.images, &evidence.visible));
                    Ok(judged(filled(evidence, drawn.clamp(0.0, 1.0))))
                }),
            ),
            ("trained", Box::new(|evidence| Ok(Prediction::by(self.trained, zero(evidence))))),
            ("rectified", Box::new(move |evidence| explained(&self.rectified, evidence))),
            ("binary", Box::new(move |evidence| explained(&self.binary, evidence))),
            (
                "prior",
                Box::new(move |evidence| {
                    let swept = sweep(model, evidence, &Query::Free, &self.sweep)?;
                    Ok(judged(filled(evidence, swept.expected.clamp(0.0, 1.0))))
                }),
            ),
            ("sweep", Box::new(move |evidence| Ok(judged(sweep(model, evidence, &Query::Free, &self.sweep)?.images)))),
            (
                "iterate",
                Box::new(move |evidence| {
                    Ok(judged(complete(model, evidence, &recipe.complete(), &self.sweep)?.images))
                }),
            ),
            (
                "map",
                Box::new(move |evidence| {
                    let found = most_probable_explanation(model, evidence, &Query::Free, &self.sweep, &self.descent)?;
                    let probability = |image: usize| {
                        let energies = found.energies.iter().map(|energies| energies[image]);
                        let least = energies.clone().fold(f64::INFINITY, f64::min);
                        let chosen = (least - found.energies[found.labels[image]][image]).exp();
                        chosen / energies.map(|energy| (least - energy).exp()).sum::<f64>()
                    };
                    Ok(Prediction {
                        confidence: Some((0..found.labels.len()).map(probability).collect()),
                        energies: Some(found.energies),
                        labels: found.labels,
                        images: Some(found.images),
                    })
                }),
            ),
            (
                "impute",
                Box::new(move |evidence| {
                    let found = impute(model, evidence, exemplars, &Query::Free, &self.impute)?;
                    Ok(Prediction { images: Some(found.images), ..Prediction::of(found.log_scores) })
                }),
            ),
        ];
        let pictures = |name: &str| if name == "map" { recipe.descents.min(count) } else { count };
        methods.into_iter().map(|(name, predict)| Method { name, pictures: pictures(name), predict }).collect()
    }

    /// A row of every way, and pictures of the first of them.
    pub(super) fn fill(&self, occluder: Occluder, test: &Images, seed: Seed) -> Result<(Vec<Completion>, Grid)> {
        let [height, width, _] = test.size();
        let mut rows = Vec::new();
        let mut shown = vec![Vec::new(); SHOWN.min(test.len())];
        let mut columns = vec!["picture".to_owned(), "seen".to_owned()];
        for Method { name, pictures, predict } in self.methods(test.len()) {
            let chunks = (0..pictures).collect::<Vec<_>>();
            let chunks = chunks.chunks(CHUNK).map(<[usize]>::to_vec).collect::<Vec<_>>();
            let measured = Workers::default().map(chunks, |chunk: Vec<usize>| {
                let part = test.chosen(chunk.iter().copied());
                let seeds = chunk.iter().map(|&index| seed.at(&[index as u64])).collect::<Vec<_>>();
                let visible = occluder.masks(height, width, &seeds, &self.model.network().device());
                let evidence = Evidence { images: all(&part, self.model), visible };
                ChunkScore::of(&predict, &evidence, &part, name)
            });
            let measured = measured.into_iter().collect::<Result<Vec<_>>>()?;
            let drawn = measured.iter().all(|chunk| chunk.drawn.is_some());
            let mean = |of: fn(&[f64; 2]) -> f64| {
                let sum = measured.iter().filter_map(|chunk| chunk.drawn.as_ref()).map(of).sum::<f64>();
                drawn.then_some(sum / pictures as f64)
            };
            let told = measured.iter().map(|chunk| chunk.confidence.clone()).collect::<Option<Vec<_>>>();
            let (told, verdicts) = (
                told.map(|told| told.concat()),
                measured.iter().flat_map(|chunk| chunk.right.clone()).collect::<Vec<_>>(),
            );
            let gaps = measured.iter().map(|chunk| chunk.gap).sum::<Option<f64>>();
            rows.push(Completion {
                occluder: occluder.name(),
                method: name.to_owned(),
                pictures,
                accuracy: share(verdicts.iter().filter(|right| **right).count(), pictures),
                error: mean(|[error, _]| *error),
                similarity: mean(|[_, similarity]| *similarity),
                calibration_error: told.map(|told| top_label_calibration_error(&told, &verdicts, 10)).transpose()?,
                energy_gap: gaps.map(|gaps| gaps / pictures as f64),
            });
            if drawn && name != "zero" {
                columns.push(name.to_owned());
            }
            let found = measured.into_iter().flat_map(|chunk| chunk.pictures);
            for (shown, [truth, seen, found]) in shown.iter_mut().zip(found) {
                if shown.is_empty() {
                    shown.extend([truth, seen]);
                }
                if drawn && name != "zero" {
                    shown.push(found);
                }
            }
        }
        // A way that was given fewer pictures leaves rows shorter: those are not shown.
        shown.retain(|row| row.len() == columns.len());
        Ok((rows, Grid { title: occluder.name(), columns, size: [height, width], rows: shown }))
    }
}

impl Prediction {
    /// A classifier's.
    pub(super) fn by(cnn: &Cnn, images: Tensor<4>) -> Self {
        Self::of(activation::log_softmax(cnn.logits(images), 1))
    }

    /// The likeliest label of each picture.
    fn of(log_probabilities: Tensor<2>) -> Self {
        let (most, labels) = log_probabilities.max_dim_with_indices(1);
        Self {
            labels: labels.into_data().iter::<i64>().map(|label| label as usize).collect(),
            // What rounding leaves above 1.
            confidence: Some(most.into_data().iter::<f64>().map(|log| log.exp().min(1.0)).collect()),
            energies: None,
            images: None,
        }
    }
}

/// What a way made of some pictures.
struct ChunkScore {
    right: Vec<bool>,
    /// The probability of each answer, where there is one.
    confidence: Option<Vec<f64>>,
    /// By how much the best wrong label's energy is above the right one's, summed over pictures, where there are energies.
    gap: Option<f64>,
    /// Error and structural similarity, summed over pictures, if it draws any.
    drawn: Option<[f64; 2]>,
    /// The picture, what is seen of it and what was made of it, of each.
    pictures: Vec<[Vec<u8>; 3]>,
}

impl ChunkScore {
    fn of(predict: &Predictor<'_>, evidence: &Evidence, part: &Images, name: &str) -> Result<Self> {
        let Prediction { labels, confidence, energies, images } = predict(evidence)?;
        let truths = part.labels().iter().map(|&label| usize::from(label)).collect::<Vec<_>>();
        let right = labels.iter().zip(&truths).map(|(found, label)| found == label).collect();
        let gap = energies.map(|energies| {
            let gap = |(image, &truth): (usize, &usize)| {
                let wrong = energies.iter().enumerate().filter(|(label, _)| *label != truth);
                wrong.map(|(_, energies)| energies[image]).fold(f64::INFINITY, f64::min) - energies[truth][image]
            };
            truths.iter().enumerate().map(gap).sum::<f64>()
        });
        let drawn = images.is_some();
        let found = images.unwrap_or_else(|| zero(evidence));
        let host = |x: Tensor<4>| x.into_data().iter::<f32>().collect::<Vec<_>>();
        let each = evidence.images.shape().num_elements() / part.len();
        let hidden = host((evidence.visible.clone().neg() + 1.0).expand(evidence.images.dims()));
        let (found, truth, seen) = (host(found), host(evidence.images.clone()), host(zero(evidence)));
        let of = |numbers: &'_ [f32], index: usize| numbers[index * each..][..each].to_vec();
        // A picture of which nothing is hidden has no error.
        let hides = |index: &usize| of(&hidden, *index).iter().any(|&hidden| hidden > 0.0);
        let hiding = (0..part.len()).filter(hides);
        let error =
            hiding.map(|index| mean_square(&of(&found, index), &of(&truth, index), &of(&hidden, index))).sum::<f64>();
        anyhow::ensure!(error.is_finite(), "`{name}` draws what is no number");
        let [_, width, channels] = part.size();
        let alike = |index: usize| {
            // Of every colour by itself.
            let of = |numbers: &[f32], channel: usize| {
                of(numbers, index).into_iter().skip(channel).step_by(channels).collect::<Vec<_>>()
            };
            (0..channels).map(|channel| ssim(&of(&found, channel), &of(&truth, channel), width)).sum::<f64>()
                / channels as f64
        };
        let similarity = (0..part.len()).map(alike).sum::<f64>();
        let bytes = |numbers: &[f32], index: usize| bytes(&numbers[index * each..][..each]);
        let picture = |index: usize| [&truth, &seen, &found].map(|numbers| bytes(numbers, index));
        let pictures = (0..part.len().min(SHOWN)).map(picture).collect();
        Ok(Self { right, confidence, gap, drawn: drawn.then_some([error, similarity]), pictures })
    }
}
