//! The joint energy of a picture and what explains it, and its descent: one instance or several that share the picture.

use burn::tensor::{Tensor, activation};
use firebrick_kernels::relu;
use firebrick_tensor::indices;

use super::sweep::{BottomUp, SweepConfig, bottom_up, top_down};
use crate::Error;
use crate::generative::evidence::{Evidence, Query};
use crate::generative::model::GenerativeModel;
use crate::generative::rows::{pick, pick_rows};
use crate::pooling::{unpool, windows};

/// How the energy is gone down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// Adam: fast, and now and then uphill.
    Adam,
    /// Steps against the gradient, each image's halved until its energy falls: never uphill.
    Backtracking,
}

/// The constants of a descent; to be chosen on a validation split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapConfig {
    /// Steps.
    pub steps: usize,
    /// Of Adam, or the first length of a step.
    pub learning_rate: f64,
    /// σ², the variance of a seen pixel.
    pub pixel_variance: f64,
    /// η, the weight of the prior beside the pixels; 1 is the honest joint.
    pub prior_weight: f64,
    /// How.
    pub descent: Descent,
    /// What energies are divided by beside the classifier's score of one label.
    pub energy_temperature: f64,
    /// The same, beside its scores of two labels.
    pub pair_energy_temperature: f64,
}

impl Default for MapConfig {
    fn default() -> Self {
        Self {
            steps: 60,
            learning_rate: 0.05,
            pixel_variance: 0.03,
            prior_weight: 0.1,
            descent: Descent::Adam,
            energy_temperature: 10.0,
            pair_energy_temperature: 50.0,
        }
    }
}

/// How instances make a picture together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Composition {
    /// The brightest: strokes that lie over each other.
    Max,
    /// The mean: blends.
    Mean,
    /// The sum.
    Sum,
    /// Each before the next, its brightness its opacity: `x₁ + (1 − x₁)(x₂ + …)`.
    Over,
}

impl Composition {
    fn of(self, pictures: Vec<Tensor<4>>) -> Tensor<4> {
        let count = pictures.len() as f64;
        let fold = |f: fn(Tensor<4>, Tensor<4>) -> Tensor<4>| pictures.into_iter().reduce(f).expect("an instance");
        match self {
            Self::Max => fold(|a, b| a.max_pair(b)),
            Self::Mean => fold(|a, b| a + b) / count,
            Self::Sum => fold(|a, b| a + b),
            Self::Over => fold(|a, b| a.clone() + (a.neg() + 1.0) * b),
        }
    }
}

/// What explains one instance of each picture: the variables of the energy.
#[derive(Clone, Debug)]
struct State {
    /// z, `[batch, factors]`.
    factors: Tensor<2>,
    /// aᴸ, `[batch, height, width, channels]`.
    top: Tensor<4>,
    /// eˡ, what every lower block's activations have beyond what is rendered, the lowest first.
    residuals: Vec<Tensor<4>>,
    /// The logits of qˡ, the lowest first.
    switches: Vec<Tensor<5>>,
}

impl State {
    /// The same with every tensor changed.
    fn map(self, mut f: impl Change) -> Self {
        Self {
            factors: f.change(self.factors),
            top: f.change(self.top),
            residuals: self.residuals.into_iter().map(|x| f.change(x)).collect(),
            switches: self.switches.into_iter().map(|x| f.change(x)).collect(),
        }
    }

    /// Both, tensor by tensor.
    fn zip(self, other: Self, mut f: impl Combine) -> Self {
        let residuals = self.residuals.into_iter().zip(other.residuals).map(|(a, b)| f.combine(a, b)).collect();
        Self {
            factors: f.combine(self.factors, other.factors),
            top: f.combine(self.top, other.top),
            residuals,
            switches: self.switches.into_iter().zip(other.switches).map(|(a, b)| f.combine(a, b)).collect(),
        }
    }
}

/// A function of tensors of any dimensions.
trait Change {
    fn change<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D>;
}

