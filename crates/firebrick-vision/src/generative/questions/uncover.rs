//! Something else that covers a part of a picture, found where no label explains the pixels.

use burn::tensor::{Tensor, activation};
use firebrick_kernels::linear;
use firebrick_tensor::indices;

use crate::Error;
use crate::generative::evidence::Evidence;
use crate::generative::exemplars::{Exemplars, flat, least, sum};
use crate::generative::model::GenerativeModel;
use crate::generative::rows::{chosen, pick, pick_rows};

/// The constants of the search; to be chosen on a validation split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UncoverConfig {
    /// ε, the share of the pixels that is expected to be covered.
    pub covered: f64,
    /// How much neighbours count: what covers a pixel covers those beside it.
    pub coherence: f64,
    /// How often a component looks again at what it explains.
    pub rounds: usize,
}

impl Default for UncoverConfig {
    fn default() -> Self {
        Self { covered: 0.005, coherence: 1.0, rounds: 4 }
    }
}

/// What is seen of pictures of which something else may cover a part.
#[derive(Clone, Debug)]
pub struct Visibility {
    /// The probability that a pixel is of what is asked for, `[batch, height, width, 1]`; 0 where nothing is seen anyway.
    pub visible: Tensor<4>,
    /// log p(picture, label, cover) at the best cover of every label, in nats, `[batch][classes]`; how covered pixels lie together is left out.
    pub log_scores: Vec<Vec<f64>>,
    /// How much more that is than of a black picture with the same noise, and what covers it, `[batch][classes]`: what explains nothing
    /// gains nothing.
    pub gains: Vec<Vec<f64>>,
}

/// Which pixels are of the label that explains most, and which are of something that lies over it.
///
/// ```text
/// x | visible ~ N(μ + U z, ψ)          x | covered ~ Uniform(0, 1)          covered ~ Bern(ε)
/// w = σ(log (1 − ε)/ε + log N(x; μ + U z, ψ) + J Σ_beside (2 w − 1))
/// ```
///
/// For each component of the prior the factors are read from the pixels it explains, and the pixels chosen anew, in turn. Spec: C-20;
/// the coherence is a mean field of an Ising model.
///
/// # Errors
/// If images or mask are of another size.
///
/// # Panics
/// If `covered` is not between 0 and 1.
pub fn uncover(model: &GenerativeModel, evidence: &Evidence, config: &UncoverConfig) -> Result<Visibility, Error> {
    let UncoverConfig { covered, coherence, rounds } = *config;
    assert!(covered > 0.0 && covered < 1.0, "{covered} of the pixels are covered");
    evidence.checked(model.network().image())?;
    let [batch, height, width, channels] = evidence.images.dims();
    let pixels = height * width * channels;
    let seen = evidence.images.clone().reshape([batch, pixels]);
    let logit = ((1.0 - covered) / covered).ln();
    let classes = model.network().classes();
    let mut log_scores = vec![vec![f64::NEG_INFINITY; classes]; batch];
    let mut gains = log_scores.clone();
    let mut best: Option<(Vec<f64>, Tensor<4>)> = None;
    for component in &model.prior {
        let component = component.part(0..pixels);
        let noise = component.noise.clone().unsqueeze::<2>();
        let mut visible = evidence.visible.clone();
        let mut probability = visible.clone();
        let mut scores = Vec::new();
        for round in 0..=rounds {
            let hidden = visible.clone().expand(evidence.images.dims()).reshape([batch, pixels]).lower_elem(0.5);
            let spread = seen.zeros_like().mask_fill(hidden, f32::INFINITY);
            let found = component.posterior(&seen, &spread);
            if round == rounds {
                let shown = counts(&visible);
                let there = counts(&evidence.visible);
                let cover =
                    |image: usize| shown[image] * (1.0 - covered).ln() + (there[image] - shown[image]) * covered.ln();
                scores = found.log_likelihoods.iter().enumerate().map(|(image, log)| log + cover(image)).collect();
                break;
            }
            let expected = linear(found.factors, component.loadings.clone().transpose(), Some(component.mean.clone()));
            let off =
                (seen.clone() - expected).square() / noise.clone() + noise.clone().log() + std::f64::consts::TAU.ln();
            let density = (off * -0.5).reshape([batch, height, width, channels]).sum_dim(3);
            probability = mean_field(density + logit, &evidence.visible, coherence);
            visible = probability.clone().greater_elem(0.5).float();
        }
        // Each pixel of a black picture is dark, as exactly as any is known, or covered, whichever is likelier.
        let least = noise.min().reshape([1, 1]);
        let dark = (seen.clone().square() / least.clone() + least.log() + std::f64::consts::TAU.ln()) * -0.5;
        let dark = dark.reshape([batch, height, width, channels]).sum_dim(3) + (1.0 - covered).ln();
        let dark = (dark.clamp_min(covered.ln()) * evidence.visible.clone()).reshape([batch, height * width]);
        let dark = dark.sum_dim(1).into_data().iter::<f64>().collect::<Vec<_>>();
        for (image, &score) in scores.iter().enumerate() {
            let class = component.class;
            log_scores[image][class] = log_scores[image][class].max(score);
            gains[image][class] = gains[image][class].max(score - dark[image]);
        }
        best = Some(match best {
            None => (scores, probability),
            Some((known, kept)) => {
                let rows = chosen(|image| scores[image] > known[image], batch);
                (pick(&known, &scores, &rows), pick_rows(kept, probability, &rows))
            }
        });
    }
    let (_, visible) = best.expect("there is a component");
    Ok(Visibility { visible, log_scores, gains })
}

