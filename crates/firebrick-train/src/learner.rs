//! A model beside the optimiser that trains it.

use burn::module::Module;
use firebrick_tensor::{Parameters, ParametersError, Workers};

use crate::{AdamW, AdamWConfig, Gradients};

/// A model beside the optimiser that trains it.
#[derive(Clone, Debug)]
pub struct Learner<M> {
    model: M,
    optimizer: AdamW,
    clip_norm: f64,
}

/// A loss or a gradient that is not a finite number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NonFinite {
    /// Which: `loss` or `grad_norm`.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
}

impl<M: Module> Learner<M> {
    /// A model on a training device, and an optimiser that has seen nothing; gradients longer than `clip_norm` are scaled down to it.
    pub fn new(model: M, adamw: AdamWConfig, clip_norm: f64) -> Self {
        Self { model, optimizer: AdamW::new(adamw), clip_norm }
    }

    /// The model as it is now.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The model as it is now, without its optimiser.
    pub fn into_model(self) -> M {
        self.model
    }

    /// The learner after one step along the gradients of a loss of this value, and the gradients' norm before it was clipped.
    ///
    /// # Errors
    /// If the loss or the norm is not finite.
    pub fn step(
        self,
        loss: f64,
        gradients: Gradients,
        learning_rate: f64,
        workers: &Workers,
    ) -> Result<(Self, f64), NonFinite> {
        let norm = gradients.global_norm();
        for (what, value) in [("loss", loss), ("grad_norm", norm)] {
            if !value.is_finite() {
                return Err(NonFinite { what, value });
            }
        }
        let Self { model, mut optimizer, clip_norm } = self;
        let model = optimizer.step(model, gradients.clip(norm, clip_norm), learning_rate, workers);
        Ok((Self { model, optimizer, clip_norm }, norm))
    }
}

/// What a loop trains: a [`Learner`], or two of them that learn side by side.
pub trait Trained: Sized {
    /// Weights and moments by name, and the steps of each optimiser.
    fn state(&self) -> (Parameters, Vec<u64>);

    /// As [`state`](Self::state) described it.
    ///
    /// # Errors
    /// If the tensors are not those of the models.
    fn restore(self, tensors: &Parameters, steps: &[u64]) -> Result<Self, ParametersError>;
}

impl<M: Module> Trained for Learner<M> {
    fn state(&self) -> (Parameters, Vec<u64>) {
        let (steps, moments) = self.optimizer.state();
        let tensors = Parameters::default().with("model.", Parameters::trained(&self.model)).with("adamw.", moments);
        (tensors, vec![steps])
    }

    fn restore(self, tensors: &Parameters, steps: &[u64]) -> Result<Self, ParametersError> {
        let device = self.model.devices().into_iter().next().expect("a module has parameters").inner();
        let model = tensors.under("model.").load_trained(self.model)?;
        let steps = steps.first().copied().unwrap_or(0);
        let optimizer = AdamW::restore(self.optimizer.config(), steps, &tensors.under("adamw."), &device);
        Ok(Self { model, optimizer, clip_norm: self.clip_norm })
    }
}

impl<A: Module, B: Module> Trained for (Learner<A>, Learner<B>) {
    fn state(&self) -> (Parameters, Vec<u64>) {
        let ((first, first_steps), (second, second_steps)) = (self.0.state(), self.1.state());
        (Parameters::default().with("0.", first).with("1.", second), [first_steps, second_steps].concat())
    }

    fn restore(self, tensors: &Parameters, steps: &[u64]) -> Result<Self, ParametersError> {
        let (first, second) = steps.split_at(steps.len().min(1));
        Ok((self.0.restore(&tensors.under("0."), first)?, self.1.restore(&tensors.under("1."), second)?))
    }
}