/// A function of two.
trait Combine {
    fn combine<const D: usize>(&mut self, a: Tensor<D>, b: Tensor<D>) -> Tensor<D>;
}

/// What the energy of an instance is measured with: the parts of the model that its label chooses.
#[derive(Clone, Debug)]
struct Parts {
    /// μ, ψ: `[batch, dims]`.
    mean: Tensor<2>,
    noise: Tensor<2>,
    /// U of every image, `[batch, factors, dims]`.
    loadings: Tensor<3>,
    /// log ρˡ of every image.
    log_switches: Vec<Tensor<5>>,
}

/// Instances that explain some pictures together.
#[derive(Clone, Debug)]
pub struct Instances {
    /// The label of each instance of each picture: `labels[instance][picture]`.
    pub labels: Vec<Vec<usize>>,
    /// What each instance renders, `[batch, height, width, channels]`.
    pub rendered: Vec<Tensor<4>>,
    /// The energy of each picture's explanation, in nats.
    pub energy: Vec<f64>,
    /// The mean energy before every step, and after the last.
    pub curve: Vec<f64>,
}

impl Instances {
    /// The pixels that an instance owns: brighter there than every other, and than `ink`, `[batch, height, width, 1]`.
    ///
    /// # Panics
    /// If there is no such instance.
    pub fn mask(&self, instance: usize, ink: f64) -> Tensor<4> {
        let brightness = |picture: &Tensor<4>| picture.clone().mean_dim(3);
        let own = brightness(&self.rendered[instance]);
        let mut mask = own.clone().greater_elem(ink).float();
        for (other, picture) in self.rendered.iter().enumerate() {
            if other != instance {
                mask = mask * own.clone().greater(brightness(picture)).float();
            }
        }
        mask
    }
}

/// The energy of a state of every instance, of each picture, `[batch]`.
///
/// ```text
/// E = Σ_seen (x − compose(D₁, D₂, …))² / 2σ²
///   + η Σ_instances (½ |z|² + ½ Σ (aᴸ − μ − U z)²/ψ + ½ Σₗ Σ (eˡ)²/τˡ + Σₗ KL(qˡ ‖ ρˡ))
/// ```
fn energy(
    model: &GenerativeModel,
    evidence: &Evidence,
    states: &[State],
    parts: &[Parts],
    compose: Composition,
    config: &MapConfig,
) -> (Tensor<1>, Vec<Tensor<4>>) {
    let [batch, ..] = evidence.images.dims();
    let rendered = states.iter().map(|state| decode(model, state)).collect::<Vec<_>>();
    let left = compose.of(rendered.clone()) - evidence.images.clone();
    let left = left.square() * evidence.visible.clone();
    let mut energy = total(left, batch) / (2.0 * config.pixel_variance);
    for (state, parts) in states.iter().zip(parts) {
        let [_, factors] = state.factors.dims();
        let dims = parts.mean.dims();
        let z = state.factors.clone().reshape([batch, 1, factors]);
        let expected = z.matmul(parts.loadings.clone()).reshape(dims) + parts.mean.clone();
        let off = (state.top.clone().reshape(dims) - expected).square() / parts.noise.clone();
        let mut prior = total(state.factors.clone().square(), batch) + total(off, batch);
        for (residual, decoder) in state.residuals.iter().zip(&model.decoders[1..]) {
            let [channels] = decoder.noise.dims();
            let noise = like(decoder.noise.clone(), residual).reshape([1, 1, 1, channels]);
            prior = prior + total(residual.clone().square() / noise, batch);
        }
        energy = energy + prior * (0.5 * config.prior_weight);
        for (logits, log_rho) in state.switches.iter().zip(&parts.log_switches) {
            let log_q = activation::log_softmax(logits.clone(), 4);
            let divergence = log_q.clone().exp() * (log_q - log_rho.clone());
            energy = energy + total(divergence, batch) * config.prior_weight;
        }
    }
    (energy, rendered)
}

