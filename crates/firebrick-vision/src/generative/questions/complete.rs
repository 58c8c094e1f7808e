//! What hides behind what is not seen? Passes again until the image fits its label.

use burn::tensor::Tensor;
use firebrick_tensor::indices;

use crate::Error;
use crate::generative::evidence::{Evidence, Query};
use crate::generative::model::{Belief, GenerativeModel};
use crate::generative::passes::{
    Explanation, LayerPosterior, SweepConfig, TopDown, bottom_up, bottom_up_of, hidden_share, top_down,
};
use crate::generative::rows::{chosen, pick, pick_rows};

/// The constants of a completion; to be chosen on a validation split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompleteConfig {
    /// The likeliest labels, each of which fills in.
    pub candidates: usize,
    /// Sweeps for each, every one on what the one before filled in.
    pub sweeps: usize,
    /// η, how much the misfit of seen pixels counts beside what the classifier and the evidence say.
    pub misfit_weight: f64,
    /// σ², the variance of a seen pixel.
    pub pixel_variance: f64,
}

impl Default for CompleteConfig {
    fn default() -> Self {
        Self { candidates: 4, sweeps: 3, misfit_weight: 0.25, pixel_variance: 0.02 }
    }
}

/// Sweeps again, each on what the one before filled in, for the most probable labels; the label whose image fits best.
///
/// ```text
/// score_y = log p_CNN(y | x̄_y) + log softmax(log p(x_seen | ·) / T)_y − η Σ_seen (x̂_y − x)² / 2σ²
/// ```
///
/// # Errors
/// As [`sweep`](crate::generative::sweep).
pub fn complete(
    model: &GenerativeModel,
    evidence: &Evidence,
    config: &CompleteConfig,
    sweep: &SweepConfig,
) -> Result<Explanation, Error> {
    /// What is left uncertain of a pixel that was filled in.
    const FILLED: f64 = 0.03;
    let seen = bottom_up(model, evidence, sweep)?;
    let first = top_down(model, evidence, &seen, &Query::Free, sweep)?.explanation;
    let [batch, classes] = first.log_scores.dims();
    let candidates = config.candidates.clamp(1, classes);
    let asked = hidden_share(model, evidence).into_data().iter::<f64>().collect::<Vec<_>>();
    let order = first.log_scores.clone().argsort_descending(1).into_data().iter::<i64>().collect::<Vec<_>>();
    let mut best: Option<(Vec<f64>, Explanation)> = None;
    for candidate in 0..candidates {
        let labels = (0..batch).map(|image| order[image * classes + candidate] as usize).collect::<Vec<_>>();
        let query = Query::Clamp(labels.clone());
        let mut found = top_down(model, evidence, &seen, &query, sweep)?;
        for _ in 1..config.sweeps {
            let hidden = evidence.visible.clone().neg() + 1.0;
            let variance = (hidden * FILLED).expand(evidence.images.dims());
            let belief = Belief { mean: found.explanation.images.clone(), variance };
            found = top_down(model, evidence, &bottom_up_of(model, evidence, belief, sweep), &query, sweep)?;
        }
        let TopDown { explanation: found, tempered, .. } = found;
        let of_label = |scores: Tensor<2>| {
            let labels = indices(&labels, &scores.device()).reshape([batch, 1]);
            scores.gather(1, labels).into_data().iter::<f64>().collect::<Vec<_>>()
        };
        let judged = model.network.label_log_probs(&found.images, &labels);
        let log_likelihood_of_label = of_label(tempered);
        let misfit = (found.rendered.clone() - evidence.images.clone()).square() * evidence.visible.clone();
        let each = misfit.shape().num_elements() / batch;
        let misfit = misfit.reshape([batch, each]).sum_dim(1).into_data().iter::<f64>().collect::<Vec<_>>();
        // Where nothing is hidden nothing was filled in, and the classifier answers alone.
        let told = |image: usize| {
            if asked[image] > 0.0 {
                log_likelihood_of_label[image] - config.misfit_weight * misfit[image] / (2.0 * config.pixel_variance)
            } else {
                0.0
            }
        };
        let scores = (0..batch).map(|image| judged[image] + told(image));
        let scores = scores.collect::<Vec<_>>();
        best = Some(match best {
            None => (scores, found),
            Some((known, kept)) => {
                let rows = chosen(|image| scores[image] > known[image], batch);
                (pick(&known, &scores, &rows), merged(kept, found, &rows))
            }
        });
    }
    Ok(best.expect("there is a candidate").1)
}

/// Those of the first explanation's rows that are chosen, and of the second's.
fn merged(a: Explanation, b: Explanation, rows: &[usize]) -> Explanation {
    let layers = a.layers.into_iter().zip(b.layers).map(|(a, b)| LayerPosterior {
        mean: pick_rows(a.mean, b.mean, rows),
        switches: pick_rows(a.switches, b.switches, rows),
    });
    Explanation {
        layers: layers.collect(),
        labels: pick(&a.labels, &b.labels, rows),
        log_scores: pick_rows(a.log_scores, b.log_scores, rows),
        images: pick_rows(a.images, b.images, rows),
        rendered: pick_rows(a.rendered, b.rendered, rows),
        expected: pick_rows(a.expected, b.expected, rows),
    }
}
