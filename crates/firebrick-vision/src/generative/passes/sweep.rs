//! One sweep through a model: up to the top, and down again to the pixels.

use burn::tensor::{Tensor, TensorData, activation};
use firebrick_kernels::{linear, relu, soft_unpool};
use firebrick_tensor::indices;

use super::upward::{believed, upward};
use crate::Error;
use crate::generative::evidence::{Evidence, Query, labels};
use crate::generative::model::{Belief, Component, GenerativeModel, Posterior, Upward};

/// The constants of a sweep; to be chosen on a validation split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SweepConfig {
    /// What log-likelihoods are divided by before they meet the classifier's scores: pixels are not independent.
    pub temperature: f64,
    /// What variances of the way up are multiplied by: overlapping windows make them too small.
    pub inflation: f64,
    /// A class is asked about a picture if, by its pixels one by one, the best of its components is not further below the best of all, in nats
    /// once the temperature has divided them.
    pub class_cutoff: f64,
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self { temperature: 20.0, inflation: 10.0, class_cutoff: 7.5 }
    }
}

/// What is believed of a block once the image is explained.
#[derive(Clone, Debug)]
pub struct LayerPosterior {
    /// Its pooled activations, the way up and the way down fused, `[batch, height, width, channels]`.
    pub mean: Tensor<4>,
    /// The probability that each of the pixels that were pooled won its window, in which they add up to 1.
    pub switches: Tensor<4>,
}

/// An explanation of some images.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The label of each.
    pub labels: Vec<usize>,
    /// The log-probability of every label, evidence and classifier together, `[batch, classes]`.
    pub log_scores: Tensor<2>,
    /// What is seen where it is seen, what is rendered elsewhere.
    pub images: Tensor<4>,
    /// What the label alone renders.
    pub rendered: Tensor<4>,
    /// What the factors of the prior say of the pixels by themselves, without the way down.
    pub expected: Tensor<4>,
    /// Of each block, the lowest first.
    pub layers: Vec<LayerPosterior>,
}

/// Added to variances that are divided by.
const LEAST_VARIANCE: f64 = 1e-4;

/// One backward pass: the label, what hides behind what is not seen, and what belongs to the label.
///
/// # Errors
/// If images or mask are of another size, or a clamped label is no class.
pub fn sweep(
    model: &GenerativeModel,
    evidence: &Evidence,
    query: &Query,
    config: &SweepConfig,
) -> Result<Explanation, Error> {
    Ok(top_down(model, evidence, &bottom_up(model, evidence, config)?, query, config)?.explanation)
}

/// The way up and what the top says, which no question changes.
pub(in crate::generative) fn bottom_up(
    model: &GenerativeModel,
    evidence: &Evidence,
    config: &SweepConfig,
) -> Result<BottomUp, Error> {
    Ok(bottom_up_of(model, evidence, believed(model, evidence)?, config))
}

pub(in crate::generative) fn bottom_up_of(
    model: &GenerativeModel,
    evidence: &Evidence,
    belief: Belief,
    config: &SweepConfig,
) -> BottomUp {
    let up = upward(&model.network, belief);
    BottomUp { tops: tops(model, &up, evidence, config), up }
}

