//! Pictures of two shapes, half of each: what does one look like as the label that somebody gives it?

use anyhow::Result;
use burn::tensor::Tensor;
use firebrick_tensor::Workers;
use firebrick_vision::classifiers::{Classifier, Cnn};
use firebrick_vision::generative::{
    Composition, Evidence, Exemplars, GenerativeModel, MapConfig, SweepConfig, descend, overlapping_labels,
};
use firebrick_vision::images::Images;

use super::pictures::{CHUNK, all, pairs};
use super::results::{Ambiguity, Drawing, share};

/// What is drawn of each half of a picture: with its own label alone, with its own label and another that remembered pictures tell, with both.
///
/// The judge is a classifier that the model knows nothing of.
///
/// # Errors
/// If the model cannot be asked.
pub(super) fn blends(
    test: &Images,
    count: usize,
    (model, exemplars): (&GenerativeModel, &Exemplars),
    judge: &Cnn,
    sweep: &SweepConfig,
    config: &MapConfig,
) -> Result<Ambiguity> {
    let chunks = pairs(test, count).chunks(CHUNK).map(<[_]>::to_vec).collect();
    let measured = Workers::default().map(chunks, |chunk: Vec<[usize; 2]>| -> Result<Vec<[HalfScore; 3]>> {
        let sides = [0, 1].map(|side| test.chosen(chunk.iter().map(|pair| pair[side])));
        let pictures = sides.each_ref().map(|side| all(side, model));
        let blend = (pictures[0].clone() + pictures[1].clone()) / 2.0;
        let [batch, height, width, _] = blend.dims();
        let visible = Tensor::ones([batch, height, width, 1], &blend.device());
        let evidence = Evidence { images: blend, visible };
        let labels =
            sides.each_ref().map(|side| side.labels().iter().map(|&label| usize::from(label)).collect::<Vec<_>>());
        let both = descend(model, &evidence, &labels, Composition::Mean, sweep, config)?.rendered;
        let mut drawn = Vec::new();
        for side in 0..2 {
            let own = labels[side].clone();
            let alone = descend(model, &evidence, std::slice::from_ref(&own), Composition::Mean, sweep, config)?
                .rendered
                .swap_remove(0);
            let pair = overlapping_labels(exemplars, &evidence, Composition::Mean, Some(&own))?;
            let remembered =
                descend(model, &evidence, &pair, Composition::Mean, sweep, config)?.rendered.swap_remove(0);
            let truths = [&pictures[side], &pictures[1 - side]];
            let ways = [alone, remembered, both[side].clone()].map(|picture| judged(judge, picture, truths, &own));
            drawn.extend((0..batch).map(|index| ways.each_ref().map(|way| way[index])));
        }
        Ok(drawn)
    });
    let drawn = measured.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let names = ["its own label", "its own label, the other remembered", "both labels"];
    let ways = names.into_iter().enumerate().map(|(way, given)| {
        let count =
            |of: fn(&HalfScore) -> bool| share(drawn.iter().filter(|drawn| of(&drawn[way])).count(), drawn.len());
        Drawing {
            given: given.to_owned(),
            judged: count(|drawn| drawn.judged),
            closer: count(|drawn| drawn.closer),
            error: drawn.iter().map(|drawn| drawn[way].error).sum::<f64>() / drawn.len() as f64,
        }
    });
    Ok(Ambiguity { pictures: drawn.len() / 2, ways: ways.collect() })
}

/// What became of a half.
#[derive(Clone, Copy)]
struct HalfScore {
    /// The judge sees the label that was given.
    judged: bool,
    /// It is nearer to its own half than to the other.
    closer: bool,
    /// The mean square difference from its own.
    error: f64,
}

fn judged(judge: &Cnn, pictures: Tensor<4>, [own, other]: [&Tensor<4>; 2], labels: &[usize]) -> Vec<HalfScore> {
    let [batch, ..] = pictures.dims();
    let found = judge.logits(pictures.clone()).argmax(1).into_data().iter::<i64>().collect::<Vec<_>>();
    let errors = [own, other].map(|truth| {
        let squares = (pictures.clone() - truth.clone()).square();
        let each = squares.shape().num_elements() / batch;
        squares.reshape([batch, each]).mean_dim(1).into_data().iter::<f64>().collect::<Vec<_>>()
    });
    let one = |index: usize| HalfScore {
        judged: found[index] == labels[index] as i64,
        closer: errors[0][index] < errors[1][index],
        error: errors[0][index],
    };
    (0..batch).map(one).collect()
}
