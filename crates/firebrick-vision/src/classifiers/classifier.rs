//! How training and questions see a classifier.

use burn::tensor::Tensor;
use firebrick_types::Seed;

/// A model that gives every image a score of each class.
pub trait Classifier {
    /// The scores before any softmax, `[batch, classes]`, of images `[batch, height, width, channels]`.
    fn logits(&self, images: Tensor<4>) -> Tensor<2>;

    /// The same in training, where what is random depends on each image's seed alone.
    fn training_logits(&self, images: Tensor<4>, seeds: &[Seed]) -> Tensor<2>;
}
