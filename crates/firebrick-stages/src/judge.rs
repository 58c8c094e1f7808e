//! Stage `evaluate` of the commands that train a preference model: how often it finds the preferred response.

use std::collections::BTreeMap;

use anyhow::Result;
use firebrick_eval::{LengthBaseline, accuracy};
use firebrick_models::ScoredDecoder;
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_preference::Pair;
use firebrick_stats::{brier_score, calibration_curve, calibration_slope, expected_calibration_error, wilson};
use firebrick_tensor::{SequenceScorer, Workers};
use firebrick_text::Renderer;
use firebrick_types::{LabelledComparison, Role};
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, PreferenceModel, Vocabulary, write_json};
use crate::error::BadInput;
use crate::measurements::{Measurements, Plot, Table};
use crate::metrics::measured;
use crate::recipe::JudgeRecipe;
use crate::reward_model::{mean_ranked_loss, pair, pair_scores, ranked_tokens};

/// Measures a preference model (reward model) on held-out comparisons (B-09, B-12, T-33).
#[derive(Clone, Debug, Serialize)]
pub struct Judge {
    /// How it is measured.
    #[serde(flatten)]
    pub recipe: JudgeRecipe,
}

/// The scores of the two responses of comparisons that are no ties, and what the lengths alone would say.
pub(crate) struct Judged<'a> {
    pub(crate) comparisons: Vec<&'a LabelledComparison>,
    pub(crate) scores: Vec<(f64, f64)>,
    pub(crate) by_length: Vec<f64>,
}

/// Characters of the chosen and of the rejected response.
fn lengths<'a>(comparisons: impl IntoIterator<Item = &'a LabelledComparison>) -> Vec<(usize, usize)> {
    let of = |(chosen, rejected): (&str, &str)| (chosen.len(), rejected.len());
    comparisons.into_iter().filter_map(|one| one.chosen_and_rejected().map(of)).collect()
}

impl<'a> Judged<'a> {
    /// Comparisons as a preference model judges them; ties are left out. What lengths say is learnt from `train`.
    pub(crate) fn of(
        model: &ScoredDecoder,
        train: &[LabelledComparison],
        test: &'a [LabelledComparison],
        renderer: &Renderer,
        recipe: &JudgeRecipe,
        workers: Workers,
    ) -> Result<Self> {
        let comparisons = test.iter().filter(|one| one.chosen_and_rejected().is_some()).collect::<Vec<_>>();
        let pairs = comparisons.iter().filter_map(|one| pair(renderer, one).transpose());
        let pairs = pairs.collect::<Result<Vec<Pair>>>()?;
        let scores = pair_scores(model, &pairs, model.context(), recipe.micro_batch_size, workers);
        let by_length = LengthBaseline::fit(&lengths(train)).outcomes(&lengths(comparisons.iter().copied()));
        Ok(Self { comparisons, scores, by_length })
    }

