//! Two shapes over each other: taken apart with both labels given, and with none.

use anyhow::Result;
use burn::tensor::Tensor;
use firebrick_tensor::Workers;
use firebrick_vision::classifiers::Classifier;
use firebrick_vision::generative::{
    Composition, Evidence, Exemplars, GenerativeModel, MapConfig, SweepConfig, descend, overlapping_labels, separate,
};
use firebrick_vision::images::Images;
use firebrick_vision::metrics::{ink_assignment, intersection_over_union, mean_square, points_at};

use super::pictures::{CHUNK, all, pairs};
use super::recipe::OverlapRecipe;
use super::results::{Grid, Overlap, SHOWN, bytes, share};
use crate::pipelines::rlhf::results::Estimate;

/// Pictures of two shapes.
struct OverlaidPictures {
    /// Each shape.
    pictures: [Tensor<4>; 2],
    labels: [Vec<usize>; 2],
    /// The brighter of both.
    evidence: Evidence,
}

impl OverlaidPictures {
    fn of(test: &Images, chunk: &[[usize; 2]], model: &GenerativeModel) -> Self {
        let sides = [0, 1].map(|side| test.chosen(chunk.iter().map(|pair| pair[side])));
        let pictures = sides.each_ref().map(|side| all(side, model));
        let images = pictures[0].clone().max_pair(pictures[1].clone());
        let [batch, height, width, _] = images.dims();
        let evidence = Evidence { visible: Tensor::ones([batch, height, width, 1], &images.device()), images };
        let labels = sides.each_ref().map(|side| side.labels().iter().map(|&label| usize::from(label)).collect());
        Self { pictures, labels, evidence }
    }
}

/// Whether two labels are these two, in any order.
fn same(found: [usize; 2], truth: [usize; 2]) -> bool {
    found == truth || found == [truth[1], truth[0]]
}

/// How often the pair of least energy is right.
fn searched(
    test: &Images,
    model: &GenerativeModel,
    recipe: &OverlapRecipe,
    sweep: &SweepConfig,
    config: &MapConfig,
) -> Result<Estimate> {
    /// Pictures at a time: each takes seconds, and all cores have some.
    const CHUNK: usize = 5;
    let pairs = pairs(test, recipe.searched.min(recipe.pairs));
    let count = pairs.len();
    let right = Workers::default().map(pairs.chunks(CHUNK).map(<[_]>::to_vec).collect(), |chunk: Vec<[usize; 2]>| {
        let OverlaidPictures { labels, evidence, .. } = OverlaidPictures::of(test, &chunk, model);
        let found = separate(model, &evidence, None, recipe.candidates, Composition::Max, sweep, config)?.labels;
        let is = |&index: &usize| same([found[0][index], found[1][index]], [labels[0][index], labels[1][index]]);
        Ok((0..chunk.len()).filter(is).count())
    });
    Ok(share(right.into_iter().sum::<Result<usize>>()?, count))
}

/// What became of some pictures.
struct OverlapScore {
    rows: Vec<[f64; 7]>,
    /// The sum of energies before every step, and after the last.
    curve: Vec<f64>,
    shown: Vec<Vec<Vec<u8>>>,
}

