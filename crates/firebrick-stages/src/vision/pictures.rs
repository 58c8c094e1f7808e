//! Pictures as stages hand them to models: as tensors, in pairs, with their labels.

use burn::tensor::Tensor;
use firebrick_vision::generative::{Exemplars, GenerativeModel};
use firebrick_vision::images::{Images, pixels};

/// Pictures that are computed at a time.
pub(super) const CHUNK: usize = 50;

/// Pictures as the classifier reads them.
pub fn all(images: &Images, model: &GenerativeModel) -> Tensor<4> {
    let bytes = (0..images.len()).flat_map(|index| images.image(index)).copied().collect::<Vec<_>>();
    pixels(&bytes, images.size(), &model.network().device())
}

/// Each picture, of so many, with the next one of another class.
pub(super) fn pairs(test: &Images, count: usize) -> Vec<[usize; 2]> {
    let partner = |first: usize| {
        let mut others = (1..test.len()).map(|step| (first + step) % test.len());
        others.find(|&other| test.labels()[other] != test.labels()[first]).unwrap_or(first)
    };
    (0..count.min(test.len())).map(|first| [first, partner(first)]).collect()
}

/// Pictures that methods to fill in learn from.
pub(super) struct TrainingSet {
    pub(super) exemplars: Exemplars,
    pub(super) images: Images,
}

/// How many labels are those of the pictures.
pub(super) fn right(labels: &[usize], pictures: &Images) -> usize {
    labels.iter().zip(pictures.labels()).filter(|(found, label)| **found == usize::from(**label)).count()
}
