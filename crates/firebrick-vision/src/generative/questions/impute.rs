//! What may be hidden, in several ways at once: the classifier's answer in the mean over all of them.

use burn::tensor::{Tensor, TensorData, activation};

use crate::Error;
use crate::classifiers::Classifier;
use crate::generative::evidence::{Evidence, Query, filled};
use crate::generative::exemplars::{Exemplars, Filling};
use crate::generative::model::GenerativeModel;

/// The constants of an imputation; to be chosen on a validation split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImputeConfig {
    /// Remembered images of each class that its prior is made of.
    pub neighbours: usize,
    /// λ, the variance of a pixel beyond what neighbours say.
    pub noise: f64,
    /// What log-likelihoods are divided by: pixels are not independent.
    pub temperature: f64,
}

impl Default for ImputeConfig {
    fn default() -> Self {
        Self { neighbours: 120, noise: 0.02, temperature: 8.0 }
    }
}

/// Pictures filled in as every class has it.
#[derive(Clone, Debug)]
pub struct Imputation {
    /// The likeliest label of each.
    pub labels: Vec<usize>,
    /// The log-probability of every label, `[batch, classes]`.
    pub log_scores: Tensor<2>,
    /// What is seen where it is seen, the mean of all fillings elsewhere.
    pub images: Tensor<4>,
}

/// The mean of the classifier's answers to a picture filled in as every class would have it, whose prior is made of the remembered
/// images that are nearest to what is seen.
///
/// ```text
/// w_c ∝ p(x_seen | c)^(1/T)
/// p(y | x_seen) = Σ_c w_c p_CNN(y | x_seen, E[x_hidden | x_seen, c])
/// ```
///
/// Multiple imputation (Rubin 1987, *Multiple imputation for nonresponse in surveys*) with the classes as what is drawn: where
/// nothing is hidden it is the classifier's own answer. The mean of the fillings has the least square error that the prior allows.
/// A prior that is made when a picture is seen (locally weighted learning, Atkeson, Moore and Schaal 1997) is a mixture with as many
/// components as there are pictures to ask about.
///
/// A clamped label fills in alone, and the labels are the classifier's all the same.
///
/// # Errors
/// If images or mask are of another size, or no image of a clamped label is remembered.
///
/// # Panics
/// If the remembered images are of another size, there is not one clamped label of each picture, or a number of the constants is not
/// positive.
pub fn impute(
    model: &GenerativeModel,
    evidence: &Evidence,
    exemplars: &Exemplars,
    query: &Query,
    config: &ImputeConfig,
) -> Result<Imputation, Error> {
    let ImputeConfig { neighbours, noise, temperature } = *config;
    assert!(neighbours > 0 && noise > 0.0 && temperature > 0.0, "{config:?} must be positive");
    evidence.checked(model.network().image())?;
    let [batch, ..] = evidence.images.dims();
    let mut fillings = exemplars.fillings(evidence, neighbours, noise);
    if let Query::Clamp(labels) = query {
        assert_eq!(labels.len(), batch, "one label of each picture");
        for (image, &class) in labels.iter().enumerate() {
            if fillings.iter().all(|filling| filling.class != class) {
                return Err(Error::EmptyClass { class });
            }
            let others = fillings.iter_mut().filter(|filling| filling.class != class);
            others.for_each(|filling| filling.log_likelihoods[image] = f64::NEG_INFINITY);
        }
    }
    let most =
        |image: usize| fillings.iter().map(|filling| filling.log_likelihoods[image]).fold(f64::NEG_INFINITY, f64::max);
    let weight = |filling: &Filling, image: usize| ((filling.log_likelihoods[image] - most(image)) / temperature).exp();
    let total = |image: usize| fillings.iter().map(|filling| weight(filling, image)).sum::<f64>();
    let device = evidence.images.device();
    let mut images = evidence.images.zeros_like();
    let mut scores = Tensor::<2>::zeros([batch, model.network().classes()], &device);
    for filling in &fillings {
        let weights = (0..batch).map(|image| (weight(filling, image) / total(image)) as f32).collect::<Vec<_>>();
        let weights = Tensor::<1>::from_data(TensorData::new(weights, [batch]), &device);
        let filled = filled(evidence, filling.expected.clone().clamp(0.0, 1.0));
        let answers = activation::softmax(model.network().cnn().logits(filled.clone()), 1);
        scores = scores + answers * weights.clone().reshape([batch, 1]);
        images = images + filled * weights.reshape([batch, 1, 1, 1]);
    }
    let labels = scores.clone().argmax(1).into_data().iter::<i64>().map(|label| label as usize).collect();
    // What is seen is not left to the rounding of weights that add up to 1.
    Ok(Imputation { labels, log_scores: scores.clamp_min(1e-30).log(), images: filled(evidence, images) })
}
