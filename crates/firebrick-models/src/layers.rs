//! Layer norm and linear maps, with weights from named seeds.

use burn::module::{Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor, TensorData};
use firebrick_types::Seed;
use rand::Rng;

const EPSILON: f64 = 1e-5;

/// Layer normalisation.
///
/// ```text
/// y = (x − x̄) / √(σ² + ε) · weight + bias        ε = 10⁻⁵
/// ```
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl LayerNorm {
    pub(crate) fn new(d_model: usize, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::ones([d_model], device)),
            bias: Param::from_tensor(Tensor::zeros([d_model], device)),
        }
    }

    /// `[tokens, d_model]` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        firebrick_kernels::layer_norm(x, self.weight.val(), self.bias.val(), EPSILON)
    }
}

/// Numbers of a normal distribution with mean 0, `[rows, columns]`.
pub(crate) fn normal(shape: [usize; 2], deviation: f64, seed: Seed, device: &Device) -> Tensor<2> {
    let mut rng = seed.rng();
    let mut values = Vec::with_capacity(shape[0] * shape[1] + 1);
    while values.len() < shape[0] * shape[1] {
        // Box and Muller's transform: two uniform numbers give two normal ones.
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        let radius = (-2.0 * u.ln()).sqrt() * deviation;
        let angle = std::f64::consts::TAU * v;
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(shape[0] * shape[1]);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A linear map with weights `[d_input, d_output]` of standard deviation `gain / √d_input`, and zero bias: `gain` 1 keeps the
/// size of what it reads.
pub(crate) fn linear(d_input: usize, d_output: usize, gain: f64, seed: Seed, device: &Device) -> Linear {
    let deviation = gain / (d_input as f64).sqrt();
    Linear {
        weight: Param::from_tensor(normal([d_input, d_output], deviation, seed, device)),
        bias: Some(Param::from_tensor(Tensor::zeros([d_output], device))),
    }
}

/// A table of embeddings, `[entries, d_model]`.
pub(crate) fn embedding(entries: usize, d_model: usize, deviation: f64, seed: Seed, device: &Device) -> Embedding {
    Embedding { weight: Param::from_tensor(normal([entries, d_model], deviation, seed, device)) }
}