/// The way down.
pub(in crate::generative) fn top_down(
    model: &GenerativeModel,
    evidence: &Evidence,
    below: &BottomUp,
    query: &Query,
    config: &SweepConfig,
) -> Result<TopDown, Error> {
    let BottomUp { up, tops } = below;
    let (variance, mean) = (tops.variance.clone(), tops.mean.clone());
    let tempered = activation::log_softmax(tops.class_log_likelihoods.clone() / config.temperature, 1);
    let log_scores = scores(model, evidence, tempered.clone(), up.logits.clone());
    let labels = labels(&log_scores, query)?;
    let components = likeliest(model, &tops.log_likelihoods, &labels);
    let (factors, rendered_top, noise) = render_top(model, tops, &components);
    // Precision-weighted fusion of the way down, with the noise ψ, and the way up, with the variance β.
    let [_, dims] = mean.dims();
    let of_top = |x: Tensor<2>| {
        let [batch, all] = x.dims();
        x.slice([0..batch, all - dims..all])
    };
    let [batch, rows, columns, colours] = evidence.images.dims();
    let expected = rendered_top.clone().slice([0..batch, 0..rows * columns * colours]);
    let expected = expected.reshape([batch, rows, columns, colours]);
    let uncertain = noise.clone().slice([0..batch, 0..rows * columns * colours]);
    let uncertain = uncertain.reshape([batch, rows, columns, colours]);
    let (rendered_top, noise) = (of_top(rendered_top), of_top(noise));
    let fused_top = relu(Belief::fused([rendered_top.clone(), noise], [mean, variance]));
    let top = model.network.blocks.last().expect("there are blocks").shape;
    let fused = fused_top.clone().reshape([labels.len(), top[0], top[1], top[2]]);
    let (layers, rendered) = render_down(model, up, fused, &labels, config);
    // What is hidden is told twice: by the decoders, with the noise τ, and by the factors themselves, with the noise ψ.
    let residual = model.decoders[0].noise.clone().reshape([1, 1, 1, colours]).expand(rendered.dims());
    let told = Belief::fused([rendered.clone(), residual], [expected.clone(), uncertain]);
    let clipped = told.clamp(0.0, 1.0);
    let hidden = evidence.visible.clone().neg() + 1.0;
    let images = evidence.images.clone() * evidence.visible.clone() + clipped * hidden;
    let explanation = Explanation { labels, log_scores, images, rendered, expected, layers };
    Ok(TopDown { explanation, tempered, components, factors, rendered: rendered_top, fused: fused_top })
}

/// What evidence and classifier say of the labels together: the classifier counts as far as it sees, and alone where nothing is hidden.
///
/// ```text
/// log p(y) ∝ [h > 0] log p(y | evidence)^(1/T) + (1 − h) log p_CNN(y)        h: the share that is hidden
/// ```
fn scores(model: &GenerativeModel, evidence: &Evidence, tempered: Tensor<2>, classified: Tensor<2>) -> Tensor<2> {
    let asked = hidden_share(model, evidence).greater_elem(0.0).float();
    activation::log_softmax(tempered * asked + as_far_as_seen(model, evidence, classified), 1)
}

/// The classifier's log-probabilities of what was filled in with means, counted by the share that is seen.
fn as_far_as_seen(model: &GenerativeModel, evidence: &Evidence, classified: Tensor<2>) -> Tensor<2> {
    classified * (hidden_share(model, evidence).neg() + 1.0).clamp_min(0.0)
}

/// The share of the pixels' variance that is hidden of each picture, `[batch, 1]`.
pub(in crate::generative) fn hidden_share(model: &GenerativeModel, evidence: &Evidence) -> Tensor<2> {
    let [batch, ..] = evidence.images.dims();
    let variance = model.pixels.variance.clone();
    let hidden = (evidence.visible.clone().neg() + 1.0) * variance.clone();
    let each = hidden.shape().num_elements() / batch;
    hidden.reshape([batch, each]).sum_dim(1) / variance.sum().reshape([1, 1])
}