    /// How often the chosen response scores higher, beside length alone, among all and by group; and how far the probabilities that
    /// the scores stand for can be trusted.
    ///
    /// # Errors
    /// If there is no comparison.
    pub(crate) fn measurements(&self, recipe: &JudgeRecipe) -> Result<Measurements> {
        let right = accuracy(&self.scores);
        let differences = self.scores.iter().map(|(chosen, rejected)| chosen - rejected).collect::<Vec<_>>();
        let share = |outcomes: &[f64], chosen: &[usize]| -> Result<[f64; 3]> {
            let hits = chosen.iter().map(|&index| outcomes[index]).sum::<f64>();
            let interval = wilson(hits.round() as u64, chosen.len() as u64, recipe.confidence)?;
            Ok([interval.estimate, interval.low, interval.high])
        };
        let named = |name: &str, [estimate, low, high]: [f64; 3]| measured(name, estimate).interval(low, high);
        let all = (0..right.len()).collect::<Vec<_>>();
        let (model, length) = (share(&right, &all)?, share(&self.by_length, &all)?);
        let mut metrics = vec![
            named("pm/accuracy", model),
            named("pm/length_baseline", length),
            measured("pm/loss", mean_ranked_loss(&self.scores)),
            measured("pm/brier", brier_score(&differences)?),
            measured("pm/ece", expected_calibration_error(&differences, recipe.calibration_bins)?),
        ];
        metrics.extend(calibration_slope(&differences).ok().map(|slope| measured("pm/calibration_slope", slope)));
        let turns = |one: &LabelledComparison| {
            one.prompt().messages.iter().filter(|message| message.role == Role::Human).count()
        };
        let (mut sources, mut by_turns) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for (index, one) in self.comparisons.iter().enumerate() {
            sources.entry(one.source.clone()).or_default().push(index);
            by_turns.entry(turns(one)).or_default().push(index);
        }
        let row = |name: String, chosen: &[usize]| -> Result<Vec<String>> {
            let show =
                |outcomes: &[f64]| Ok::<_, anyhow::Error>(named("pm/accuracy", share(outcomes, chosen)?).show(3));
            Ok(vec![name, chosen.len().to_string(), show(&right)?, show(&self.by_length)?])
        };
        let table = |caption: &str, first: &str, rows: Result<Vec<_>>| -> Result<Table> {
            let columns = [first, "pairs", "accuracy", "length only"].map(str::to_owned).into();
            Ok(Table { caption: caption.to_owned(), columns, rows: rows? })
        };
        let groups = sources.iter().map(|(source, chosen)| row(source.clone(), chosen));
        let groups = groups.chain([row("all".to_owned(), &all)]).collect();
        let turns = by_turns.iter().map(|(turns, chosen)| row(turns.to_string(), chosen)).collect();
        let confidence = 100.0 * recipe.confidence;
        let tables = vec![
            table(
                &format!("Accuracy on held-out comparisons, with {confidence} % Wilson intervals"),
                "source",
                groups,
            )?,
            table("By turns of the human", "turns", turns)?,
        ];
        let curve = calibration_curve(&differences, recipe.calibration_bins)?.into_iter();
        let samples = [("chosen", 0), ("rejected", 1)].map(|(name, side)| {
            let score = |&(chosen, rejected): &(f64, f64)| if side == 0 { chosen } else { rejected };
            (name.to_owned(), self.scores.iter().map(score).collect())
        });
        let plots = vec![
            Plot::Calibration(curve.map(|bin| (bin.mean_prediction, bin.observed, bin.count)).collect()),
            Plot::Histograms {
                title: "Scores of held-out responses".to_owned(),
                x: "score".to_owned(),
                samples: samples.into(),
            },
        ];
        let remark = match (model[1] > length[2], model[0] > length[0]) {
            (true, _) => "The preference model beats length: the intervals do not overlap.",
            (_, true) => "The preference model is above length, but the intervals overlap.",
            _ => "The preference model does not beat length: what it learnt may be length alone (T-33).",
        };
        Ok(Measurements { metrics, tables, plots, remarks: vec![remark.to_owned()], ..Measurements::default() })
    }
}

impl Stage<Env> for Judge {
    const VERSION: u32 = 1;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<PreferenceModel>);
    type Output = Measurements;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), model): (Corpus, Vocabulary, PreferenceModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let model = model.load(&env.device)?;
        let (train, test) = (corpus.train_comparisons()?, corpus.test_comparisons()?);
        let judged = Judged::of(&model, &train, &test, &renderer, &self.recipe, env.workers)?;
        let measurements = judged.measurements(&self.recipe)?;
        write_json(&ctx.artifact().join(Measurements::FILE), &measurements)?;
        Ok(())
    }
}

/// Measures preference-model pretraining on held-out pairs of answers.
#[derive(Clone, Debug, Serialize)]
pub struct JudgeRanked {
    /// Whether pairs differ in a label alone, as they did in training.
    pub binarize: bool,
    /// Tokens that the model reads at most.
    pub context: usize,
    /// How it is measured.
    #[serde(flatten)]
    pub recipe: JudgeRecipe,
}

impl Stage<Env> for JudgeRanked {
    const VERSION: u32 = 1;
    type Inputs = (Output<Corpus>, Output<Vocabulary>, Output<PreferenceModel>);
    type Output = Measurements;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), model): (Corpus, Vocabulary, PreferenceModel),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let model = model.load(&env.device)?;
        let answers = corpus.held_out_ranked_pairs()?;
        let (pairs, too_long) = ranked_tokens(&answers, self.binarize, self.context, &renderer)?;
        if pairs.is_empty() {
            let message =
                format!("none of {too_long} held-out pairs fits `model.context` = {}; raise it", self.context);
            return Err(BadInput::new(message).into());
        }
        let scores = pair_scores(&model, &pairs, self.context, self.recipe.micro_batch_size, env.workers);
        let right = accuracy(&scores);
        let hits = right.iter().sum::<f64>().round() as u64;
        let interval = wilson(hits, right.len() as u64, self.recipe.confidence)?;
        let all = measured("pmp/accuracy", interval.estimate).interval(interval.low, interval.high);
        let is_above = all.beats_chance();
        let metrics = vec![all, measured("pmp/loss", mean_ranked_loss(&scores))];
        let remark = if is_above {
            "The held-out accuracy is above chance: its interval excludes ½."
        } else {
            "The held-out accuracy is NOT above chance: its interval holds ½. Take more questions or more passes."
        };
        let measurements = Measurements { metrics, remarks: vec![remark.to_owned()], ..Measurements::default() };
        write_json(&ctx.artifact().join(Measurements::FILE), &measurements)?;
        Ok(())
    }
}
