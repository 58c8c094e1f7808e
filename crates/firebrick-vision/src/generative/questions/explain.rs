//! Which label explains a picture best, and how?

use burn::tensor::Tensor;

use crate::Error;
use crate::generative::evidence::{Evidence, Query};
use crate::generative::model::GenerativeModel;
use crate::generative::passes::{Composition, MapConfig, SweepConfig, bottom_up, descend_from};
use crate::generative::rows::{chosen, pick, pick_rows};

/// The explanation of least energy by one instance, of every label; the label that explains best.
///
/// ```text
/// score_y = log p_CNN(y | x̂_y) − E_y / T
/// ```
///
/// # Errors
/// As [`descend`](crate::generative::descend).
pub fn most_probable_explanation(
    model: &GenerativeModel,
    evidence: &Evidence,
    query: &Query,
    sweep: &SweepConfig,
    config: &MapConfig,
) -> Result<MapEstimate, Error> {
    let [batch, ..] = evidence.images.dims();
    let candidates = match query {
        Query::Clamp(labels) => vec![labels.clone()],
        Query::Free => (0..model.network.classes()).map(|class| vec![class; batch]).collect(),
    };
    let seen = bottom_up(model, evidence, sweep)?;
    let mut best: Option<MapEstimate> = None;
    for labels in candidates {
        let found =
            descend_from(model, evidence, &seen, std::slice::from_ref(&labels), Composition::Max, sweep, config)?;
        let rendered = found.rendered[0].clone();
        let hidden = evidence.visible.clone().neg() + 1.0;
        let images = evidence.images.clone() * evidence.visible.clone() + rendered.clone() * hidden;
        let judged = model.network.label_log_probs(&images, &labels);
        let scores = judged
            .iter()
            .zip(&found.energy)
            .map(|(judged, energy)| judged - energy / config.energy_temperature)
            .collect();
        let found = MapEstimate { labels, scores, images, rendered, energies: vec![found.energy] };
        best = Some(match best {
            None => found,
            Some(known) => known.or_better(found),
        });
    }
    Ok(best.expect("there is a class"))
}

/// The least energy of one instance.
#[derive(Clone, Debug)]
pub struct MapEstimate {
    /// The label of each picture.
    pub labels: Vec<usize>,
    /// How well it explains the picture.
    pub scores: Vec<f64>,
    /// What is seen where it is seen, what is rendered elsewhere.
    pub images: Tensor<4>,
    /// What the instance renders.
    pub rendered: Tensor<4>,
    /// The energy of each picture's explanation by every label that was asked about, in nats: `energies[label][picture]`, or of a clamped
    /// label alone.
    pub energies: Vec<Vec<f64>>,
}

impl MapEstimate {
    fn or_better(self, other: Self) -> Self {
        let rows = chosen(|image| other.scores[image] > self.scores[image], self.scores.len());
        Self {
            labels: pick(&self.labels, &other.labels, &rows),
            scores: pick(&self.scores, &other.scores, &rows),
            images: pick_rows(self.images, other.images, &rows),
            rendered: pick_rows(self.rendered, other.rendered, &rows),
            energies: [self.energies, other.energies].concat(),
        }
    }
}
