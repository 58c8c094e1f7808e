//! Which two labels explain a picture together, by their energy?

use crate::Error;
use crate::classifiers::Classifier;
use crate::generative::evidence::Evidence;
use crate::generative::model::GenerativeModel;
use crate::generative::passes::{Composition, Instances, MapConfig, SweepConfig, bottom_up, descend_from};
use crate::generative::rows::{chosen, pick};

/// The two labels that explain each picture best together, among all pairs of the classifier's first `candidates` labels; or, where
/// one label of each picture is known, that label and the best other one.
///
/// ```text
/// score = log p_CNN(y₁ | D₁) + log p_CNN(y₂ | D₂) − E / T
/// ```
///
/// Every pair goes down a few steps; of each picture the best few go on to the end.
///
/// # Errors
/// As [`descend`](crate::generative::descend).
///
/// # Panics
/// If there are fewer than two candidates or classes, or not one known label of each picture.
pub fn separate(
    model: &GenerativeModel,
    evidence: &Evidence,
    known: Option<&[usize]>,
    candidates: usize,
    compose: Composition,
    sweep: &SweepConfig,
    config: &MapConfig,
) -> Result<Instances, Error> {
    /// So much shorter is the first descent.
    const SHORTER: usize = 6;
    /// Pairs of each picture that are looked at again.
    const KEPT: usize = 10;
    let [batch, ..] = evidence.images.dims();
    let logits = model.network.cnn().logits(evidence.images.clone());
    let [_, classes] = logits.dims();
    let candidates = candidates.min(classes);
    assert!(candidates > 1, "a pair of {candidates} labels");
    let order = logits.argsort_descending(1).into_data();
    let order = order.iter::<i64>().map(|label| label as usize).collect::<Vec<_>>();
    let ranked = |image: usize| &order[image * classes..][..candidates];
    // For every round a pair of labels of each picture.
    let mut rounds: Vec<Vec<[usize; 2]>> = match known {
        Some(known) => {
            assert_eq!(known.len(), batch, "one known label of each picture");
            if let Some(&class) = known.iter().find(|label| **label >= classes) {
                return Err(Error::Class { class, classes });
            }
            let others = |image: usize| ranked(image).iter().copied().filter(move |label| *label != known[image]);
            let pair = |image: usize, round: usize| {
                // Where the known label is no candidate there is one more other; all pictures have as many rounds.
                [known[image], others(image).nth(round).expect("there are candidates beside the known one")]
            };
            (0..candidates - 1).map(|round| (0..batch).map(|image| pair(image, round)).collect()).collect()
        }
        None => {
            let pairs = (0..candidates).flat_map(|first| (first + 1..candidates).map(move |second| [first, second]));
            pairs.map(|pair| (0..batch).map(|image| pair.map(|place| ranked(image)[place])).collect()).collect()
        }
    };
    let seen = bottom_up(model, evidence, sweep)?;
    let explained = |pairs: &[[usize; 2]], config: &MapConfig| {
        let labels = [0, 1].map(|side| pairs.iter().map(|pair| pair[side]).collect::<Vec<_>>());
        let found = descend_from(model, evidence, &seen, &labels, compose, sweep, config)?;
        let judged =
            labels.iter().zip(&found.rendered).map(|(labels, drawn)| model.network.label_log_probs(drawn, labels));
        let judged = judged.collect::<Vec<_>>();
        let score = |image: usize| {
            judged.iter().map(|judged| judged[image]).sum::<f64>()
                - found.energy[image] / config.pair_energy_temperature
        };
        Ok::<_, Error>(((0..batch).map(score).collect::<Vec<_>>(), found))
    };
    if rounds.len() > KEPT {
        let short = MapConfig { steps: (config.steps / SHORTER).max(1), ..*config };
        let scores = rounds.iter().map(|pairs| Ok(explained(pairs, &short)?.0)).collect::<Result<Vec<_>, Error>>()?;
        let mut kept = vec![Vec::new(); KEPT];
        for image in 0..batch {
            let mut best = (0..rounds.len()).collect::<Vec<_>>();
            best.sort_by(|&a, &b| scores[b][image].total_cmp(&scores[a][image]));
            kept.iter_mut().zip(best).for_each(|(kept, round)| kept.push(rounds[round][image]));
        }
        rounds = kept;
    }
    let mut best: Option<(Vec<f64>, Instances)> = None;
    for pairs in &rounds {
        let (scores, found) = explained(pairs, config)?;
        best = Some(match best {
            None => (scores, found),
            Some((known, kept)) => {
                let rows = chosen(|image| scores[image] > known[image], batch);
                (pick(&known, &scores, &rows), kept.with(found, &rows))
            }
        });
    }
    Ok(best.expect("there is a pair").1)
}