/// The picture that a state renders.
fn decode(model: &GenerativeModel, state: &State) -> Tensor<4> {
    let mut x = relu(state.top.clone());
    for (index, block) in model.network.blocks.iter().enumerate().rev() {
        let switches = activation::softmax(state.switches[index].clone(), 4);
        let unpooled = unpool(x, switches, block.pool);
        let decoder = &model.decoders[index];
        let (weight, bias) = (like(decoder.weight.clone(), &unpooled), like(decoder.bias.clone(), &unpooled));
        let rendered = firebrick_kernels::conv2d(unpooled, weight, bias, decoder.window);
        x = if index == 0 { rendered } else { relu(relu(rendered) + state.residuals[index - 1].clone()) };
    }
    x
}

/// The instances of these labels that explain the pictures best together: `labels[instance][picture]`.
///
/// # Errors
/// If images or mask are of another size, or a label is no class.
///
/// # Panics
/// If there is no instance, or not one label of each picture.
pub fn descend(
    model: &GenerativeModel,
    evidence: &Evidence,
    labels: &[Vec<usize>],
    compose: Composition,
    sweep: &SweepConfig,
    config: &MapConfig,
) -> Result<Instances, Error> {
    descend_from(model, evidence, &bottom_up(model, evidence, sweep)?, labels, compose, sweep, config)
}

pub(in crate::generative) fn descend_from(
    model: &GenerativeModel,
    evidence: &Evidence,
    seen: &BottomUp,
    labels: &[Vec<usize>],
    compose: Composition,
    sweep: &SweepConfig,
    config: &MapConfig,
) -> Result<Instances, Error> {
    let [batch, ..] = evidence.images.dims();
    assert!(!labels.is_empty(), "at least one instance");
    assert!(labels.iter().all(|labels| labels.len() == batch), "one label of each picture");
    // What is alone goes on from a sweep; what shares the picture begins nearer to its class.
    let trust = if labels.len() == 1 { 1.0 } else { 0.3 };
    let (mut states, mut parts) = (Vec::new(), Vec::new());
    for labels in labels {
        let (state, part) = begin(model, evidence, seen, labels, trust, sweep)?;
        states.push(state);
        parts.push(part);
    }
    let evidence =
        Evidence { images: evidence.images.clone().autodiff(), visible: evidence.visible.clone().autodiff() };
    let mut curve = Vec::new();
    let mut adam = Adam::default();
    let mut lengths = vec![config.learning_rate; batch];
    let measure = |states: &[State]| energy(model, &evidence, states, &parts, compose, config);
    for _ in 0..config.steps {
        let tracked = states.iter().cloned().map(|state| state.map(Track)).collect::<Vec<_>>();
        let (energy, _) = measure(&tracked);
        let before = host(energy.clone());
        curve.push(before.iter().sum::<f64>() / batch as f64);
        let gradients = energy.sum().backward();
        let slopes = tracked.into_iter().map(|state| state.map(Slope(&gradients))).collect::<Vec<_>>();
        states = match config.descent {
            Descent::Adam => adam.step(states, slopes, config.learning_rate),
            Descent::Backtracking => {
                backtrack(states, &slopes, &before, &mut lengths, |states| host(measure(states).0))
            }
        };
    }
    let (energy, rendered) = measure(&states);
    let energy = host(energy);
    curve.push(energy.iter().sum::<f64>() / batch as f64);
    let rendered = rendered.into_iter().map(|picture| picture.without_autodiff().clamp(0.0, 1.0)).collect();
    Ok(Instances { labels: labels.to_vec(), rendered, energy, curve })
}

