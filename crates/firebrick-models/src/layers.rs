//! Norms and linear maps, with weights from named seeds.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use firebrick_kernels::{PackedWeight, Precision};
use firebrick_types::Seed;

use crate::config::Norm;
use crate::lora::{Lora, LoraConfig};

/// Layer norm, or RMS norm where there is no bias.
#[derive(Module, Debug)]
pub(crate) struct NormLayer {
    weight: Param<Tensor<1>>,
    bias: Option<Param<Tensor<1>>>,
    epsilon: f64,
}

impl NormLayer {
    pub(crate) fn new(kind: Norm, d_model: usize, epsilon: f64, device: &Device) -> Self {
        let bias = match kind {
            Norm::Layer => Some(Param::from_tensor(Tensor::zeros([d_model], device))),
            Norm::Rms => None,
        };
        Self { weight: Param::from_tensor(Tensor::ones([d_model], device)), bias, epsilon }
    }

    /// `[tokens, d_model]` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            Some(bias) => firebrick_kernels::layer_norm(x, self.weight.val(), bias.val(), self.epsilon),
            None => firebrick_kernels::rms_norm(x, self.weight.val(), self.epsilon),
        }
    }
}

/// Where first weights come from.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// A normal distribution.
    Drawn(Seed),
    /// They are 0, and take no memory yet: those of a file come in their place.
    Zero,
}

impl Source {
    pub(crate) fn derive(self, name: &str) -> Self {
        match self {
            Self::Drawn(seed) => Self::Drawn(seed.derive(name)),
            Self::Zero => Self::Zero,
        }
    }

    pub(crate) fn at(self, place: &[u64]) -> Self {
        match self {
            Self::Drawn(seed) => Self::Drawn(seed.at(place)),
            Self::Zero => Self::Zero,
        }
    }
}

/// Numbers of a normal distribution with mean 0, `[rows, columns]`.
pub(crate) fn normal(shape: [usize; 2], deviation: f64, source: Source, device: &Device) -> Tensor<2> {
    let Source::Drawn(seed) = source else { return Tensor::<2>::zeros([1, 1], device).expand(shape) };
    let values = seed.normals(shape[0] * shape[1], deviation);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A linear map.
#[derive(Module, Debug)]
pub(crate) struct Projection {
    /// `[d_input, d_output]`
    weight: Param<Tensor<2>>,
    /// `[d_output]`
    bias: Option<Param<Tensor<1>>>,
    lora: Option<Lora>,
    #[module(skip)]
    prepacked: Option<PackedWeight>,
    #[module(skip)]
    precision: Precision,
}

impl Projection {
    /// Weights of standard deviation `gain / √d_input`: `gain` 1 keeps the size of what it reads. Its bias, if it has one, is 0.
    pub(crate) fn new([d_input, d_output]: [usize; 2], bias: bool, gain: f64, source: Source, device: &Device) -> Self {
        let deviation = gain / (d_input as f64).sqrt();
        Self {
            weight: Param::from_tensor(normal([d_input, d_output], deviation, source, device)),
            bias: bias.then(|| Param::from_tensor(Tensor::zeros([d_output], device))),
            lora: None,
            prepacked: None,
            precision: Precision::F32,
        }
    }

    /// The map that gives 0.
    pub(crate) fn zero([d_input, d_output]: [usize; 2], device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::zeros([d_input, d_output], device)),
            bias: Some(Param::from_tensor(Tensor::zeros([d_output], device))),
            lora: None,
            prepacked: None,
            precision: Precision::F32,
        }
    }

    /// The same map with biases of 0, if it has some.
    pub(crate) fn without_bias(self) -> Self {
        let bias = self.bias.map(|bias| Param::from_tensor(bias.val().zeros_like()));
        Self { bias, ..self }
    }

    /// The same map with an adapter beside it.
    pub(crate) fn adapted(self, config: &LoraConfig, seed: Seed) -> Self {
        let weight = self.weight.val();
        let lora = Lora::new(weight.dims(), config, seed, &weight.device());
        Self { lora: Some(lora), ..self }
    }

    /// The map that this is with its adapter, without one.
    pub(crate) fn merged(self) -> Self {
        let Some(lora) = self.lora else { return self };
        let weight = self.weight.map(|weight| {
            let trained = weight.is_autodiff();
            let merged = (weight.cast(DType::F32) + lora.delta()).without_autodiff();
            if trained { merged.autodiff().require_grad() } else { merged }
        });
        Self { weight, lora: None, ..self }
    }

    /// The same map, faster for a few rows at a time.
    pub(crate) fn prepacked(self) -> Self {
        Self { prepacked: PackedWeight::of(self.weight.val(), self.precision), ..self }
    }

    /// The same map, whose factors are rounded to this.
    pub(crate) fn in_precision(self, precision: Precision) -> Self {
        Self { precision, prepacked: None, ..self }
    }

    /// The map without its adapter; it shares the weights.
    pub(crate) fn bare(&self) -> Self {
        Self { lora: None, ..self.clone() }
    }

    /// `[tokens, d_input]` to `[tokens, d_output]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        let y = match &self.prepacked {
            Some(prepacked) => prepacked.linear(x.clone(), weight, bias),
            None => firebrick_kernels::linear_in(self.precision, x.clone(), weight, bias),
        };
        match &self.lora {
            Some(lora) => y + lora.forward(x),
            None => y,
        }
    }
}

/// A table of vectors by number.
#[derive(Module, Debug)]
pub(crate) struct Embedding {
    /// `[entries, d_model]`
    pub(crate) weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Normal numbers of this standard deviation.
    pub(crate) fn new(shape: [usize; 2], deviation: f64, source: Source, device: &Device) -> Self {
        Self { weight: Param::from_tensor(normal(shape, deviation, source, device)) }
    }

    /// `[tokens]` to `[tokens, d_model]`.
    pub(crate) fn forward(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        firebrick_kernels::embedding(self.weight.val(), ids)
    }
}
