//! AdamW over named parameters.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use firebrick_kernels::{AdamWStep, adamw};
use firebrick_tensor::{ParameterMapper, ParameterVisitor, Parameters, Workers, map_parameters, visit_parameters};
use serde::{Deserialize, Serialize};

use crate::Gradients;

/// Where AdamW's ε stands (T-19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpsilonForm {
    /// `m̂ / (√v̂ + ε)`: PyTorch's.
    #[default]
    Pytorch,
    /// `m̂ / (√v̂ + ε / √(1 − β₂ᵗ))`: TensorFlow's, gentler in the first steps.
    Tensorflow,
}

/// The settings of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the mean.
    pub beta_1: f64,
    /// Decay of the mean square.
    pub beta_2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Where it is added.
    pub epsilon_form: EpsilonForm,
    /// Decoupled decay of matrices per unit of learning rate; vectors (biases, norms) do not decay.
    pub weight_decay: f64,
}

/// GPT-3's: 0.9, 0.95, 1e-8, 0.1.
impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.95, epsilon: 1e-8, epsilon_form: EpsilonForm::Pytorch, weight_decay: 0.1 }
    }
}

/// The optimiser and its moments.
///
/// ```text
/// m ← β₁ m + (1 − β₁) g        m̂ = m / (1 − β₁ᵗ)
/// v ← β₂ v + (1 − β₂) g²       v̂ = v / (1 − β₂ᵗ)
/// w ← w − η (m̂ / (√v̂ + ε) + λ w)
/// ```
///
/// Loshchilov and Hutter 2019, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101), algorithm 2, with the decay scaled by the
/// learning rate as PyTorch does. Spec: T-19.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

#[derive(Clone, Debug)]
struct Moments {
    mean: Tensor<1>,
    square: Tensor<1>,
}

impl AdamW {
    /// An optimiser that has seen nothing.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, steps: 0, moments: BTreeMap::new() }
    }

    /// The module after one step along these gradients; parameters without one stay as they are.
    ///
    /// Parameters are updated by the workers, each by itself.
    pub fn step<M: Module>(&mut self, module: M, mut gradients: Gradients, learning_rate: f64, workers: &Workers) -> M {
        self.steps += 1;
        let mut weights = Weights(Vec::new());
        visit_parameters(&module, &mut weights);
        let work = weights.0.into_iter().filter_map(|weights| {
            let gradient = gradients.0.remove(&weights.name)?;
            let moments = self.moments.remove(&weights.name);
            Some((weights, gradient, moments))
        });
        let updated = workers.map(work.collect(), |(weights, gradient, moments)| {
            let decay = if weights.is_matrix { self.config.weight_decay } else { 0.0 };
            let (updated, moments) = self.update(weights.values, gradient, moments, learning_rate, decay);
            (weights.name, updated, moments)
        });
        let mut replace = Replace(BTreeMap::new());
        for (name, weights, moments) in updated {
            self.moments.insert(name.clone(), moments);
            replace.0.insert(name, weights);
        }
        map_parameters(module, &mut replace)
    }

    /// Its settings.
    pub fn config(&self) -> AdamWConfig {
        self.config
    }

    /// The moments by name, under `mean.` and `square.`, and the number of steps.
    pub fn state(&self) -> (u64, Parameters) {
        let mut state = Parameters::default();
        for (name, Moments { mean, square }) in &self.moments {
            for (kind, tensor) in [("mean", mean), ("square", square)] {
                let values = tensor.to_data().try_to_vec::<f32>().expect("moments are f32");
                state.insert(format!("{kind}.{name}"), vec![values.len()], values);
            }
        }
        (self.steps, state)
    }

    /// The optimiser as [`state`](Self::state) described it.
    pub fn restore(config: AdamWConfig, steps: u64, state: &Parameters, device: &Device) -> Self {
        let tensor = |values: &[f32]| Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
        let squares = state.under("square.");
        let squares =
            squares.iter().map(|(name, _, values)| (name.to_owned(), tensor(values))).collect::<BTreeMap<_, _>>();
        let moments = state
            .under("mean.")
            .iter()
            .filter_map(|(name, _, values)| {
                let moments = Moments { mean: tensor(values), square: squares.get(name)?.clone() };
                Some((name.to_owned(), moments))
            })
            .collect();
        Self { config, steps, moments }
    }

    /// Weights and moments after this step.
    fn update(
        &self,
        weights: Tensor<1>,
        gradient: Tensor<1>,
        moments: Option<Moments>,
        rate: f64,
        decay: f64,
    ) -> (Tensor<1>, Moments) {
        let AdamWConfig { beta_1, beta_2, epsilon, epsilon_form, .. } = self.config;
        let correction_1 = 1.0 - beta_1.powi(self.steps as i32);
        let correction_2 = 1.0 - beta_2.powi(self.steps as i32);
        let step = AdamWStep {
            beta_1,
            beta_2,
            kept: 1.0 - rate * decay,
            mean_factor: rate / correction_1,
            root_factor: 1.0 / correction_2.sqrt(),
            epsilon: match epsilon_form {
                EpsilonForm::Pytorch => epsilon,
                EpsilonForm::Tensorflow => epsilon / correction_2.sqrt(),
            },
        };
        let Moments { mean, square } =
            moments.unwrap_or_else(|| Moments { mean: weights.zeros_like(), square: weights.zeros_like() });
        let [weights, mean, square] = adamw(weights, gradient, mean, square, step);
        (weights, Moments { mean, square })
    }
}

/// A parameter, flat, on the plain device.
struct Weight {
    name: String,
    values: Tensor<1>,
    is_matrix: bool,
}

struct Weights(Vec<Weight>);

impl ParameterVisitor for Weights {
    fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
        let tensor = parameter.val().without_autodiff();
        let length = tensor.shape().num_elements();
        self.0.push(Weight { name: name.to_owned(), values: tensor.reshape([length]), is_matrix: D > 1 });
    }
}

struct Replace(BTreeMap<String, Tensor<1>>);

impl ParameterMapper for Replace {
    fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(updated) = self.0.remove(name) else { return parameter };
        parameter.map(|tensor| {
            let updated = updated.reshape(tensor.dims());
            if tensor.is_autodiff() { updated.autodiff().require_grad() } else { updated }
        })
    }
}
