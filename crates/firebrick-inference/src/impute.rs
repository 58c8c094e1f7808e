//! What may be hidden, in several ways at once: the classifier's answer in the mean over all of them.

use burn::tensor::{Tensor, TensorData, activation};
use firebrick_tensor::Classifier;

use crate::Error;
use crate::complete::filled;
use crate::model::GenerativeModel;
use crate::sweep::{Evidence, SweepConfig};

/// Pictures filled in as several components of the prior have it.
#[derive(Clone, Debug)]
pub struct Imputed {
    /// The likeliest label of each.
    pub labels: Vec<usize>,
    /// The log-probability of every label, `[batch, classes]`.
    pub log_scores: Tensor<2>,
    /// What is seen where it is seen, the mean of all fillings elsewhere.
    pub images: Tensor<4>,
}

impl GenerativeModel {
    /// The mean of the classifier's answers to a picture filled in by each of the likeliest components of the prior, of any class.
    ///
    /// ```text
    /// w_c ∝ p(x_seen, c)^(1/T) p_CNN(class of c | x_seen)^(1 − h)        h: the share that is hidden
    /// p(y | x_seen) = Σ_c w_c p_CNN(y | x_seen, E[x_hidden | x_seen, c])
    /// ```
    ///
    /// Multiple imputation (Rubin 1987, *Multiple imputation for nonresponse in surveys*) with the components as what is drawn: where
    /// nothing is hidden it is the classifier's own answer. The mean of the fillings has the least square error that the prior allows.
    ///
    /// # Errors
    /// If images or mask are of another size.
    ///
    /// # Panics
    /// If there are to be no components.
    pub fn impute(&self, evidence: &Evidence, components: usize, config: &SweepConfig) -> Result<Imputed, Error> {
        assert!(components > 0, "no filling to average");
        let (posteriors, classified) = self.look(evidence, config)?.parts();
        let classified = self.as_far_as_seen(evidence, classified).into_data().iter::<f64>().collect::<Vec<_>>();
        let classes = self.network().classes();
        let [batch, height, width, colours] = evidence.images.dims();
        let count = components.min(posteriors.len());
        let ranked = (0..batch).map(|image| {
            let weight = |component: usize| {
                let class = self.prior[component].class;
                posteriors[component].evidence[image] / config.temperature + classified[image * classes + class]
            };
            let mut order = (0..posteriors.len()).collect::<Vec<_>>();
            order.sort_by(|&a, &b| weight(b).total_cmp(&weight(a)));
            order.truncate(count);
            let most = weight(order[0]);
            let weights = order.iter().map(|&component| (weight(component) - most).exp()).collect::<Vec<_>>();
            let total = weights.iter().sum::<f64>();
            (order, weights.into_iter().map(|weight| (weight / total) as f32).collect::<Vec<_>>())
        });
        let ranked = ranked.collect::<Vec<_>>();
        let device = evidence.images.device();
        let mut images = evidence.images.zeros_like();
        let mut scores = Tensor::<2>::zeros([batch, classes], &device);
        for rank in 0..count {
            let chosen = ranked.iter().map(|(order, _)| order[rank]).collect::<Vec<_>>();
            let weights = ranked.iter().map(|(_, weights)| weights[rank]).collect::<Vec<_>>();
            let weights = Tensor::<1>::from_data(TensorData::new(weights, [batch]), &device);
            let (_, rendered, _) = self.render_top(&posteriors, &chosen);
            let pixels = rendered.slice([0..batch, 0..height * width * colours]);
            let filling = pixels.reshape([batch, height, width, colours]).clamp(0.0, 1.0);
            let filled = filled(evidence, filling);
            let answers = activation::softmax(self.network().cnn().logits(filled.clone()), 1);
            scores = scores + answers * weights.clone().reshape([batch, 1]);
            images = images + filled * weights.reshape([batch, 1, 1, 1]);
        }
        let labels = scores.clone().argmax(1).into_data().iter::<i64>().map(|label| label as usize).collect();
        // What is seen is not left to the rounding of weights that add up to 1.
        Ok(Imputed { labels, log_scores: scores.clamp_min(1e-30).log(), images: filled(evidence, images) })
    }
}
