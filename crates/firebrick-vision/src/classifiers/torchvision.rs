//! Weights of sequential classifiers in torchvision's layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use firebrick_tensor::{Parameters, ParametersError};

use super::cnn::Cnn;
use super::config::{CnnConfig, CnnLayer};
use crate::Error;

/// What torch adds to a variance before its root.
const NORM_EPSILON: f64 = 1e-5;

/// Reads a classifier from a safetensors file in torchvision's layout: `[out, in, height, width]` of convolutions, `[out, in]` of linear
/// maps.
///
/// Layers that have weights take the file's in order: those of convolutions are the tensors of four dimensions, those of linear maps
/// of two, each sorted by the numbers in their names, whatever else the names say (`features.0.weight`, `conv1.weight`). Batch norms
/// are folded into the convolutions before them:
///
/// ```text
/// W' = γ / √(σ² + 10⁻⁵) W        b' = γ / √(σ² + 10⁻⁵) (b − μ) + β
/// ```
///
/// # Errors
/// If the file cannot be read, or its tensors are not those of the layers; the first that does not fit is named.
pub fn open_torchvision(path: &Path, config: &CnnConfig, device: &Device) -> Result<Cnn, Error> {
    let model = config.blank(device)?;
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let unfit = |source| Error::Parameters { path: path.into(), source };
    let tensors =
        Parameters::from_bytes_where(&bytes, |name| !name.ends_with(".num_batches_tracked")).map_err(unfit)?;
    let parameters = parameters(config, &tensors).map_err(|error| match error {
        Mismatch::Tensor(source) => unfit(source),
        Mismatch::Plan(reason) => Error::Plan { path: path.into(), reason },
    })?;
    parameters.load(model).map_err(unfit)
}

enum Mismatch {
    Tensor(ParametersError),
    Plan(String),
}

/// A tensor of a file.
struct FileTensor<'a> {
    name: String,
    shape: &'a [usize],
    values: &'a [f32],
}

impl FileTensor<'_> {
    fn expect(&self, expected: &[usize]) -> Result<(), Mismatch> {
        if self.shape == expected {
            return Ok(());
        }
        Err(Mismatch::Tensor(ParametersError::Shape {
            name: self.name.clone(),
            found: self.shape.to_vec(),
            expected: expected.to_vec(),
        }))
    }
}

/// Our parameters of the file's.
fn parameters(config: &CnnConfig, tensors: &Parameters) -> Result<Parameters, Mismatch> {
    let shapes = config.shapes().map_err(|error| Mismatch::Plan(error.to_string()))?;
    let find = |name: &str, part: &str| {
        let name = format!("{name}.{part}");
        tensors.get(&name).map(|(shape, values)| FileTensor { name, shape, values })
    };
    let modules = tensors.iter().filter_map(|(name, shape, _)| Some((name.strip_suffix(".weight")?, shape.len())));
    let mut by_dims = BTreeMap::<usize, Vec<&str>>::new();
    modules.for_each(|(name, dims)| by_dims.entry(dims).or_default().push(name));
    by_dims.values_mut().for_each(|names| names.sort_by_key(|name| by_number(name)));
    let mut of = |dims: usize| by_dims.remove(&dims).unwrap_or_default();
    let (convolutions, maps, norms) = (of(4), of(2), of(1));
    let convolution = |layer: &CnnLayer| matches!(layer, CnnLayer::Conv { .. });
    let planned = config.layers.iter().filter(|layer| convolution(layer)).count();
    let linear = config.layers.iter().filter(|layer| layer.is_map()).count() - planned;
    for (what, found, planned) in [("convolutions", convolutions.len(), planned), ("linear maps", maps.len(), linear)] {
        if found != planned {
            return Err(Mismatch::Plan(format!("it holds {found} {what}, the classifier has {planned}")));
        }
    }
    if !norms.is_empty() && norms.len() != convolutions.len() {
        let reason = format!("it holds {} batch norms, {} convolutions", norms.len(), convolutions.len());
        return Err(Mismatch::Plan(reason + "; every convolution is followed by a norm, or none is"));
    }

    let mut found = Parameters::default();
    let (mut convolutions, mut maps, mut norms) = (convolutions.into_iter(), maps.into_iter(), norms.into_iter());
    let before = std::iter::once(&config.image).chain(&shapes);
    let weighted = config.layers.iter().zip(before).filter(|(layer, _)| layer.is_map());
    for (index, (layer, &[height, width, channels])) in weighted.enumerate() {
        let (name, out, window) = match *layer {
            CnnLayer::Conv { channels: out, size, .. } => (convolutions.next(), out, [size, size]),
            CnnLayer::Linear { width: out } => (maps.next(), out, [height, width]),
            _ => continue,
        };
        let name = name.expect("there are as many as layers");
        let weight = find(name, "weight").expect("the name was found by it");
        let inputs = window[0] * window[1] * channels;
        match layer {
            CnnLayer::Conv { .. } => weight.expect(&[out, channels, window[0], window[1]])?,
            _ => weight.expect(&[out, inputs])?,
        }
        // A linear map reads its image channel by channel there, pixel by pixel here, as a convolution does.
        let mut weights = transposed(weight.values, out, channels, window[0] * window[1]);
        let mut bias = vec![0.0; out];
        if let Some(found) = find(name, "bias") {
            found.expect(&[out])?;
            bias.copy_from_slice(found.values);
        }
        if let Some(norm) = norms.next().filter(|_| convolution(layer)) {
            fold(&mut weights, &mut bias, norm, |part| {
                let name = format!("{norm}.{part}");
                let tensor = find(norm, part).ok_or(Mismatch::Tensor(ParametersError::Missing(vec![name])))?;
                tensor.expect(&[out])?;
                Ok(tensor.values)
            })?;
        }
        found.insert(format!("maps.{index}.weight"), vec![inputs, out], weights);
        found.insert(format!("maps.{index}.bias"), vec![out], bias);
    }
    Ok(found)
}

