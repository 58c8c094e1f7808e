//! The pipeline `vision`: from pictures to a classifier, a generative model of its activations, and what it answers.

mod artifacts;
mod blends;
mod clutter;
mod completion;
mod cost;
mod covers;
mod overlap;
mod questions;
mod recipe;
mod report;
mod results;
mod stages;

pub(crate) use artifacts::{Answers, Pictures};
pub(crate) use questions::all;
pub(crate) use recipe::Recipe;

use firebrick_pipeline::{Output, Pipeline};

use crate::env::Env;

/// The built-in recipes: name and text. The first is the default.
pub(crate) const RECIPES: &[(&str, &str)] = &[
    ("glyphs", include_str!("../../recipes/glyphs.toml")),
    ("mnist", include_str!("../../recipes/mnist.toml")),
    ("glyphs-smoke", include_str!("../../recipes/glyphs-smoke.toml")),
];

/// The stages of the pipeline.
pub(crate) fn pipeline(recipe: &Recipe) -> Pipeline<Env> {
    let mut p = Pipeline::new("vision");
    let pictures = p.add("images", stages::Collect::of(recipe), ());
    let classifier = p.add("cnn", stages::Train::of(recipe), (pictures,));
    let model = p.add("model", stages::Fit::of(recipe), (pictures, classifier));
    let judge = p.add("judge", stages::Train::judge(recipe), (pictures,));
    let masked = p.add("masked", stages::Train::masked(recipe), (pictures,));
    let denoiser = p.add("denoiser", stages::Denoise::of(recipe), (pictures,));
    let asked = (pictures, model, judge, masked, denoiser);
    let answers: Output<Answers> = p.add("questions", questions::Ask::of(recipe), asked);
    let costs = p.add("cost", cost::Measure::of(recipe), (pictures, model, masked, denoiser));
    p.add("report", report::Write::of(recipe), (pictures, classifier, answers, costs));
    p
}
