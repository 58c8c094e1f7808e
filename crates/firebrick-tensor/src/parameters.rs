//! The parameters of a module by name, as a safetensors file's bytes and back.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{ParameterMapper, ParameterVisitor, map_parameters, visit_parameters};

/// Named tensors on the host, in the order of their names.
///
/// The names are the field paths of the module (`blocks.0.attn.qkv.weight`), so two modules of the same type hold the same ones, and
/// the bytes written depend on the values alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

/// Why parameters could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParametersError {
    /// The bytes are not a safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor is of another number format.
    #[error("tensor `{name}` is {found:?}, expected F32, F16 or BF16")]
    Precision {
        /// Its name.
        name: String,
        /// Its number format.
        found: Dtype,
    },
    /// Tensors that the module has and the file does not.
    #[error("missing tensors: {}", .0.join(", "))]
    Missing(Vec<String>),
    /// Tensors that the file has and the module does not.
    #[error("surplus tensors: {}", .0.join(", "))]
    Surplus(Vec<String>),
    /// A tensor of another shape.
    #[error("tensor `{name}` has shape {found:?}, the model needs {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape in the module.
        expected: Vec<usize>,
    },
}

impl Parameters {
    /// The parameters of a module.
    pub fn of<M: Module>(module: &M) -> Self {
        Self::chosen(module, false)
    }

    /// The parameters of a module on a training device that are trained: without those that are frozen.
    pub fn trained<M: Module>(module: &M) -> Self {
        Self::chosen(module, true)
    }

    fn chosen<M: Module>(module: &M, trained_only: bool) -> Self {
        let mut found = Self::default();
        visit(module, trained_only, |name, tensor| found.insert(name, tensor.shape(), tensor.values()));
        found
    }

    /// The module with its parameters replaced by these.
    ///
    /// # Errors
    /// If a tensor is missing, surplus or of another shape: all of a kind are named.
    pub fn load<M: Module>(self, module: M) -> Result<M, ParametersError> {
        self.replace(module, false)
    }

    /// The module with its trained parameters replaced by these; frozen ones stay.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_trained<M: Module>(self, module: M) -> Result<M, ParametersError> {
        self.replace(module, true)
    }

    fn replace<M: Module>(self, module: M, trained_only: bool) -> Result<M, ParametersError> {
        let mut expected = BTreeMap::new();
        visit(&module, trained_only, |name, tensor| _ = expected.insert(name, tensor.shape()));
        let missing = expected.keys().filter(|name| !self.0.contains_key(*name)).cloned().collect::<Vec<_>>();
        if !missing.is_empty() {
            return Err(ParametersError::Missing(missing));
        }
        let surplus = self.0.keys().filter(|name| !expected.contains_key(*name)).cloned().collect::<Vec<_>>();
        if !surplus.is_empty() {
            return Err(ParametersError::Surplus(surplus));
        }
        for (name, shape) in &expected {
            let (found, _) = &self.0[name];
            if found != shape {
                return Err(ParametersError::Shape {
                    name: name.clone(),
                    found: found.clone(),
                    expected: shape.clone(),
                });
            }
        }
        Ok(map_parameters(module, &mut Replace(self)))
    }

    /// Adds or replaces one tensor.
    ///
    /// # Panics
    /// If the shape does not hold that many values.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values for shape {shape:?}");
        self.0.insert(name.into(), (shape, values));
    }

    /// Takes one tensor's values out.
    pub fn remove(&mut self, name: &str) -> Option<Vec<f32>> {
        self.0.remove(name).map(|(_, values)| values)
    }

    /// One tensor: shape, values.
    pub fn get(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.0.get(name).map(|(shape, values)| (shape.as_slice(), values.as_slice()))
    }

    /// The tensors: name, shape, values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.0.iter().map(|(name, (shape, values))| (name.as_str(), shape.as_slice(), values.as_slice()))
    }

    /// How many numbers there are in all.
    pub fn count(&self) -> usize {
        self.0.values().map(|(_, values)| values.len()).sum()
    }

    /// Those whose name begins with `prefix`, without it.
    pub fn under(&self, prefix: &str) -> Self {
        Self(
            self.0
                .iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
                .collect(),
        )
    }

    /// These and the others, the others' names prefixed.
    #[must_use]
    pub fn with(mut self, prefix: &str, others: Self) -> Self {
        self.0.extend(others.0.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
        self
    }

    /// The bytes of a safetensors file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self
            .0
            .iter()
            .map(|(name, (shape, values))| {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
                (name, shape, bytes)
            })
            .collect::<Vec<_>>();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("the shape holds the values");
            (name.as_str(), view)
        });
        safetensors::serialize(views, None).expect("float tensors can be written")
    }

    /// The tensors of a safetensors file; numbers of 16 bits are widened.
    ///
    /// # Errors
    /// If the bytes are not such a file (sizes and offsets are checked first) or a tensor is neither F32, F16 nor BF16.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParametersError> {
        Self::from_bytes_where(bytes, |_| true)
    }

    /// As [`from_bytes`](Self::from_bytes), without the tensors whose name is not wanted.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub fn from_bytes_where(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Self, ParametersError> {
        let file = SafeTensors::deserialize(bytes)?;
        let mut found = Self::default();
        for (name, view) in file.tensors().into_iter().filter(|(name, _)| wanted(name)) {
            let bytes = view.data();
            let halves = bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
            let values = match view.dtype() {
                Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
                Dtype::F16 => halves.map(|b| f16::from_le_bytes(b).to_f32()).collect(),
                Dtype::BF16 => halves.map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
                found => return Err(ParametersError::Precision { name, found }),
            };
            found.0.insert(name, (view.shape().to_vec(), values));
        }
        Ok(found)
    }
}

/// Calls `f` with the name and the tensor of every parameter, or of those that are trained.
fn visit<M: Module>(module: &M, trained_only: bool, f: impl FnMut(String, &dyn Parameter)) {
    visit_parameters(module, &mut Visit { trained_only, f });
}

/// A tensor of some number of dimensions.
trait Parameter {
    fn shape(&self) -> Vec<usize>;
    fn values(&self) -> Vec<f32>;
}

impl<const D: usize> Parameter for Tensor<D> {
    fn shape(&self) -> Vec<usize> {
        self.dims().to_vec()
    }

    fn values(&self) -> Vec<f32> {
        let data = self.clone().without_autodiff().into_data().convert_dtype(DType::F32);
        data.try_to_vec().expect("converted to f32")
    }
}

struct Visit<F> {
    trained_only: bool,
    f: F,
}

impl<F: FnMut(String, &dyn Parameter)> ParameterVisitor for Visit<F> {
    fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
        let tensor = parameter.val();
        if !self.trained_only || tensor.is_require_grad() {
            (self.f)(name.to_owned(), &tensor);
        }
    }
}

struct Replace(Parameters);

impl ParameterMapper for Replace {
    fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((shape, values)) = self.0.0.remove(name) else { return parameter };
        parameter.map(|old| {
            let tensor = Tensor::from_data(TensorData::new(values, shape), &old.device());
            if old.is_require_grad() { tensor.require_grad() } else { tensor }
        })
    }
}
