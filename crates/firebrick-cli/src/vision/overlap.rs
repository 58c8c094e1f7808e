//! Two shapes over each other: taken apart with both labels given, and with none.

use anyhow::Result;
use burn::tensor::Tensor;
use firebrick_inference::metrics::{ink_assignment, intersection_over_union, mean_square, points_at};
use firebrick_inference::{Compose, Evidence, Exemplars, GenerativeModel, MapConfig, SweepConfig};
use firebrick_tensor::Classifier;
use firebrick_train::parallel_map;
use firebrick_types::Images;

use super::questions::{CHUNK, all, pairs};
use super::recipe::OverlapRecipe;
use super::results::{Grid, Overlap, SHOWN, bytes, share};

/// Brightness from which on a pixel is ink.
const INK: f32 = 0.3;

/// What became of some pictures.
struct Taken {
    rows: Vec<[f64; 8]>,
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
    let measured = parallel_map(chunks, |chunk: Vec<[usize; 2]>| -> Result<Taken> {
        let side = |side: usize| test.chosen(chunk.iter().map(|pair| pair[side]));
        let sides = [side(0), side(1)];
        let pictures = [all(&sides[0], model), all(&sides[1], model)];
        let both = pictures[0].clone().max_pair(pictures[1].clone());
        let [batch, height, width, _] = both.dims();
        let visible = Tensor::ones([batch, height, width, 1], &both.device());
        let evidence = Evidence { images: both.clone(), visible };
        let labels =
            sides.each_ref().map(|side| side.labels().iter().map(|&label| usize::from(label)).collect::<Vec<_>>());
        let told = model.explain_many(&evidence, &labels, Compose::Max, sweep, config)?;
        let remembered = exemplars.pairs(&evidence, Compose::Max, None)?;
        // The pairs of these are searched by energy too.
        let searched = chunk.iter().filter(|pair| pair[0] < recipe.searched).count();
        let searched = if searched > 0 {
            let part = |x: &Tensor<4>| x.clone().narrow(0, 0, searched);
            let first = Evidence { images: part(&evidence.images), visible: part(&evidence.visible) };
            model.pair_search(&first, None, recipe.candidates, Compose::Max, sweep, config)?.labels
        } else {
            vec![Vec::new(); 2]
        };
        let first = model.network().cnn().logits(both.clone()).argsort_descending(1).into_data();
        let first = first.iter::<i64>().map(|label| label as usize).collect::<Vec<_>>();
        let classes = first.len() / batch;
        let host = |x: &Tensor<4>| x.clone().into_data().iter::<f32>().collect::<Vec<_>>();
        let (both, truths) = (host(&both), pictures.each_ref().map(host));
        let found = [host(&told.rendered[0]), host(&told.rendered[1])];
        let each = both.len() / batch;
        let one = |index: usize| {
            let of = |numbers: &'_ [f32]| numbers[index * each..][..each].to_vec();
            let (truths, found, both) = (truths.each_ref().map(|x| of(x)), found.each_ref().map(|x| of(x)), of(&both));
            let masks = truths.each_ref().map(|x| x.iter().map(|&pixel| pixel > INK).collect::<Vec<_>>());
            let owned = found.each_ref().map(|x| x.iter().map(|&pixel| pixel > INK).collect::<Vec<_>>());
            let counted = vec![1.0; each];
            let mean = |of: &dyn Fn(usize) -> f64| 0.5 * (of(0) + of(1));
            let alone = |side: usize| -> Vec<bool> {
                masks[side].iter().zip(&masks[1 - side]).map(|(own, other)| *own && !*other).collect()
            };
            let ahead = |side: usize| -> Vec<f32> {
                found[side].iter().zip(&found[1 - side]).map(|(own, other)| own - other).collect()
            };
            let is = |pair: [usize; 2]| {
                let truth = [labels[0][index], labels[1][index]];
                f64::from(u8::from(pair == truth || pair == [truth[1], truth[0]]))
            };
            let of_pair =
                |found: &[Vec<usize>]| found[0].get(index).map_or(f64::NAN, |&first| is([first, found[1][index]]));
            [
                ink_assignment([&found[0], &found[1]], [&masks[0], &masks[1]]),
                mean(&|side| intersection_over_union(&owned[side], &masks[side])),
                mean(&|side| f64::from(u8::from(points_at(&ahead(side), &alone(side), width, 0)))),
                mean(&|side| mean_square(&found[side], &truths[side], &counted)),
                mean(&|side| mean_square(&both, &truths[side], &counted)),
                of_pair(&searched),
                is([first[index * classes], first[index * classes + 1]]),
                of_pair(&remembered),
            ]
        };
        let bytes = |numbers: &[f32], index: usize| bytes(&numbers[index * each..][..each]);
        let shown = |index: usize| {
            [&both, &truths[0], &found[0], &truths[1], &found[1]].map(|numbers| bytes(numbers, index)).to_vec()
        };
        Ok(Taken {
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
        let asked = rows.iter().map(|row| row[column]).filter(|right| right.is_finite()).collect::<Vec<_>>();
        let right = asked.iter().map(|right| times * right).sum::<f64>().round() as usize;
        share(right, (times * asked.len() as f64) as usize)
    };
    Ok(Overlap {
        pairs: rows.len(),
        ink_assignment: mean(0),
        intersection_over_union: mean(1),
        pointing: of(2, 2.0),
        error: mean(3),
        composite_error: mean(4),
        both_found: of(5, 1.0),
        both_first: of(6, 1.0),
        both_remembered: of(7, 1.0),
        curve: curve.collect(),
        grid: Grid {
            title: "Two shapes over each other".into(),
            columns: ["both", "first", "found", "second", "found"].map(str::to_owned).to_vec(),
            size: [test.size()[0], test.size()[1]],
            rows: shown,
        },
    })
}
