//! The parameters of a module by their names.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Something that sees every parameter of a module under its name.
pub trait ParameterVisitor {
    /// Sees a parameter; its name is its path of fields, for instance `blocks.0.attn.qkv.weight`.
    fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>);
}

/// Something that replaces parameters of a module by their names.
pub trait ParameterMapper {
    /// What stands in this parameter's place.
    fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Shows every parameter of a module to a visitor, in the order of its fields.
pub fn visit_parameters<M: Module>(module: &M, visitor: &mut impl ParameterVisitor) {
    module.visit(&mut Named { path: Vec::new(), inner: visitor });
}

/// The module with every parameter replaced as the mapper says.
pub fn map_parameters<M: Module>(module: M, mapper: &mut impl ParameterMapper) -> M {
    module.map(&mut Named { path: Vec::new(), inner: mapper })
}

/// Keeps the path of fields while the framework walks through a module.
struct Named<'a, T> {
    path: Vec<String>,
    inner: &'a mut T,
}

impl<V: ParameterVisitor> ModuleVisitor for Named<'_, V> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.inner.visit(&self.path.join("."), param);
    }
}

impl<V: ParameterMapper> ModuleMapper for Named<'_, V> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.inner.map(&self.path.join("."), param)
    }
}