/// What becomes of pictures of two shapes, of which the brighter is seen.
///
/// # Errors
/// If the model cannot be asked.
pub(super) fn overlaps(
    test: &Images,
    (model, exemplars): (&GenerativeModel, &Exemplars),
    recipe: &OverlapRecipe,
    sweep: &SweepConfig,
    config: &MapConfig,
) -> Result<Overlap> {
    let chunks = pairs(test, recipe.pairs).chunks(CHUNK).map(<[_]>::to_vec).collect();
    let measured = Workers::default().map(chunks, |chunk: Vec<[usize; 2]>| -> Result<OverlapScore> {
        let OverlaidPictures { pictures, labels, evidence } = OverlaidPictures::of(test, &chunk, model);
        let both = evidence.images.clone();
        let [batch, _, width, _] = both.dims();
        let told = descend(model, &evidence, &labels, Composition::Max, sweep, config)?;
        let remembered = overlapping_labels(exemplars, &evidence, Composition::Max, None)?;
        let first = model.network().cnn().logits(both.clone()).argsort_descending(1).into_data();
        let first = first.iter::<i64>().map(|label| label as usize).collect::<Vec<_>>();
        let classes = first.len() / batch;
        let host = |x: &Tensor<4>| x.clone().into_data().iter::<f32>().collect::<Vec<_>>();
        let (both, truths) = (host(&both), pictures.each_ref().map(host));
        let found = [host(&told.rendered[0]), host(&told.rendered[1])];
        let each = both.len() / batch;
        let ink = recipe.ink as f32;
        let one = |index: usize| {
            let of = |numbers: &'_ [f32]| numbers[index * each..][..each].to_vec();
            let (truths, found, both) = (truths.each_ref().map(|x| of(x)), found.each_ref().map(|x| of(x)), of(&both));
            let masks = truths.each_ref().map(|x| x.iter().map(|&pixel| pixel > ink).collect::<Vec<_>>());
            let owned = found.each_ref().map(|x| x.iter().map(|&pixel| pixel > ink).collect::<Vec<_>>());
            let counted = vec![1.0; each];
            let mean = |of: &dyn Fn(usize) -> f64| 0.5 * (of(0) + of(1));
            let alone = |side: usize| -> Vec<bool> {
                masks[side].iter().zip(&masks[1 - side]).map(|(own, other)| *own && !*other).collect()
            };
            let ahead = |side: usize| -> Vec<f32> {
                found[side].iter().zip(&found[1 - side]).map(|(own, other)| own - other).collect()
            };
            let is = |pair: [usize; 2]| f64::from(same(pair, [labels[0][index], labels[1][index]]));
            [
                ink_assignment([&found[0], &found[1]], [&masks[0], &masks[1]]),
                mean(&|side| intersection_over_union(&owned[side], &masks[side])),
                mean(&|side| f64::from(u8::from(points_at(&ahead(side), &alone(side), width, 0)))),
                mean(&|side| mean_square(&found[side], &truths[side], &counted)),
                mean(&|side| mean_square(&both, &truths[side], &counted)),
                is([first[index * classes], first[index * classes + 1]]),
                is([remembered[0][index], remembered[1][index]]),
            ]
        };
        let bytes = |numbers: &[f32], index: usize| bytes(&numbers[index * each..][..each]);
        let shown = |index: usize| {
            [&both, &truths[0], &found[0], &truths[1], &found[1]].map(|numbers| bytes(numbers, index)).to_vec()
        };
        Ok(OverlapScore {
            rows: (0..batch).map(one).collect(),
            curve: told.curve.iter().map(|energy| energy * batch as f64).collect(),
            shown: (0..batch.min(SHOWN)).map(shown).collect(),
        })
    });
    let measured = measured.into_iter().collect::<Result<Vec<_>>>()?;
    let rows = measured.iter().flat_map(|part| &part.rows).collect::<Vec<_>>();
    let curve =
        (0..=config.steps).map(|step| measured.iter().map(|part| part.curve[step]).sum::<f64>() / rows.len() as f64);
    let shown = measured.iter().flat_map(|part| part.shown.clone()).take(SHOWN).collect();
    let mean = |column: usize| {
        let finite = rows.iter().map(|row| row[column]).filter(|number| number.is_finite()).collect::<Vec<_>>();
        finite.iter().sum::<f64>() / finite.len().max(1) as f64
    };
    let of = |column: usize, times: f64| {
        let right = rows.iter().map(|row| times * row[column]).sum::<f64>().round() as usize;
        share(right, (times * rows.len() as f64) as usize)
    };
    let searched = searched(test, model, recipe, sweep, config)?;
    Ok(Overlap {
        pairs: rows.len(),
        ink_assignment: mean(0),
        intersection_over_union: mean(1),
        pointing: of(2, 2.0),
        error: mean(3),
        composite_error: mean(4),
        searched: recipe.searched.min(rows.len()),
        both_searched: searched,
        both_first: of(5, 1.0),
        both_remembered: of(6, 1.0),
        curve: curve.collect(),
        grid: Grid {
            title: "Two shapes over each other".into(),
            columns: ["both", "first", "found", "second", "found"].map(str::to_owned).to_vec(),
            size: [test.size()[0], test.size()[1]],
            rows: shown,
        },
    })
}
