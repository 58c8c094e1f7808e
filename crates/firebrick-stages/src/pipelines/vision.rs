//! From pictures to a classifier, a generative model of its activations, and what it answers.

use std::path::Path;

use anyhow::Result;
use firebrick_data::hub;
use firebrick_pipeline::{Output, Pipeline, open};
use firebrick_types::Measured;

use super::{Goes, Input, Results};
use crate::Env;
use crate::vision::{QuestionResults, cost, questions, report, stages};

pub use crate::vision::Recipe;

impl super::Recipe for Recipe {
    const NAME: &'static str = "vision";
    const ABOUT: &'static str =
        "from pictures to a classifier, a generative model of its activations, and what it answers";
    const BUILT_IN: &'static [(&'static str, &'static str)] = &[
        ("glyphs", include_str!("../../recipes/vision/glyphs.toml")),
        ("mnist", include_str!("../../recipes/vision/mnist.toml")),
        ("glyphs-smoke", include_str!("../../recipes/vision/glyphs-smoke.toml")),
    ];
    const INPUTS: &'static [Input] = &[Input {
        name: "data",
        value: "DIR|hub:REPO",
        about: "A folder of labelled pictures, as IDX files or Parquet; default: built-in ones",
        required: false,
        goes: Goes::Data(hub::Wanted::Images),
    }];
    const EXAMPLES: &'static [(&'static str, &'static str)] = &[
        ("vision", "built-in pictures"),
        ("vision --data ../mnist", "pictures from a folder of IDX files"),
        ("vision --data hub:ylecun/mnist", "from the Hugging Face Hub"),
    ];

    fn usual(given: &[&str]) -> &'static str {
        if given.contains(&"data") { "mnist" } else { "glyphs" }
    }

    fn validate(&self) -> Result<()> {
        self.check()
    }

    fn pipeline(&self, _env: &Env) -> Result<Pipeline<Env>> {
        let mut p = Pipeline::new("vision");
        let pictures = p.add("images", stages::Collect::of(self), ());
        let classifier = p.add("cnn", stages::Train::of(self), (pictures,));
        let model = p.add("model", stages::Fit::of(self), (pictures, classifier));
        let judge = p.add("judge", stages::Train::judge(self), (pictures,));
        let masked = p.add("masked", stages::Train::masked(self), (pictures,));
        let denoiser = p.add("denoiser", stages::Denoise::of(self), (pictures,));
        let asked = (pictures, model, judge, masked, denoiser);
        let answers: Output<QuestionResults> = p.add("questions", questions::Ask::of(self), asked);
        let costs = p.add("cost", cost::Measure::of(self), (pictures, model, masked, denoiser));
        p.add("report", report::Write::of(self), (pictures, classifier, answers, costs));
        Ok(p)
    }

    fn results(run: &Path) -> Result<Results> {
        let QuestionResults(results) = open(run, "questions")?;
        let metrics = results.metrics.iter().map(|(name, &value)| Measured::new(name, value)).collect();
        Ok(Results { summary: results.summary(), metrics })
    }
}