fn tops(model: &GenerativeModel, up: &Upward, evidence: &Evidence, config: &SweepConfig) -> TopPosterior {
    let top = &up.levels.last().expect("there are blocks").after;
    let [batch, height, width, channels] = top.mean.dims();
    let flat = |x: &Tensor<4>| x.clone().reshape([batch, height * width * channels]);
    let (mean, variance) = (flat(&top.mean), flat(&top.variance) * config.inflation);
    let [_, rows, columns, colours] = evidence.images.dims();
    let pixels = rows * columns * colours;
    // The factors are read from the pixels that are seen, exactly: of the prior what is not measured drops out.
    let images = evidence.images.clone().reshape([batch, pixels]);
    let visible = evidence.visible.clone().expand([batch, rows, columns, colours]);
    let hidden = visible.reshape([batch, pixels]).lower_elem(0.5);
    let seen = hidden.clone().bool_not().float();
    let Shortlist { asked, guessed } = shortlist(model, &images, &seen, config.class_cutoff * config.temperature);
    let measured_variance = images.zeros_like().mask_fill(hidden, f32::INFINITY);
    let measurement = Measurement { mean: images, variance: measured_variance };
    let mut log_likelihoods = vec![vec![f64::NEG_INFINITY; model.prior.len()]; batch];
    let mut factors = Vec::with_capacity(model.prior.len());
    for (index, asked) in asked.into_iter().enumerate() {
        let found = measurement.posterior(&model.prior[index], &asked);
        asked.iter().zip(found.log_likelihoods).for_each(|(&image, found)| log_likelihoods[image][index] = found);
        factors.push((asked, found.factors));
    }
    for (of_image, guessed) in log_likelihoods.iter_mut().zip(guessed) {
        let most = of_image.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // What was not asked is never likelier than what was.
        let least = of_image.iter().copied().filter(|log| log.is_finite()).fold(most, f64::min);
        guessed.into_iter().for_each(|(index, below)| of_image[index] = least.min(most + below));
    }
    let classes = model.network.classes();
    let mut class_log_likelihoods = Vec::with_capacity(batch * classes);
    for of_image in &log_likelihoods {
        for class in 0..classes {
            let of_class = model.prior.iter().zip(of_image).filter(|(component, _)| component.class == class);
            let logs = of_class.map(|(_, log)| *log).collect::<Vec<_>>();
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum = logs.iter().map(|log| (log - most).exp()).sum::<f64>();
            class_log_likelihoods.push((most + sum.ln()) as f32);
        }
    }
    // Only their differences count, and f32 holds those of large numbers badly.
    for row in class_log_likelihoods.chunks_exact_mut(classes) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|log| *log -= most);
    }
    let class_log_likelihoods = TensorData::new(class_log_likelihoods, [batch, classes]);
    let class_log_likelihoods = Tensor::from_data(class_log_likelihoods, &mean.device());
    TopPosterior { measurement, log_likelihoods, factors, class_log_likelihoods, variance, mean }
}

/// Of each class the component that suits an image's numbers best by themselves is asked about it, unless it is too `far` below the best.
fn shortlist(model: &GenerativeModel, images: &Tensor<2>, seen: &Tensor<2>, far: f64) -> Shortlist {
    let mut asked = vec![Vec::new(); model.prior.len()];
    let scores = model.screen.scores(images, seen);
    let guessed = scores.into_iter().enumerate().map(|(image, scores)| {
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut guessed = Vec::new();
        for class in 0..model.network.classes() {
            let of_class = (0..model.prior.len()).filter(|&index| model.prior[index].class == class);
            let of_class = of_class.map(|index| (index, scores[index] - most));
            let of_class = of_class.max_by(|a, b| a.1.total_cmp(&b.1)).expect("every class has a component");
            if of_class.1 < -far {
                guessed.push(of_class);
            } else {
                asked[of_class.0].push(image);
            }
        }
        guessed
    });
    let guessed = guessed.collect();
    Shortlist { asked, guessed }
}

/// The likeliest component of each image's label.
fn likeliest(model: &GenerativeModel, log_likelihoods: &[Vec<f64>], labels: &[usize]) -> Vec<usize> {
    let chosen = log_likelihoods.iter().zip(labels).map(|(of_image, &label)| {
        let of_class = (0..model.prior.len()).filter(|&index| model.prior[index].class == label);
        of_class.max_by(|&a, &b| of_image[a].total_cmp(&of_image[b])).expect("every class has a component")
    });
    chosen.collect()
}

/// The factors of each image's component, what it renders, and its noise.
fn render_top(model: &GenerativeModel, tops: &TopPosterior, components: &[usize]) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
    let device = model.network.device();
    let (mut rows, mut factors, mut rendered, mut noise) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, component) in model.prior.iter().enumerate() {
        let of = (0..components.len()).filter(|&image| components[image] == index).collect::<Vec<_>>();
        if of.is_empty() {
            continue;
        }
        let (asked, known) = &tops.factors[index];
        let place = |image: &usize| asked.binary_search(image).ok();
        // A class that was set has to be asked now, if it was not.
        let z = match of.iter().map(place).collect::<Option<Vec<_>>>() {
            Some(places) => known.clone().select(0, indices(&places, &device)),
            None => tops.measurement.posterior(component, &of).factors,
        };
        rendered.push(linear(z.clone(), component.loadings.clone().transpose(), Some(component.mean.clone())));
        factors.push(z);
        let [dims] = component.noise.dims();
        noise.push(component.noise.clone().unsqueeze::<2>().expand([of.len(), dims]));
        rows.extend(of);
    }
    let mut back = vec![0; rows.len()];
    rows.iter().enumerate().for_each(|(place, &image)| back[image] = place);
    let back = indices(&back, &device);
    let in_order = |parts: Vec<Tensor<2>>| Tensor::cat(parts, 0).select(0, back.clone());
    (in_order(factors), in_order(rendered), in_order(noise))
}