impl Visibility {
    /// Whether each pixel is of what is asked for, `[batch, height, width, 1]`.
    pub fn seen(&self) -> Tensor<4> {
        self.visible.clone().greater_elem(0.5).float()
    }
}

/// The probability that each pixel is of the picture rather than of something that lies over it, by the remembered images that are
/// nearest where most pixels are, `[batch, height, width, 1]`; 0 where nothing is seen anyway.
///
/// ```text
/// m, v: mean and variance of the five images with the least Σ_seen min((x − k)², 0.1)
/// w = σ(log (1 − ε)/ε + log N(x; m, v + λ) + J Σ_beside (2 w − 1))          λ = 0.01
/// ```
///
/// ε is the share of the pixels that is expected to be covered, J how much neighbours count: what covers a pixel covers those beside it.
///
/// # Panics
/// If the images are of another size, or `covered` is not between 0 and 1.
pub fn uncover_by_exemplars(exemplars: &Exemplars, evidence: &Evidence, covered: f64, coherence: f64) -> Tensor<4> {
    const NEAREST: usize = 5;
    /// An error beyond which it does not matter how wrong a pixel is.
    const FAR: f32 = 0.1;
    const NOISE: f64 = 0.01;
    /// Images that are read at a time.
    const BLOCK: usize = 4096;
    assert!(covered > 0.0 && covered < 1.0, "{covered} of the pixels are covered");
    let dims = evidence.images.dims();
    let ([batch, height, width, channels], [count, pixels]) = (dims, exemplars.rows.dims());
    let [seen, visible] = flat(evidence).map(|x| x.into_data().iter::<f32>().collect::<Vec<_>>());
    assert_eq!(seen.len(), batch * pixels, "pixels of pictures of the remembered size");
    let mut distances = vec![Vec::with_capacity(count); batch];
    for first in (0..count).step_by(BLOCK) {
        let block = exemplars.rows.clone().slice([first..count.min(first + BLOCK), 0..pixels]).into_data();
        let block = block.iter::<f32>().collect::<Vec<_>>();
        let pictures = seen.chunks_exact(pixels).zip(visible.chunks_exact(pixels));
        for (distances, (x, seen)) in distances.iter_mut().zip(pictures) {
            let far = |k: f32, x: f32| {
                let square = (x - k) * (x - k);
                if square < FAR { square } else { FAR }
            };
            distances.extend(block.chunks_exact(pixels).map(|image| sum(image, x, seen, far)));
        }
    }
    let every = (0..count).collect::<Vec<_>>();
    let nearest = NEAREST.min(count);
    let chosen = distances.iter().flat_map(|row| least(row, &every, nearest)).collect::<Vec<_>>();
    let chosen = exemplars.rows.clone().select(0, indices(&chosen, &exemplars.rows.device()));
    let chosen = chosen.reshape([batch, nearest, pixels]);
    let mean = chosen.clone().mean_dim(1);
    let variance = (chosen - mean.clone()).square().mean_dim(1).reshape(dims) + NOISE;
    let off = (evidence.images.clone() - mean.reshape(dims)).square() / variance.clone()
        + variance.log()
        + std::f64::consts::TAU.ln();
    let density = (off * -0.5).reshape([batch, height, width, channels]).sum_dim(3);
    mean_field(density + ((1.0 - covered) / covered).ln(), &evidence.visible, coherence)
}

/// The probability of what each pixel has for itself, in logits, once neighbours have mean_field, where it is seen.
fn mean_field(own: Tensor<4>, visible: &Tensor<4>, coherence: f64) -> Tensor<4> {
    let mut probability = activation::sigmoid(own.clone());
    for _ in 0..if coherence > 0.0 { MEAN_FIELD_ROUNDS } else { 0 } {
        let field = neighbour_sum((probability.clone() * 2.0 - 1.0) * visible.clone());
        probability = activation::sigmoid(own.clone() + field * coherence);
    }
    probability * visible.clone()
}

/// Rounds in which neighbours settle.
const MEAN_FIELD_ROUNDS: usize = 5;

/// The sum of the four pixels beside each.
fn neighbour_sum(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, _] = x.dims();
    let row = Tensor::zeros([batch, 1, width, 1], &x.device());
    let column = Tensor::zeros([batch, height, 1, 1], &x.device());
    let down = Tensor::cat(vec![row.clone(), x.clone().slice([0..batch, 0..height - 1, 0..width, 0..1])], 1);
    let up = Tensor::cat(vec![x.clone().slice([0..batch, 1..height, 0..width, 0..1]), row], 1);
    let right = Tensor::cat(vec![column.clone(), x.clone().slice([0..batch, 0..height, 0..width - 1, 0..1])], 2);
    let left = Tensor::cat(vec![x.slice([0..batch, 0..height, 1..width, 0..1]), column], 2);
    down + up + right + left
}

/// How much of each picture a mask shows, in pixels.
fn counts(mask: &Tensor<4>) -> Vec<f64> {
    let [batch, height, width, _] = mask.dims();
    mask.clone().reshape([batch, height * width]).sum_dim(1).into_data().iter::<f64>().collect()
}
