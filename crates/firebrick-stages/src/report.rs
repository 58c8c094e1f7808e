//! Stage `report` of the commands, and what every report is made of.

use anyhow::{Context, Result};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_report::metrics::Metrics;
use firebrick_report::page::{self, Align, Answer, Block, Column, DialoguePair, Figure, Page, Row, Section};
use firebrick_report::plot::{Calibration as CalibrationPlot, CalibrationBin, Histograms, Line, LineChart, Sample};
use firebrick_types::Measured;
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, PreferenceModel, Report, Summary};
use crate::measurements::{self, Exchange, Measurements, Plot, Table};

/// Running text.
pub(crate) fn paragraph(text: impl Into<String>) -> Block {
    Block::Paragraph(text.into())
}

/// A table whose first column is words and whose others are numbers.
pub(crate) fn table(caption: &str, columns: &[&str], rows: Vec<Row>) -> Block {
    let align = |index: usize| if index == 0 { Align::Left } else { Align::Right };
    let column = |(index, name): (usize, &&str)| Column { name: (*name).to_owned(), align: align(index) };
    let columns = columns.iter().enumerate().map(column).collect();
    Block::Table(page::Table { caption: caption.to_owned(), columns, rows })
}

/// A row of a table.
pub(crate) fn row(cells: Vec<String>, emphasis: bool) -> Row {
    Row { cells, emphasis }
}

/// Predicted probabilities beside what came true: predicted, observed and count of every bin.
pub(crate) fn calibration(title: &str, bins: &[(f64, f64, u64)]) -> Figure {
    let bin =
        |&(predicted, observed, count): &(f64, f64, u64)| CalibrationBin { predicted, observed, count: count as usize };
    let svg = CalibrationPlot { title: title.to_owned(), bins: bins.iter().map(bin).collect() }.to_svg();
    Figure { svg, caption: "Held-out comparisons, by the probability that the model gives its choice.".to_owned() }
}

/// A metric over the samples that were seen.
pub(crate) fn curve(metrics: &Metrics, name: &str) -> Vec<(f64, f64)> {
    metrics.column(name).map(|column| column.by_samples()).unwrap_or_default()
}

/// Curves over samples.
pub(crate) fn chart(title: &str, y: &str, lines: Vec<Line>) -> Figure {
    let svg = LineChart { title: title.to_owned(), x: "samples".to_owned(), y: y.to_owned(), lines }.to_svg();
    Figure { svg, caption: String::new() }
}

/// What was run, and on what: the facts, the recipe and the files.
///
/// # Errors
/// If the recipe cannot be written as TOML.
pub(crate) fn run_section(
    data: &[Summary],
    facts: Vec<(String, String)>,
    recipe: &impl Serialize,
    ctx: &StageContext,
) -> Result<Section> {
    let own = [
        ("firebrick", env!("CARGO_PKG_VERSION")),
        ("burn", "0.22.1"),
        ("fingerprint of everything this page was made from", ctx.fingerprint()),
    ];
    let sources = data.iter().map(|one| ("data".to_owned(), one.source.clone()));
    let kept = data.iter().flat_map(|one| &one.kept).map(|(name, count)| (name.clone(), count.to_string()));
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let facts = sources.chain(own).chain(kept).chain(facts).collect();
    let text = toml::to_string(recipe).context("a recipe can be written as TOML")?;
    let recipe = Block::Details {
        summary: "The recipe, every number".into(),
        blocks: text.split("\n\n").map(paragraph).collect(),
    };
    let notes = Block::Details {
        summary: "The data, file by file".into(),
        blocks: data.iter().flat_map(|one| &one.notes).map(paragraph).collect(),
    };
    Ok(Section { title: "What was run".into(), blocks: vec![Block::Facts(facts), recipe, notes] })
}

/// What a command's pipeline was made of.
#[derive(Clone, Debug, Serialize)]
pub struct WritePage<R> {
    /// Its heading.
    pub title: String,
    /// The stages whose models were trained, language models first.
    pub trained: Vec<&'static str>,
    /// The recipe.
    pub recipe: R,
}

/// Metrics that are shown over training, each with the same on held-out samples and its axis.
const CURVES: &[([&str; 2], &str, &str)] = &[
    (["loss", "eval_loss"], "Loss", "nats"),
    (["mean_token_accuracy", "eval_mean_token_accuracy"], "Accuracy of the likeliest token", "share of tokens"),
    (["ranked_loss", "eval_loss"], "Ranked loss", "nats a pair"),
    (["accuracy", "eval_accuracy"], "Accuracy", "share of pairs"),
    (["margin", "eval_margin"], "Chosen less rejected", "score"),
    (["objective/scores", "eval/scores"], "Reward", "score"),
    (["", "eval/test_scores"], "Reward by the test model", "score"),
    (["objective/kl_exact", ""], "Divergence from the initial policy", "nats a response"),
    (["policy/entropy_avg", ""], "Entropy", "nats a token"),
    (["response_length", "eval/response_length"], "Length of responses", "tokens"),
];