/// Where the descent begins: at the sweep's posterior, or part of the way to it from what the class alone renders.
fn begin(
    model: &GenerativeModel,
    evidence: &Evidence,
    seen: &BottomUp,
    labels: &[usize],
    trust: f64,
    config: &SweepConfig,
) -> Result<(State, Parts), Error> {
    let [batch, ..] = evidence.images.dims();
    let found = top_down(model, evidence, seen, &Query::Clamp(labels.to_vec()), config)?;
    let chosen = found.components;
    let device = model.network.device();
    let top = model.network.blocks.last().expect("there are blocks").shape;
    let class_rows = indices(labels, &device);
    let rendered = found.rendered.clone();
    let fused = rendered.clone() + (found.fused - rendered) * trust;
    let logs = model.network.blocks.iter().zip(&model.log_switches);
    let log_switches = logs
        .map(|(block, log_rho)| windows(log_rho.clone().select(0, class_rows.clone()), block.pool).autodiff())
        .collect::<Vec<_>>();
    let switches = if trust < 1.0 {
        log_switches.iter().map(|logits| logits.clone().without_autodiff()).collect()
    } else {
        let layers = model.network.blocks.iter().zip(&found.explanation.layers);
        layers.map(|(block, layer)| windows(layer.switches.clone(), block.pool).clamp_min(1e-6).log()).collect()
    };
    let residuals = model.network.blocks[..model.network.blocks.len() - 1].iter().map(|block| {
        let [height, width, channels] = block.shape;
        Tensor::zeros([batch, height, width, channels], &device)
    });
    let loadings = chosen.iter().map(|&index| model.prior[index].loadings.clone().transpose());
    let noise = chosen.iter().map(|&index| model.prior[index].noise.clone());
    let mean = chosen.iter().map(|&index| model.prior[index].mean.clone());
    // Of the prior the part of the top activations: the pixels have a term of their own.
    let [_, dims] = fused.dims();
    let of_top = |rows: Vec<Tensor<1>>| {
        let rows = Tensor::stack::<2>(rows, 0);
        let [batch, all] = rows.dims();
        rows.slice([0..batch, all - dims..all]).autodiff()
    };
    let loadings = Tensor::stack::<3>(loadings.collect(), 0);
    let [_, factors, all] = loadings.dims();
    let parts = Parts {
        mean: of_top(mean.collect()),
        noise: of_top(noise.collect()),
        loadings: loadings.slice([0..batch, 0..factors, all - dims..all]).autodiff(),
        log_switches,
    };
    let top = relu(fused).reshape([batch, top[0], top[1], top[2]]);
    let state = State { factors: found.factors, top, residuals: residuals.collect(), switches };
    Ok((state, parts))
}

impl Instances {
    /// Of both, row by row.
    pub(crate) fn with(self, other: Self, rows: &[usize]) -> Self {
        let labels = self.labels.iter().zip(&other.labels).map(|(a, b)| pick(a, b, rows)).collect();
        let rendered = self.rendered.into_iter().zip(other.rendered).map(|(a, b)| pick_rows(a, b, rows)).collect();
        let curve = self.curve.iter().zip(&other.curve).map(|(a, b)| a.min(*b)).collect();
        Self { labels, rendered, energy: pick(&self.energy, &other.energy, rows), curve }
    }
}

/// The sum of each picture's numbers.
fn total<const D: usize>(x: Tensor<D>, batch: usize) -> Tensor<1> {
    let each = x.shape().num_elements() / batch.max(1);
    x.reshape([batch, each]).sum_dim(1).reshape([batch])
}

fn host(x: Tensor<1>) -> Vec<f64> {
    x.without_autodiff().into_data().iter::<f64>().collect()
}

/// The tensor where the other one is: a constant among what is tracked.
fn like<const D: usize, const E: usize>(x: Tensor<D>, other: &Tensor<E>) -> Tensor<D> {
    if other.is_autodiff() && !x.is_autodiff() { x.autodiff() } else { x }
}

/// Gradients are wanted.
struct Track;

impl Change for Track {
    fn change<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
        x.without_autodiff().autodiff().require_grad()
    }
}

/// Gradients, where there are any.
struct Slope<'a>(&'a burn::tensor::Gradients);

impl Change for Slope<'_> {
    fn change<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
        x.grad(self.0).unwrap_or_else(|| x.clone().without_autodiff().zeros_like())
    }
}

/// Adam's means and mean squares of every instance.
#[derive(Default)]
struct Adam {
    moments: Vec<[State; 2]>,
    steps: i32,
}

