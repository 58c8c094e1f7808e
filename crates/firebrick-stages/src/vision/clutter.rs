//! Several shapes on one canvas: which, and where?

use anyhow::Result;
use burn::tensor::{Tensor, activation};
use firebrick_tensor::Workers;
use firebrick_types::Seed;
use firebrick_vision::classifiers::{Classifier, Cnn};
use firebrick_vision::generative::{self, DetectConfig, GenerativeModel};
use firebrick_vision::images::Images;
use firebrick_vision::images::degradations::Clutter;

use super::pictures::all;
use super::recipe::ClutterRecipe;
use super::results::{ClutterResult, DetectorResult, share};

/// Pixels that a shape that counts as found may be off by, down or across.
const NEAR: usize = 4;

/// A shape somewhere: its label, the row and column of its window, and how sure its finder is.
#[derive(Clone, Copy)]
struct Claim {
    label: usize,
    place: [usize; 2],
    sure: f64,
}

type Finder<'a> = Box<dyn Fn(&Tensor<4>) -> Result<Vec<Claim>> + Sync + 'a>;

/// A canvas and the labels and places of what lies on it.
struct Canvas {
    pixels: Tensor<4>,
    truth: Vec<(usize, [usize; 2])>,
}

/// What ways to find shapes find on canvases of test pictures, each as sure as finds most on canvases of pictures kept apart.
///
/// # Errors
/// If the model cannot be asked.
pub(super) fn clutter(
    [validation, test]: [&Images; 2],
    model: &GenerativeModel,
    recipe: &ClutterRecipe,
    seed: Seed,
) -> Result<ClutterResult> {
    let cnn = model.network().cnn();
    let size = [test.size()[0], test.size()[1]];
    let config = DetectConfig { threshold: 0.0, ..DetectConfig::default() };
    let detect = |canvas: &Tensor<4>| -> Result<Vec<Claim>> {
        let found = generative::detect(model, canvas, &config)?;
        Ok(found.into_iter().map(|one| Claim { label: one.label, place: one.place, sure: one.gain }).collect())
    };
    let finders: [(&str, Finder<'_>); 3] = [
        ("windows", Box::new(|canvas| Ok(windows(cnn, canvas, size)))),
        ("components", Box::new(|canvas| Ok(components(cnn, canvas, size, recipe.ink as f32)))),
        ("detect", Box::new(detect)),
    ];
    let canvases =
        [canvases(validation, model, recipe, seed.derive("validation")), canvases(test, model, recipe, seed)];
    let mut found = Vec::new();
    for (name, finder) in finders {
        let claims = canvases.each_ref().map(|canvases| {
            Workers::default()
                .map(canvases.iter().collect(), |canvas: &Canvas| finder(&canvas.pixels))
                .into_iter()
                .collect::<Result<Vec<_>>>()
        });
        let [kept, asked] = claims;
        let (kept, asked) = (kept?, asked?);
        let mut choices = kept.iter().flatten().map(|claim| claim.sure).collect::<Vec<_>>();
        choices.push(f64::NEG_INFINITY);
        choices.sort_by(f64::total_cmp);
        let f1 = |least: f64| Counts::of(&canvases[0], &kept, least).f1();
        let least = choices.into_iter().max_by(|&a, &b| f1(a).total_cmp(&f1(b))).expect("there is a choice");
        let counts = Counts::of(&canvases[1], &asked, least);
        found.push(DetectorResult {
            by: name.to_owned(),
            precision: share(counts.right, counts.claimed.max(1)),
            recall: share(counts.right, counts.there),
            f1: counts.f1(),
            pointing: share(counts.pointed, counts.there),
        });
    }
    Ok(ClutterResult {
        canvases: canvases[1].len(),
        shapes: canvases[1].iter().map(|canvas| canvas.truth.len()).sum(),
        found,
    })
}

fn canvases(pictures: &Images, model: &GenerativeModel, recipe: &ClutterRecipe, seed: Seed) -> Vec<Canvas> {
    let [height, width, _] = pictures.size();
    let side = 2 * height.max(width);
    let mut first = 0;
    let mut canvases = Vec::new();
    while canvases.len() < recipe.canvases {
        let count = 3 + canvases.len() % 2;
        if first + count > pictures.len() {
            break;
        }
        let chosen = pictures.chosen(first..first + count);
        let seed = seed.at(&[canvases.len() as u64]);
        let Clutter { canvas, placed } = Clutter::scatter(&all(&chosen, model), side, recipe.apart, seed);
        let truth = placed.into_iter().map(|(index, place)| (usize::from(chosen.labels()[index]), place)).collect();
        canvases.push(Canvas { pixels: canvas, truth });
        first += count;
    }
    canvases
}

/// Claims beside what is there.
#[derive(Default)]
struct Counts {
    claimed: usize,
    there: usize,
    /// Claims of the right label, near enough, each of another shape.
    right: usize,
    /// Shapes whose nearest claim, of any label, is within two pixels.
    pointed: usize,
}

impl Counts {
    /// Of the claims that are sure enough.
    fn of(canvases: &[Canvas], claims: &[Vec<Claim>], least: f64) -> Self {
        let mut counts = Self::default();
        for (canvas, claims) in canvases.iter().zip(claims) {
            let mut free = vec![true; canvas.truth.len()];
            let off = |a: [usize; 2], b: [usize; 2]| (0..2).map(|axis| a[axis].abs_diff(b[axis])).max().unwrap_or(0);
            let claims = claims.iter().filter(|claim| claim.sure >= least).collect::<Vec<_>>();
            for claim in &claims {
                let fits = |&index: &usize| {
                    let (label, place) = canvas.truth[index];
                    free[index] && label == claim.label && off(place, claim.place) <= NEAR
                };
                if let Some(index) = (0..free.len()).find(fits) {
                    free[index] = false;
                    counts.right += 1;
                }
            }
            let pointed = |place: [usize; 2]| claims.iter().any(|claim| off(place, claim.place) <= 2);
            counts.pointed += canvas.truth.iter().filter(|(_, place)| pointed(*place)).count();
            counts.claimed += claims.len();
            counts.there += canvas.truth.len();
        }
        counts
    }

    fn f1(&self) -> f64 {
        2.0 * self.right as f64 / (self.claimed + self.there).max(1) as f64
    }
}

/// The classifier on every second window, the surest first; windows near one that was taken are not looked at.
fn windows(cnn: &Cnn, canvas: &Tensor<4>, [height, width]: [usize; 2]) -> Vec<Claim> {
    const STRIDE: usize = 2;
    let [_, rows, columns, channels] = canvas.dims();
    let places = (0..=rows - height)
        .step_by(STRIDE)
        .flat_map(|top| (0..=columns - width).step_by(STRIDE).map(move |left| [top, left]));
    let places = places.collect::<Vec<_>>();
    let part =
        |&[top, left]: &[usize; 2]| canvas.clone().slice([0..1, top..top + height, left..left + width, 0..channels]);
    let answers = activation::softmax(cnn.logits(Tensor::cat(places.iter().map(part).collect(), 0)), 1);
    let classes = answers.dims()[1];
    let answers = answers.into_data().iter::<f64>().collect::<Vec<_>>();
    let claims = places.iter().zip(answers.chunks_exact(classes)).map(|(&place, answers)| {
        let label = (0..classes).max_by(|&a, &b| answers[a].total_cmp(&answers[b])).expect("there is a class");
        Claim { label, place, sure: answers[label] }
    });
    let mut claims = claims.collect::<Vec<_>>();
    claims.sort_by(|a, b| b.sure.total_cmp(&a.sure));
    let mut taken: Vec<Claim> = Vec::new();
    for claim in claims {
        let near = |one: &Claim| (0..2).all(|axis| one.place[axis].abs_diff(claim.place[axis]) < height / 2);
        if !taken.iter().any(near) {
            taken.push(claim);
        }
    }
    taken
}

/// The classifier on each piece of ink that hangs together, put in the middle of a window as the pictures' shapes are: by its mass.
fn components(cnn: &Cnn, canvas: &Tensor<4>, [height, width]: [usize; 2], ink: f32) -> Vec<Claim> {
    let [_, rows, columns, channels] = canvas.dims();
    let brightness = canvas.clone().mean_dim(3).into_data().iter::<f32>().collect::<Vec<_>>();
    let mut of = vec![usize::MAX; rows * columns];
    let mut claims = Vec::new();
    for start in 0..of.len() {
        if brightness[start] <= ink || of[start] != usize::MAX {
            continue;
        }
        let mut piece = Vec::new();
        let mut open = vec![start];
        of[start] = start;
        while let Some(pixel) = open.pop() {
            piece.push(pixel);
            let (row, column) = (pixel / columns, pixel % columns);
            for (down, across) in (0..3).flat_map(|down| (0..3).map(move |across| (down, across))) {
                let (row, column) = (row + down, column + across);
                if (1..=rows).contains(&row) && (1..=columns).contains(&column) {
                    let next = (row - 1) * columns + column - 1;
                    if brightness[next] > ink && of[next] == usize::MAX {
                        of[next] = start;
                        open.push(next);
                    }
                }
            }
        }
        let mass = piece.iter().map(|&pixel| brightness[pixel]).sum::<f32>();
        let middle = |of: &dyn Fn(usize) -> usize| {
            piece.iter().map(|&pixel| brightness[pixel] * of(pixel) as f32).sum::<f32>() / mass
        };
        let corner = |middle: f32, size: usize, length: usize| {
            (middle.round() as usize).saturating_sub(size / 2).min(length - size)
        };
        let top = corner(middle(&|pixel| pixel / columns), height, rows);
        let left = corner(middle(&|pixel| pixel % columns), width, columns);
        let mut own = vec![0.0_f32; rows * columns];
        piece.iter().for_each(|&pixel| own[pixel] = 1.0);
        let own = Tensor::<1>::from_floats(own.as_slice(), &canvas.device()).reshape([1, rows, columns, 1]);
        let window = (canvas.clone() * own).slice([0..1, top..top + height, left..left + width, 0..channels]);
        let answers = cnn.logits(window).into_data().iter::<f64>().collect::<Vec<_>>();
        let label = (0..answers.len()).max_by(|&a, &b| answers[a].total_cmp(&answers[b])).expect("there is a class");
        // Specks are no shapes: the more ink, the surer.
        claims.push(Claim { label, place: [top, left], sure: f64::from(mass) });
    }
    claims
}
