//! What every model of activations answers.

use burn::tensor::Tensor;

use crate::Error;
use crate::generative::{Evidence, Query};

/// What a model makes of some pictures.
#[derive(Clone, Debug)]
pub struct Inpainting {
    /// The label of each.
    pub labels: Vec<usize>,
    /// The score of every label, greater where it explains more, `[batch, classes]`.
    pub scores: Tensor<2>,
    /// What is seen where it is seen, what is rendered elsewhere.
    pub images: Tensor<4>,
}

/// A model of a classifier's activations that can be asked backward.
pub trait ActivationModel {
    /// The label, or what it is to be, and what hides behind what is not seen.
    ///
    /// # Errors
    /// If images or mask are of another size, or a clamped label is no class.
    fn inpaint(&self, evidence: &Evidence, query: &Query) -> Result<Inpainting, Error>;
}
