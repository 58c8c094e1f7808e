//! Models as folders: the classifier in `cnn`, `model.json` and `model.safetensors`.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use firebrick_tensor::Parameters;
use serde::{Deserialize, Serialize};

use super::GenerativeModel;
use super::belief::Belief;
use super::decoder::Decoder;
use super::network::Network;
use super::prior::Component;
use crate::Error;
use crate::classifiers::{open_cnn, save_cnn};

const CNN: &str = "cnn";
const DESCRIPTION: &str = "model.json";
const WEIGHTS: &str = "model.safetensors";

/// What the tensors do not tell.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// Of each component of the prior.
    components: Vec<ComponentRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ComponentRecord {
    class: usize,
    log_weight: f64,
}

impl GenerativeModel {
    /// Writes the model into a folder that exists.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let failed = |path: PathBuf| move |source| Error::Write { path, source };
        let cnn = dir.join(CNN);
        fs::create_dir_all(&cnn).map_err(failed(cnn.clone()))?;
        save_cnn(self.network.cnn(), &cnn)?;
        let mut tensors = Parameters::default();
        put(&mut tensors, "pixels.mean", self.pixels.mean.clone());
        put(&mut tensors, "pixels.variance", self.pixels.variance.clone());
        for (index, (decoder, switches)) in self.decoders.iter().zip(&self.switches).enumerate() {
            put(&mut tensors, &format!("decoders.{index}.weight"), decoder.weight.clone());
            put(&mut tensors, &format!("decoders.{index}.bias"), decoder.bias.clone());
            put(&mut tensors, &format!("decoders.{index}.noise"), decoder.noise.clone());
            put(&mut tensors, &format!("switches.{index}"), switches.clone());
        }
        for (index, component) in self.prior.iter().enumerate() {
            put(&mut tensors, &format!("prior.{index}.mean"), component.mean.clone());
            put(&mut tensors, &format!("prior.{index}.loadings"), component.loadings.clone());
            put(&mut tensors, &format!("prior.{index}.noise"), component.noise.clone());
        }
        let record =
            |component: &Component| ComponentRecord { class: component.class, log_weight: component.log_weight };
        let description = Description { components: self.prior.iter().map(record).collect() };
        let json = serde_json::to_vec_pretty(&description).expect("plain numbers can be written as JSON");
        for (name, bytes) in [(DESCRIPTION, json), (WEIGHTS, tensors.to_bytes())] {
            let path = dir.join(name);
            fs::write(&path, bytes).map_err(failed(path.clone()))?;
        }
        Ok(())
    }

    /// Reads a model from a folder.
    ///
    /// # Errors
    /// If a file is missing or damaged, or a tensor is missing, surplus or of another shape than the classifier asks for; it is named.
    pub fn open(dir: &Path, device: &Device) -> Result<Self, Error> {
        let network = Network::of(open_cnn(&dir.join(CNN), device)?)?;
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source }).map(|bytes| (path, bytes))
        };
        let (path, json) = read(DESCRIPTION)?;
        let Description { components } = serde_json::from_slice(&json)
            .map_err(|error| Error::Damaged { path: path.clone(), what: error.to_string() })?;
        if let Some(record) = components.iter().find(|record| record.class >= network.classes()) {
            return Err(Error::Class { class: record.class, classes: network.classes() });
        }
        if let Some(class) = (0..network.classes()).find(|class| components.iter().all(|known| known.class != *class)) {
            return Err(Error::Damaged { path, what: format!("no component of class {class}") });
        }
        let (path, bytes) = read(WEIGHTS)?;
        let damaged = |what: String| Error::Damaged { path: path.clone(), what };
        let tensors = Parameters::from_bytes(&bytes).map_err(|error| damaged(error.to_string()))?;
        let mut reader = TensorReader { tensors, device, missing: None };
        let [height, width, channels] = network.image();
        let mut input = network.image();
        let (mut decoders, mut switches) = (Vec::new(), Vec::new());
        for (index, block) in network.blocks.iter().enumerate() {
            let [size, _, reads, gives] = block.weight.dims();
            let [down, across, _] = block.shape;
            decoders.push(Decoder {
                weight: reader.take(&format!("decoders.{index}.weight"), [size, size, gives, reads]),
                bias: reader.take(&format!("decoders.{index}.bias"), [reads]),
                noise: reader.take(&format!("decoders.{index}.noise"), [reads]),
                window: block.window,
                rectified: index > 0,
            });
            let shape = [network.classes(), down, across, gives, block.pool * block.pool];
            switches.push(reader.take(&format!("switches.{index}"), shape));
            input = block.shape;
        }
        let dims = height * width * channels + input.iter().product::<usize>();
        let mut prior = Vec::new();
        for (index, ComponentRecord { class, log_weight }) in components.into_iter().enumerate() {
            let name = |part| format!("prior.{index}.{part}");
            let factors = reader.columns(&name("loadings"));
            prior.push(Component {
                class,
                log_weight,
                mean: reader.take(&name("mean"), [dims]),
                loadings: reader.take(&name("loadings"), [dims, factors]),
                noise: reader.take(&name("noise"), [dims]),
            });
        }
        let pixels = Belief {
            mean: reader.take("pixels.mean", [1, height, width, channels]),
            variance: reader.take("pixels.variance", [1, height, width, channels]),
        };
        let surplus = reader.tensors.iter().map(|(name, ..)| format!("surplus tensor `{name}`")).next();
        match reader.missing.or(surplus) {
            Some(what) => Err(damaged(what)),
            None => Ok(Self::of(network, decoders, prior, switches, pixels)),
        }
    }
}

fn put<const D: usize>(tensors: &mut Parameters, name: &str, tensor: Tensor<D>) {
    let dims = tensor.dims().to_vec();
    tensors.insert(name, dims, tensor.into_data().iter::<f32>().collect());
}

/// The tensors of a file, each taken once, and what was wrong first.
struct TensorReader<'a> {
    tensors: Parameters,
    device: &'a Device,
    missing: Option<String>,
}

impl TensorReader<'_> {
    /// A tensor of this shape; zeros where the file has none, which is told in the end.
    fn take<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D> {
        let found = self.tensors.get(name).map(|(found, _)| found.to_vec());
        let values = self.tensors.remove(name);
        match (found, values) {
            (Some(found), Some(values)) if found == shape => {
                Tensor::from_data(TensorData::new(values, shape), self.device)
            }
            (found, _) => {
                let what = match found {
                    Some(found) => format!("tensor `{name}` has shape {found:?}, the model needs {shape:?}"),
                    None => format!("missing tensor `{name}`"),
                };
                self.missing.get_or_insert(what);
                // Takes no memory: a shape of a file must not make us allocate it.
                Tensor::<1>::zeros([1], self.device).reshape([1; D]).expand(shape)
            }
        }
    }

    /// The columns of a matrix, 1 where there is none.
    fn columns(&self, name: &str) -> usize {
        match self.tensors.get(name) {
            Some(([_, columns], _)) => *columns,
            _ => 1,
        }
    }
}