impl Adam {
    fn step(&mut self, states: Vec<State>, slopes: Vec<State>, learning_rate: f64) -> Vec<State> {
        const DECAYS: [f64; 2] = [0.9, 0.999];
        struct Decay(f64);
        impl Combine for Decay {
            fn combine<const D: usize>(&mut self, kept: Tensor<D>, new: Tensor<D>) -> Tensor<D> {
                kept * self.0 + new * (1.0 - self.0)
            }
        }
        struct Square;
        impl Change for Square {
            fn change<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
                x.square()
            }
        }
        struct Zero;
        impl Change for Zero {
            fn change<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
                x.zeros_like()
            }
        }
        /// The direction of a step, of mean and mean square.
        struct Direction([f64; 2]);
        impl Combine for Direction {
            fn combine<const D: usize>(&mut self, mean: Tensor<D>, square: Tensor<D>) -> Tensor<D> {
                mean / self.0[0] / ((square / self.0[1]).sqrt() + 1e-8)
            }
        }
        struct Move(f64);
        impl Combine for Move {
            fn combine<const D: usize>(&mut self, x: Tensor<D>, direction: Tensor<D>) -> Tensor<D> {
                x - direction * self.0
            }
        }
        if self.moments.is_empty() {
            let zeros = |state: &State| [(); 2].map(|()| state.clone().map(Zero));
            self.moments = slopes.iter().map(zeros).collect();
        }
        self.steps += 1;
        let corrections = DECAYS.map(|decay| 1.0 - decay.powi(self.steps));
        let moments = std::mem::take(&mut self.moments);
        let mut moved = Vec::new();
        for ((state, slope), [mean, square]) in states.into_iter().zip(slopes).zip(moments) {
            let mean = mean.zip(slope.clone(), Decay(DECAYS[0]));
            let square = square.zip(slope.map(Square), Decay(DECAYS[1]));
            moved.push(state.zip(mean.clone().zip(square.clone(), Direction(corrections)), Move(learning_rate)));
            self.moments.push([mean, square]);
        }
        moved
    }
}

/// A step against the gradient, each picture's halved until its energy falls; a picture that finds no way down stays.
fn backtrack(
    states: Vec<State>,
    slopes: &[State],
    before: &[f64],
    lengths: &mut [f64],
    energy: impl Fn(&[State]) -> Vec<f64>,
) -> Vec<State> {
    const HALVINGS: usize = 12;
    /// Each row moved by its own length.
    struct Move<'a>(&'a [f64]);
    impl Combine for Move<'_> {
        fn combine<const D: usize>(&mut self, x: Tensor<D>, slope: Tensor<D>) -> Tensor<D> {
            let lengths = self.0.iter().map(|&length| length as f32).collect::<Vec<_>>();
            let mut dims = [1; D];
            dims[0] = lengths.len();
            let lengths = Tensor::<1>::from_floats(lengths.as_slice(), &x.device()).reshape(dims);
            x - slope * lengths
        }
    }
    let mut tried = lengths.to_vec();
    let moved = |lengths: &[f64]| {
        states
            .iter()
            .cloned()
            .zip(slopes)
            .map(|(state, slope)| state.zip(slope.clone(), Move(lengths)))
            .collect::<Vec<_>>()
    };
    for _ in 0..HALVINGS {
        let after = energy(&moved(&tried));
        let uphill = |image: usize| after[image].is_nan() || after[image] > before[image];
        let all = (0..before.len()).filter(|&image| tried[image] > 0.0 && uphill(image)).collect::<Vec<_>>();
        if all.is_empty() {
            break;
        }
        all.into_iter().for_each(|image| tried[image] *= 0.5);
    }
    let after = energy(&moved(&tried));
    for (image, length) in tried.iter_mut().enumerate() {
        // A length that worked may grow again; one that never did is no step, and is tried anew shorter.
        let works = after[image] <= before[image];
        lengths[image] = if works { *length * 1.5 } else { *length };
        if !works {
            *length = 0.0;
        }
    }
    moved(&tried)
}