/// How training went.
fn training(stage: &str, metrics: &Metrics) -> Option<Section> {
    let pairwise = !curve(metrics, "ranked_loss").is_empty();
    let chart = |(names, title, y): &([&str; 2], &str, &str)| {
        // Of pairs the loss is a sum of two, of which the ranked one is measured on held-out pairs.
        if pairwise && names[0] == "loss" || !pairwise && names[0] == "ranked_loss" {
            return None;
        }
        let line = |(name, label): (&&str, &str)| match curve(metrics, name) {
            points if points.is_empty() => None,
            points if label == "held out" => Some(Line::new(label, points)),
            points => Some(Line::new(label, points).smoothed(0.9)),
        };
        let lines = names.iter().zip(["training", "held out"]).filter_map(line).collect::<Vec<_>>();
        (!lines.is_empty()).then(|| chart(title, y, lines))
    };
    let figures = CURVES.iter().filter_map(chart).collect::<Vec<_>>();
    (!figures.is_empty())
        .then(|| Section { title: format!("Training: {stage}"), blocks: vec![Block::Figures(figures)] })
}

fn results(measurements: &Measurements) -> Section {
    let measured = |one: &Measured| {
        let chance = one.chance.map_or(String::new(), |chance| chance.to_string());
        row(vec![one.name.clone(), one.show(4), one.unit.clone(), chance], false)
    };
    let rows = measurements.metrics.iter().map(measured).collect();
    let mut blocks = vec![table("", &["metric", "value", "unit", "chance"], rows)];
    let grouped = |Table { caption, columns, rows }: &Table| {
        let columns = columns.iter().map(String::as_str).collect::<Vec<_>>();
        let rows = rows.iter().map(|cells| row(cells.clone(), false)).collect();
        table(caption, &columns, rows)
    };
    blocks.extend(measurements.tables.iter().map(grouped));
    let figure = |plot: &Plot| match plot {
        Plot::Calibration(bins) => calibration("Calibration", bins),
        Plot::Histograms { title, x, samples } => {
            let sample = |(name, values): &(String, Vec<f64>)| Sample { name: name.clone(), values: values.clone() };
            let samples = samples.iter().map(sample).collect();
            let svg = Histograms { title: title.clone(), x: x.clone(), samples }.to_svg();
            Figure { svg, caption: String::new() }
        }
    };
    if !measurements.plots.is_empty() {
        blocks.push(Block::Figures(measurements.plots.iter().map(figure).collect()));
    }
    Section { title: "Results".into(), blocks }
}

fn exchanges(exchanges: &[Exchange]) -> Option<Section> {
    let block = |Exchange { prompt, answers }: &Exchange| {
        let answer = |index: usize| {
            let measurements::Answer { model, text, scores } = answers.get(index).cloned().unwrap_or_default();
            Answer { label: model, text, scores }
        };
        let [before, after] = [answer(0), answer(1)];
        Block::Dialogue(DialoguePair { prompt: prompt.clone(), before, after })
    };
    let blocks = exchanges.iter().map(block).collect::<Vec<_>>();
    (!blocks.is_empty()).then(|| Section { title: "Responses".into(), blocks })
}

impl<R: Serialize + Clone + 'static> Stage<Env> for WritePage<R> {
    const VERSION: u32 = 1;
    type Inputs = (Vec<Output<Corpus>>, Vec<Output<LanguageModel>>, Vec<Output<PreferenceModel>>, Output<Measurements>);
    type Output = Report;

    fn run(
        &self,
        (data, language_models, preference_models, measurements): (
            Vec<Corpus>,
            Vec<LanguageModel>,
            Vec<PreferenceModel>,
            Measurements,
        ),
        ctx: &StageContext,
        _env: &Env,
    ) -> Result<(), BoxError> {
        let metrics = language_models.iter().map(LanguageModel::metrics);
        let metrics = metrics.chain(preference_models.iter().map(PreferenceModel::metrics));
        let mut sections = vec![results(&measurements)];
        for (stage, metrics) in self.trained.iter().zip(metrics) {
            sections.extend(training(stage, &metrics?));
        }
        sections.extend(exchanges(&measurements.exchanges));
        let data = data.iter().map(Corpus::summary).collect::<Result<Vec<_>>>()?;
        sections.push(run_section(&data, Vec::new(), &self.recipe, ctx)?);
        let summary = measurements.remarks.join(" ");
        let page = Page { title: self.title.clone(), summary, sections };
        let path = ctx.artifact().join(Report::FILE);
        std::fs::write(&path, page.to_html()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}
