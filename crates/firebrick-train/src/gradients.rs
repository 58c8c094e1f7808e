//! Gradients by the name of their parameter.

use std::collections::BTreeMap;
use std::ops::Add;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use firebrick_kernels::square_sum;
use firebrick_tensor::{ParameterMapper, ParameterVisitor, map_parameters, visit_parameters};

/// The gradient of every parameter of a module, flat, under the parameter's name, on the plain device.
///
/// Keyed by name and in the order of names, so that two runs sum in the same order and write the same bytes.
#[derive(Clone, Debug, Default)]
pub struct Gradients(pub(crate) BTreeMap<String, Tensor<1>>);

impl Gradients {
    /// The gradients of a scalar with respect to the module's parameters; parameters that it does not depend on are absent.
    ///
    /// # Panics
    /// If the module is not on a training device.
    pub fn of<M: Module>(module: &M, loss: &Tensor<1>) -> Self {
        let mut collect = Collect { gradients: loss.backward(), by_name: Self::default() };
        visit_parameters(module, &mut collect);
        collect.by_name
    }

    /// The length of all gradients as one vector.
    ///
    /// ```text
    /// ‖g‖ = √(Σ gᵢ²)
    /// ```
    pub fn global_norm(&self) -> f64 {
        let squares = self.0.values().map(|gradient| f64::from(square_sum(gradient.clone()).into_scalar::<f32>()));
        squares.sum::<f64>().sqrt()
    }

    /// These, scaled down to this global norm if they are longer.
    ///
    /// ```text
    /// g · min(1, max_norm / ‖g‖)
    /// ```
    ///
    /// `norm` is [`global_norm`](Self::global_norm), computed by the caller who reports it.
    #[must_use]
    pub fn clip(mut self, norm: f64, max_norm: f64) -> Self {
        if norm > max_norm {
            let factor = max_norm / norm;
            self.0 = self.0.into_iter().map(|(name, gradient)| (name, gradient * factor)).collect();
        }
        self
    }

    /// The gradient of one parameter, flat.
    pub fn named(&self, name: &str) -> Option<&Tensor<1>> {
        self.0.get(name)
    }
}

/// The sum, parameter by parameter.
impl Add for Gradients {
    type Output = Self;

    fn add(mut self, others: Self) -> Self {
        for (name, gradient) in others.0 {
            let sum = match self.0.remove(&name) {
                Some(mine) => mine + gradient,
                None => gradient,
            };
            self.0.insert(name, sum);
        }
        self
    }
}

struct Collect {
    gradients: burn::tensor::Gradients,
    by_name: Gradients,
}

impl ParameterVisitor for Collect {
    fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = parameter.val().grad_remove(&mut self.gradients) {
            let length = gradient.shape().num_elements();
            self.by_name.0.insert(name.to_owned(), gradient.without_autodiff().reshape([length]));
        }
    }
}

/// A copy of a module whose parameters are leaves of their own, so that threads build graphs that share nothing.
pub(crate) fn fork<M: Module>(module: &M) -> M {
    struct Fork;
    impl ParameterMapper for Fork {
        fn map<const D: usize>(&mut self, _name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            parameter.map(|tensor| {
                let trained = tensor.is_require_grad();
                if tensor.is_autodiff() {
                    tensor.without_autodiff().autodiff().set_require_grad(trained)
                } else {
                    tensor
                }
            })
        }
    }
    map_parameters(module.clone(), &mut Fork)
}