/// The way down from the top activations: the posterior of every block, and the rendered pixels.
fn render_down(
    model: &GenerativeModel,
    up: &Upward,
    top: Tensor<4>,
    labels: &[usize],
    config: &SweepConfig,
) -> (Vec<LayerPosterior>, Tensor<4>) {
    let mut layers = Vec::new();
    let mut fused = top;
    for index in (0..model.network.blocks.len()).rev() {
        let before = &up.levels[index].before;
        let variance = before.variance.clone() * config.inflation + LEAST_VARIANCE;
        let log_rho = model.log_switches[index].clone();
        let (unpooled, switches) = soft_unpool(fused.clone(), before.mean.clone(), variance, log_rho, labels);
        let rendered = model.decoders[index].render_roughly(unpooled);
        layers.push(LayerPosterior { mean: fused.clone(), switches });
        if index == 0 {
            layers.reverse();
            return (layers, rendered);
        }
        let Belief { mean, variance } = up.levels[index - 1].after.clone();
        let uncertain = variance * config.inflation + LEAST_VARIANCE;
        let [channels] = model.decoders[index].noise.dims();
        let noise = model.decoders[index].noise.clone().reshape([1, 1, 1, channels]);
        let noise = noise.expand(rendered.dims());
        fused = Belief::fused([rendered, noise], [mean, uncertain]);
    }
    unreachable!("there are blocks")
}

/// A sweep, with what the top was before the way down.
pub(in crate::generative) struct TopDown {
    pub(crate) explanation: Explanation,
    /// log softmax(log p(x_seen | y) / T), `[batch, classes]`.
    pub(in crate::generative) tempered: Tensor<2>,
    /// The component of each image.
    pub(crate) components: Vec<usize>,
    /// `[batch, factors]`
    pub(crate) factors: Tensor<2>,
    /// `[batch, dims]`, by the component alone.
    pub(crate) rendered: Tensor<2>,
    /// `[batch, dims]`, with the way up.
    pub(crate) fused: Tensor<2>,
}

/// The way up of some images.
pub(in crate::generative) struct BottomUp {
    up: Upward,
    tops: TopPosterior,
}

/// Who is asked about some images.
struct Shortlist {
    /// Of each component, the images.
    asked: Vec<Vec<usize>>,
    /// Of each image, components of classes that are too far to be asked, and how far below the best they are by its numbers alone.
    guessed: Vec<Vec<(usize, f64)>>,
}

/// What the factors are read from: pixels with their variances, infinite where a pixel is not seen, `[batch, pixels]`.
struct Measurement {
    mean: Tensor<2>,
    variance: Tensor<2>,
}

impl Measurement {
    /// What a component says of some images.
    fn posterior(&self, component: &Component, images: &[usize]) -> Posterior {
        if images.is_empty() {
            let [_, factors] = component.loadings.dims();
            return Posterior {
                log_likelihoods: Vec::new(),
                factors: Tensor::zeros([0, factors], &self.mean.device()),
            };
        }
        let rows = |x: &Tensor<2>| x.clone().select(0, indices(images, &x.device()));
        let [_, pixels] = self.mean.dims();
        component.part(0..pixels).posterior(&rows(&self.mean), &rows(&self.variance))
    }
}

/// What the top activations say.
struct TopPosterior {
    measurement: Measurement,
    /// Of each image and component: exact where it was asked, a guess where its class was not, −∞ where another stands for its class.
    log_likelihoods: Vec<Vec<f64>>,
    /// Of each component, the images that it was asked about and the factors that it found.
    factors: Vec<(Vec<usize>, Tensor<2>)>,
    /// Of each class less the greatest, `[batch, classes]`.
    class_log_likelihoods: Tensor<2>,
    variance: Tensor<2>,
    mean: Tensor<2>,
}