/// `[out, channels, places]` as `[places, channels, out]`.
fn transposed(values: &[f32], out: usize, channels: usize, places: usize) -> Vec<f32> {
    let mut transposed = vec![0.0; values.len()];
    for (index, &value) in values.iter().enumerate() {
        let (to, channel, place) = (index / places / channels, index / places % channels, index % places);
        transposed[(place * channels + channel) * out + to] = value;
    }
    transposed
}

/// The convolution and the norm after it as one convolution.
fn fold<'a>(
    weights: &mut [f32],
    bias: &mut [f32],
    norm: &str,
    part: impl Fn(&str) -> Result<&'a [f32], Mismatch>,
) -> Result<(), Mismatch> {
    let (scale, shift) = (part("weight")?, part("bias")?);
    let (mean, variance) = (part("running_mean")?, part("running_var")?);
    if let Some(variance) = variance.iter().find(|variance| f64::from(**variance) + NORM_EPSILON <= 0.0) {
        return Err(Mismatch::Plan(format!("`{norm}.running_var` holds {variance}, which is no variance")));
    }
    let factors = scale.iter().zip(variance);
    let factors = factors.map(|(&scale, &variance)| f64::from(scale) / (f64::from(variance) + NORM_EPSILON).sqrt());
    let factors = factors.collect::<Vec<_>>();
    for row in weights.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(&factors).for_each(|(weight, factor)| *weight = (f64::from(*weight) * factor) as f32);
    }
    for (out, bias) in bias.iter_mut().enumerate() {
        *bias = (factors[out] * f64::from(*bias - mean[out]) + f64::from(shift[out])) as f32;
    }
    Ok(())
}

/// A name as text and numbers in turn, so that `features.10` comes after `features.3`.
fn by_number(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(digits);
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        parts.push((text.to_owned(), after[..end].parse().unwrap_or(0)));
        rest = &after[end..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_their_numbers() {
        let mut names = ["features.10", "features.3", "features.0"];
        names.sort_by_key(|name| by_number(name));
        assert_eq!(names, ["features.0", "features.3", "features.10"]);
    }

    #[test]
    fn files_of_other_layers_are_refused_by_name() {
        let config = CnnConfig::image(4, 4, 1).conv(2, 3, 1, 1).relu().linear(3);
        let file = |tensors: &[(&str, &[usize])]| {
            let mut parameters = Parameters::default();
            for (name, shape) in tensors {
                parameters.insert(*name, shape.to_vec(), vec![0.5; shape.iter().product()]);
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model.safetensors");
            fs::write(&path, parameters.to_bytes()).unwrap();
            let opened = open_torchvision(&path, &config, &Device::flex());
            opened.map(|_| ()).map_err(|error| error.to_string())
        };
        type Shaped = (&'static str, &'static [usize]);
        let (conv, fc): (Shaped, Shaped) = (("conv1.weight", &[2, 1, 3, 3]), ("fc.weight", &[3, 32]));
        assert_eq!(file(&[conv, fc]), Ok(()));
        let told = |tensors: &[(&str, &[usize])]| file(tensors).unwrap_err();
        assert!(told(&[conv]).ends_with("it holds 0 linear maps, the classifier has 1"));
        assert!(told(&[("conv1.weight", &[2, 1, 5, 5]), fc]).contains("`conv1.weight` has shape [2, 1, 5, 5]"));
        assert!(told(&[conv, ("fc.weight", &[3, 16])]).contains("the model needs [3, 32]"));
        assert!(told(&[conv, fc, ("fc.bias", &[2])]).contains("`fc.bias` has shape [2]"));
        assert!(told(&[conv, fc, ("bn.weight", &[2])]).contains("missing tensors: bn.bias"));
        let twice: [Shaped; 4] = [conv, fc, ("bn1.weight", &[2]), ("bn2.weight", &[2])];
        assert!(told(&twice).contains("it holds 2 batch norms, 1 convolutions"));
    }
}
