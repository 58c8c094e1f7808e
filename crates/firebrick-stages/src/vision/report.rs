//! Stage `report`: one page that somebody who was not there can read.

use anyhow::{Context, Result};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_report::page::{Align, Block, Column, Figure, Page as Html, Row, Section, Table};
use firebrick_report::plot::{Line, LineChart, Pictures as PictureGrid};
use serde::Serialize;

use super::artifacts::{Costs, Page, Pictures, QuestionResults, TrainedClassifier};
use super::pictures::CHUNK;
use super::recipe::Recipe;
use super::results::{
    Ambiguity, ClutterResult, Completion, Cost, CoverResult, DetectorResult, Drawing, Grid, Overlap, Results, or_dash,
};
use crate::Env;

/// The recipe of the stage: the whole run's, which the page states.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Write {
    recipe: Recipe,
}

impl Write {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { recipe: recipe.clone() }
    }
}

impl Stage<Env> for Write {
    const VERSION: u32 = 1;
    type Inputs = (Output<Pictures>, Output<TrainedClassifier>, Output<QuestionResults>, Output<Costs>);
    type Output = Page;

    fn run(
        &self,
        (pictures, classifier, QuestionResults(results), Costs(costed)): (
            Pictures,
            TrainedClassifier,
            QuestionResults,
            Costs,
        ),
        ctx: &StageContext,
        _env: &Env,
    ) -> Result<(), BoxError> {
        let found = pictures.train_test()?;
        let accuracy = classifier.accuracy()?;
        let summary = format!(
            "A classifier of {} pictures is right on {accuracy:.3} of {} others. Its backward pass was asked what hides behind six \
             families of masks, and which two shapes lie over each other.",
            found.train.len(),
            found.test.len()
        );
        let page = Html {
            title: "Vision run".into(),
            summary,
            sections: vec![
                completion(&results),
                covers(&results.covered),
                overlap(&results.overlap),
                clutter(&results.clutter),
                ambiguity(&results.ambiguity),
                costs(&costed),
                training(&classifier)?,
                Section {
                    title: "Recipe".into(),
                    blocks: vec![Block::Paragraph(toml::to_string(&self.recipe).context("a recipe is TOML")?)],
                },
            ],
        };
        let path = ctx.artifact().join(Page::FILE);
        std::fs::write(&path, page.to_html()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}

fn table(caption: &str, columns: &[&str], rows: Vec<Row>) -> Block {
    let align = |index: usize| if index < 2 { Align::Left } else { Align::Right };
    let column = |(index, name): (usize, &&str)| Column { name: (*name).to_owned(), align: align(index) };
    Block::Table(Table { caption: caption.to_owned(), columns: columns.iter().enumerate().map(column).collect(), rows })
}

fn completion(results: &Results) -> Section {
    let row = |one: &Completion| Row {
        cells: vec![
            one.occluder.clone(),
            one.method.clone(),
            one.pictures.to_string(),
            one.accuracy.show(3),
            or_dash(one.error),
            or_dash(one.similarity),
            or_dash(one.calibration_error),
            one.energy_gap.map_or("–".to_owned(), |gap| format!("{gap:.1}")),
        ],
        emphasis: one.method == "impute",
    };
    let columns = ["mask", "filled by", "pictures", "accuracy", "error", "SSIM", "ECE", "gap"];
    let caption = "How often the label is right, with 95 % intervals, and the mean square error of what was hidden; the structural similarity of the whole \
                   picture, the expected calibration error of the answers' probabilities (of `map` those of softmax(−E)), and by how many nats \
                   the best wrong label's energy is above the right one's. The label is the \
                   classifier's on the filled picture (`zero`: left black), but for `map`, `binary` and `rectified`, which choose it \
                   themselves, and `impute`, which averages the classifier's answers to a filling of every class. `trained`, another \
                   classifier, and `denoiser` learnt from pictures under the same families of masks; of all else only the temperature of \
                   `impute` was chosen under them.";
    // Each as wide as the page, as it has many columns.
    let grid = |grid: &Grid| {
        let svg = PictureGrid { columns: grid.columns.clone(), size: grid.size, rows: grid.rows.clone() }.to_svg();
        Block::Figures(vec![Figure { svg, caption: grid.title.clone() }])
    };
    let tuned = format!(
        "`impute` divides the evidence of classes by {}, chosen on pictures that nothing was learnt from.",
        results.temperature
    );
    let mut blocks =
        vec![table(caption, &columns, results.completion.iter().map(row).collect()), Block::Paragraph(tuned)];
    blocks.extend(results.grids.iter().map(grid));
    Section { title: "What hides behind a mask".into(), blocks }
}

fn covers(covered: &[CoverResult]) -> Section {
    let row = |one: &CoverResult| Row {
        cells: vec![
            one.cover.clone(),
            one.pictures.to_string(),
            one.blind.show(3),
            one.found.show(3),
            one.told.as_ref().map_or("–".to_owned(), |told| told.show(3)),
            or_dash(one.auroc),
        ],
        emphasis: false,
    };
    let columns = ["wrong", "pictures", "as it is", "found", "known", "AUROC"];
    let caption = "Pictures of which nobody says what is wrong: a square under something else, or every pixel corrupted. How often the \
                   label is right, with 95 % intervals: the classifier's on the picture as it is; that of `impute` with what remembered pictures find \
                   to be covered hidden, and with what is covered hidden, where that is known. The area under the curve is of what was found.";
    Section {
        title: "Something lies over it".into(),
        blocks: vec![table(caption, &columns, covered.iter().map(row).collect())],
    }
}

fn overlap(one: &Overlap) -> Section {
    let facts = [
        ("pictures", one.pairs.to_string()),
        ("pointing game", one.pointing.show(3)),
        ("ink given to the right shape", format!("{:.3}", one.ink_assignment)),
        ("intersection over union", format!("{:.3}", one.intersection_over_union)),
        ("error of a shape", format!("{:.4}", one.error)),
        ("error of the picture of both", format!("{:.4}", one.composite_error)),
        ("both labels found by remembered pictures", one.both_remembered.show(3)),
        ("both labels found by energy", format!("{} of {} pictures", one.both_searched.show(3), one.searched)),
        ("both among the classifier's first two", one.both_first.show(3)),
    ];
    let facts = facts.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let Grid { title, columns, size, rows } = one.grid.clone();
    let points = one.curve.iter().enumerate().map(|(step, &energy)| (step as f64, energy)).collect();
    let lines = vec![Line::new("both labels given", points)];
    let chart = LineChart { title: "Energy".into(), x: "steps".into(), y: "nats a picture".into(), lines };
    let figures = vec![
        Figure { svg: PictureGrid { columns, size, rows }.to_svg(), caption: title },
        Figure { svg: chart.to_svg(), caption: "The joint energy as it goes down.".into() },
    ];
    Section { title: "Two shapes over each other".into(), blocks: vec![Block::Facts(facts), Block::Figures(figures)] }
}

fn clutter(one: &ClutterResult) -> Section {
    let row = |found: &DetectorResult| Row {
        cells: vec![
            found.by.clone(),
            one.shapes.to_string(),
            found.precision.show(3),
            found.recall.show(3),
            format!("{:.3}", found.f1),
            found.pointing.show(3),
        ],
        emphasis: found.by == "detect",
    };
    let columns = ["found by", "shapes", "precision", "recall", "F1", "pointing game"];
    let caption = format!(
        "{} canvases of three and four shapes: how much is found with the right label and at most four pixels off, and how often \
         something is claimed within two pixels of a shape, with 95 % intervals. `windows` is the classifier on every second window, \
         `components` on every piece of ink that hangs together; how sure each must be was chosen on other canvases.",
        one.canvases
    );
    Section {
        title: "Several shapes".into(),
        blocks: vec![table(&caption, &columns, one.found.iter().map(row).collect())],
    }
}

fn ambiguity(one: &Ambiguity) -> Section {
    let row = |way: &Drawing| Row {
        cells: vec![
            way.given.clone(),
            one.pictures.to_string(),
            way.judged.show(3),
            way.closer.show(3),
            format!("{:.4}", way.error),
        ],
        emphasis: way.given == "both labels",
    };
    let rows = one.ways.iter().map(row).collect();
    let columns = ["given", "pictures", "judged as its label", "nearer to its own half", "error"];
    let caption = "Each half of a blend, drawn from what was given: how often another classifier, trained apart, sees the label, with 95 % \
                   intervals; how often it is nearer to its own half than to the other; its mean square error.";
    Section { title: "One picture, two readings".into(), blocks: vec![table(caption, &columns, rows)] }
}

fn costs(costed: &[Cost]) -> Section {
    let row = |one: &Cost| Row {
        cells: vec![one.what.clone(), format!("{:.2}", one.milliseconds), format!("{:.1}", one.passes)],
        emphasis: false,
    };
    let columns = ["what", "ms a picture", "forward passes"];
    let caption = format!(
        "What an answer takes, on one thread and {CHUNK} pictures at a time, or all that there are: the median of three, of what takes ten seconds once, and how many forward \
         passes of the classifier take as long."
    );
    Section { title: "Cost".into(), blocks: vec![table(&caption, &columns, costed.iter().map(row).collect())] }
}

fn training(classifier: &TrainedClassifier) -> Result<Section> {
    let metrics = classifier.metrics()?;
    let curve = |name: &str| metrics.column(name).map(|column| column.by_samples()).unwrap_or_default();
    let chart = |title: &str, y: &str, name: &str| {
        let lines = vec![Line::new(name, curve(name)).smoothed(0.9)];
        let chart = LineChart { title: title.to_owned(), x: "samples".to_owned(), y: y.to_owned(), lines };
        Figure { svg: chart.to_svg(), caption: String::new() }
    };
    let figures = vec![
        chart("Classifier: loss", "nats a picture", "loss"),
        chart("Classifier: accuracy in training", "share of pictures", "accuracy"),
    ];
    Ok(Section { title: "Training curves".into(), blocks: vec![Block::Figures(figures)] })
}
