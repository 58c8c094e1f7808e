//! The pipeline `hh`: from raw preference data to an aligned policy and its report (B-01).

mod artifacts;
mod data;
mod evaluate;
mod format;
mod language;
mod policy;
mod preference;
mod recipe;
mod report;
mod results;

pub(crate) use artifacts::{Evaluation, METRICS, Report, read_json, write_json};
pub(crate) use language::{checkpoints, keep_metrics};
pub(crate) use recipe::Recipe;
pub(crate) use results::{Estimate, Results};

use anyhow::Result;
use firebrick_pipeline::{Output, Pipeline};

use crate::env::Env;

/// The built-in recipes: name and text. The first is the default.
pub(crate) const RECIPES: &[(&str, &str)] = &[
    ("world", include_str!("../../recipes/world.toml")),
    ("tiny", include_str!("../../recipes/tiny.toml")),
    ("small", include_str!("../../recipes/small.toml")),
    ("smoke", include_str!("../../recipes/smoke.toml")),
];

/// The expected bands of metrics, for the recipes that have them.
pub(crate) const BANDS: &[(&str, &str)] = &[
    ("world", include_str!("../../recipes/world.bands.toml")),
    ("tiny", include_str!("../../recipes/tiny.bands.toml")),
    ("smoke", include_str!("../../recipes/smoke.bands.toml")),
];

/// The stages of the pipeline, and its evaluation and report.
///
/// # Errors
/// If the recipe names a checkpoint to begin with that is not there.
pub(crate) fn pipeline(
    recipe: &Recipe,
    from_folder: bool,
) -> Result<(Pipeline<Env>, Output<Evaluation>, Output<Report>)> {
    let mut p = Pipeline::new("hh");
    let data = p.add("data", data::Data::of(recipe, from_folder), ());
    let (tokenizer, base) = match recipe.base.checkpoint() {
        Some(source) => {
            let base = language::Base::of(source)?;
            let tokenizer = p.add("tokenizer", language::TakeTokenizer(base.clone()), ());
            (tokenizer, p.add("base", language::TakeModel::of(base, recipe), ()))
        }
        None => {
            let tokenizer = p.add("tokenizer", language::TrainTokenizer { vocab: recipe.tokenizer.vocab }, (data,));
            (tokenizer, p.add("pretrain", language::Pretrain::of(recipe), (data, tokenizer)))
        }
    };
    let distilled = p.add("distill", language::Distill::of(recipe), (data, tokenizer, base));
    let pmp = p.add("pmp", preference::Pmp::of(recipe), (data, tokenizer, base));
    let train_pm = p.add("pm-train", preference::Pm::of(recipe, preference::Half::First), (data, tokenizer, pmp));
    let test_pm = p.add("pm-test", preference::Pm::of(recipe, preference::Half::Second), (data, tokenizer, pmp));
    let policy = p.add("ppo", policy::Ppo::of(recipe), (data, tokenizer, distilled, train_pm));
    let evaluation = p.add(
        "evaluate",
        evaluate::Evaluate::of(recipe),
        (data, tokenizer, base, distilled, policy, train_pm, test_pm),
    );
    let report = p.add(
        "report",
        report::WriteReport::of(recipe),
        (data, base, distilled, pmp, train_pm, test_pm, policy, evaluation),
    );
    Ok((p, evaluation, report))
}
