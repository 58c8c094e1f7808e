//! Something that lies over pictures, or corrupts them, where nobody says so.

use anyhow::Result;
use burn::tensor::Tensor;
use firebrick_stats::auroc;
use firebrick_tensor::Workers;
use firebrick_types::Seed;
use firebrick_vision::generative::{Evidence, Query, impute, uncover_by_exemplars};
use firebrick_vision::images::Images;
use firebrick_vision::images::degradations::{Corruption, Cover};

use super::completion::{Methods, Prediction};
use super::pictures::{CHUNK, all, pairs, right};
use super::recipe::UnknownRecipe;
use super::results::{CoverResult, share};

/// What is wrong with pictures.
#[derive(Clone, Copy)]
enum Defect {
    Covered(Cover),
    Corrupted(Corruption),
}

/// What became of some pictures.
struct DefectScore {
    blind: usize,
    found: usize,
    told: Option<usize>,
    /// How much each covered and each uncovered pixel was believed to be covered.
    believed: [Vec<f64>; 2],
}

/// What becomes of pictures that something lies over or that are corrupted: as they are, and with what was found to be covered, or what
/// is, filled in by `impute`.
///
/// # Errors
/// If the model cannot be asked.
pub(super) fn covers(
    test: &Images,
    methods: &Methods<'_>,
    recipe: &UnknownRecipe,
    seed: Seed,
) -> Result<Vec<CoverResult>> {
    let defects = Cover::ALL.map(Defect::Covered).into_iter().chain(Corruption::ALL.map(Defect::Corrupted));
    let one = |defect: Defect| -> Result<CoverResult> {
        // Debris is of another class.
        let chunks = pairs(test, recipe.pictures).chunks(CHUNK).map(<[_]>::to_vec).collect();
        let measured =
            Workers::default().map(chunks, |chunk: Vec<[usize; 2]>| ask(test, methods, recipe, defect, &chunk, seed));
        let measured = measured.into_iter().collect::<Result<Vec<_>>>()?;
        let pictures = recipe.pictures.min(test.len());
        let sum = |of: fn(&DefectScore) -> usize| share(measured.iter().map(of).sum(), pictures);
        let told = measured.iter().map(|seen| seen.told).sum::<Option<usize>>();
        let beliefs = |side: usize| measured.iter().flat_map(|seen| seen.believed[side].clone()).collect::<Vec<_>>();
        Ok(CoverResult {
            cover: match defect {
                Defect::Covered(cover) => cover.name().to_owned(),
                Defect::Corrupted(corruption) => corruption.name().to_owned(),
            },
            pictures,
            blind: sum(|seen| seen.blind),
            found: sum(|seen| seen.found),
            told: told.map(|right| share(right, pictures)),
            auroc: if told.is_some() { Some(auroc(&beliefs(0), &beliefs(1))?) } else { None },
        })
    };
    defects.map(one).collect()
}

fn ask(
    test: &Images,
    methods: &Methods<'_>,
    recipe: &UnknownRecipe,
    defect: Defect,
    chunk: &[[usize; 2]],
    seed: Seed,
) -> Result<DefectScore> {
    let [part, others] = [0, 1].map(|side| test.chosen(chunk.iter().map(|pair| pair[side])));
    let seeds = chunk.iter().map(|pair| seed.at(&[pair[0] as u64])).collect::<Vec<_>>();
    let images = all(&part, methods.model);
    let (images, visible) = match defect {
        Defect::Covered(cover) => {
            let (images, visible) = cover.apply(&images, &all(&others, methods.model), recipe.size, &seeds);
            (images, Some(visible))
        }
        Defect::Corrupted(corruption) => (corruption.apply(&images, &seeds), None),
    };
    let blind = right(&Prediction::by(methods.model.network().cnn(), images.clone()).labels, &part);
    let [batch, height, width, _] = images.dims();
    let whole = Evidence { visible: Tensor::ones([batch, height, width, 1], &images.device()), images };
    let found = uncover_by_exemplars(methods.exemplars, &whole, recipe.covered, recipe.coherence);
    let imputed = |visible: Tensor<4>| -> Result<usize> {
        let evidence = Evidence { images: whole.images.clone(), visible };
        Ok(right(&impute(methods.model, &evidence, methods.exemplars, &Query::Free, &methods.impute)?.labels, &part))
    };
    let mut believed = [Vec::new(), Vec::new()];
    if let Some(visible) = &visible {
        let probability = found.clone().into_data();
        for (seen, probability) in visible.clone().into_data().iter::<f32>().zip(probability.iter::<f64>()) {
            believed[usize::from(seen > 0.5)].push(1.0 - probability);
        }
    }
    let found = imputed(found.greater_elem(0.5).float())?;
    Ok(DefectScore { blind, found, told: visible.map(imputed).transpose()?, believed })
}
