//! Stage `report`: one page that somebody who was not there can read.

use anyhow::{Context, Result};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_report::metrics::Metrics;
use firebrick_report::page::{Answer, Block, DialoguePair, Figure, Page, Section, Tone};
use firebrick_report::plot::{Cloud, Fit, Histograms, Line, Sample, Scatter};
use firebrick_stats::least_squares_line;
use serde::Serialize;

use super::Recipe;
use super::results::{Calibration, Results, Verdict};
use crate::Env;
use crate::artifacts::{Corpus, Evaluation, LanguageModel, PreferenceModel, Report, Summary};
use crate::report::{calibration, chart, curve, paragraph, row, run_section, table};

/// The recipe of the stage: the whole run's, which the page states.
#[derive(Clone, Debug, Serialize)]
pub struct WriteReport {
    /// The recipe.
    pub recipe: Recipe,
}

fn training(
    base: &Metrics,
    distilled: &Metrics,
    pmp: &Metrics,
    [train, test]: [&Metrics; 2],
    ppo: &Metrics,
) -> Section {
    let line = |name: &str, metrics: &Metrics, metric: &str| Line::new(name, curve(metrics, metric)).smoothed(0.9);
    let figures = vec![
        chart("Pretraining", "loss, nats a token", vec![line("pretrain", base, "loss")]),
        chart("Context distillation", "divergence, nats a token", vec![line("distill", distilled, "loss")]),
        chart(
            "Preference models: ranked loss",
            "nats a pair",
            vec![
                line("pretraining (PMP)", pmp, "ranked_loss"),
                line("train PM", train, "ranked_loss"),
                line("test PM", test, "ranked_loss"),
            ],
        ),
        chart(
            "Preference models: accuracy in training",
            "share of pairs",
            vec![
                line("pretraining (PMP)", pmp, "accuracy"),
                line("train PM", train, "accuracy"),
                line("test PM", test, "accuracy"),
            ],
        ),
        chart("PPO: reward", "score of the train PM", vec![line("objective/scores", ppo, "objective/scores")]),
        chart(
            "PPO: divergence from the initial policy",
            "nats an answer",
            vec![line("objective/kl_exact", ppo, "objective/kl_exact")],
        ),
        chart("PPO: entropy", "nats a token", vec![line("policy/entropy_avg", ppo, "policy/entropy_avg")]),
        chart("PPO: length of answers", "tokens", vec![line("response_length", ppo, "response_length")]),
    ];
    let deviations = curve(ppo, "val/ratio_first_max_deviation");
    let note = match deviations.iter().find(|(_, deviation)| *deviation != 0.0) {
        None if deviations.is_empty() => Block::Callout(Tone::Warn, "PPO did no iteration.".into()),
        None => Block::Callout(
            Tone::Good,
            "The probability ratio of every iteration's first minibatch was exactly 1: what was trained is what was sampled."
                .into(),
        ),
        Some((samples, deviation)) => Block::Callout(
            Tone::Warn,
            format!("After {samples} samples the probability ratio of a first minibatch was off 1 by {deviation:e}."),
        ),
    };
    Section { title: "Training curves".into(), blocks: vec![note, Block::Figures(figures)] }
}

fn robustness(ppo: &Metrics) -> Section {
    let kl = curve(ppo, "objective/kl_exact");
    let scores = curve(ppo, "objective/scores");
    let points = kl.iter().zip(&scores).map(|(&(_, kl), &(_, score))| (kl.max(0.0).sqrt(), score)).collect::<Vec<_>>();
    let (roots, values): (Vec<_>, Vec<_>) = points.iter().copied().unzip();
    let squares = roots.iter().map(|root| root * root).collect::<Vec<_>>();
    let root_fit = least_squares_line(&roots, &values);
    let linear_fit = least_squares_line(&squares, &values);
    let note = match (&root_fit, &linear_fit) {
        (Ok(root), Ok(linear)) => {
            format!("R² = {:.3} against √KL, {:.3} against KL", root.r_squared, linear.r_squared)
        }
        _ => "too few different points for a line".into(),
    };
    let fit = root_fit.ok().map(|line| Fit { slope: line.slope, intercept: line.intercept });
    let scatter = Scatter {
        title: "Reward against √KL".into(),
        x: "√KL, root nats".into(),
        y: "score of the train PM".into(),
        clouds: vec![Cloud { name: "iterations".into(), points, fit }],
        note: note.clone(),
    };
    let text = format!(
        "For much of training the preference model's score is roughly linear in the root of the divergence from the initial \
         policy (Bai et al. 2022, §4.3). Here: {note}."
    );
    let figure = Figure { svg: scatter.to_svg(), caption: String::new() };
    Section { title: "Reward against divergence".into(), blocks: vec![paragraph(text), Block::Figures(vec![figure])] }
}

fn preference(results: &Results) -> Section {
    let simulated = results.pm.iter().any(|one| one.ceiling.is_some());
    let mut columns = vec!["tranche", "pairs", "train PM", "test PM", "length only"];
    if simulated {
        columns.extend(["ceiling", "clean"]);
    }
    let rows = results.pm.iter().map(|one| {
        let mut cells = vec![
            one.tranche.clone(),
            one.pairs.to_string(),
            one.train_pm.show(3),
            one.test_pm.show(3),
            one.length.show(3),
        ];
        if simulated {
            let show = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.3}"));
            cells.extend([show(one.ceiling), show(one.clean)]);
        }
        row(cells, one.tranche == "all")
    });
    let all = results.pm.last().expect("the last row is all tranches");
    let (tone, verdict) = match all.verdict() {
        Verdict::Beats => (Tone::Good, "beats the length-only baseline; their 95 % intervals do not overlap"),
        Verdict::Above => (Tone::Warn, "is above the length-only baseline, but their 95 % intervals overlap"),
        Verdict::DoesNot => (Tone::Warn, "does not beat the length-only baseline"),
    };
    let verdict = Block::Callout(tone, format!("The preference model {verdict}."));
    let histogram = Histograms {
        title: "Scores of the train PM on test comparisons".into(),
        x: "score".into(),
        samples: vec![
            Sample { name: "chosen".into(), values: results.chosen_scores.clone() },
            Sample { name: "rejected".into(), values: results.rejected_scores.clone() },
        ],
    };
    let figures = vec![
        calibration("Calibration of the train PM", &results.calibration_curve),
        Figure { svg: histogram.to_svg(), caption: String::new() },
    ];
    let caption = if simulated {
        "Accuracy on held-out comparisons, with 95 % Wilson intervals; ceiling: of the best predictor of labels with this noise; \
         clean: on the labels without noise"
    } else {
        "Accuracy on held-out comparisons, with 95 % Wilson intervals"
    };
    let calibrated = results.pm.iter().map(|one| {
        let Calibration { brier, ece, slope } = one.calibration;
        let slope = slope.map_or("–".to_owned(), |slope| format!("{slope:.2}"));
        row(vec![one.tranche.clone(), format!("{brier:.3}"), format!("{ece:.3}"), slope], one.tranche == "all")
    });
    let calibrated = table(
        "Calibration of the train PM (a slope of 1 is calibrated, below is over-confident)",
        &["tranche", "Brier score", "expected calibration error", "slope"],
        calibrated.collect(),
    );
    let turns = results
        .by_turns
        .iter()
        .map(|one| row(vec![one.turns.to_string(), one.pairs.to_string(), one.accuracy.show(3)], false));
    let turns =
        table("Accuracy by the human turns of the conversation", &["turns", "pairs", "train PM"], turns.collect());
    Section {
        title: "Preference models".into(),
        blocks: vec![verdict, table(caption, &columns, rows.collect()), turns, calibrated, Block::Figures(figures)],
    }
}

fn policies(results: &Results) -> Section {
    let simulated = results.policies.iter().any(|one| one.oracle.is_some());
    let columns = ["policy", "train PM", "test PM", "Elo", "ended", "tokens", "perplexity"];
    let rows = results.policies.iter().map(|one| {
        let cells = vec![
            one.name.clone(),
            one.train_pm.show(2),
            one.test_pm.show(2),
            format!("{:.0} ± {:.0}", one.elo, one.elo_error),
            format!("{:.0} %", 100.0 * one.finished),
            format!("{:.1}", one.length),
            format!("{:.2}", one.perplexity),
        ];
        row(cells, one.name == "rlhf")
    });
    let judged = results.policies.iter().filter_map(|one| {
        let oracle = one.oracle.as_ref()?;
        let axes = [oracle.helpful, oracle.honest, oracle.harmless].map(|axis| format!("{axis:.3}"));
        let cells = [one.name.clone(), oracle.score.show(3)].into_iter().chain(axes).collect();
        Some(row(cells, one.name == "rlhf"))
    });
    let facts = vec![
        (
            "the final policy is preferred to the distilled one".to_owned(),
            format!("{} of prompts, by the test PM", results.win_rate.show(3)),
        ),
        ("divergence from the distilled policy".to_owned(), format!("{} nats an answer", results.kl.show(2))),
    ];
    let categories = results.policies[0].hhh.iter().map(|one| one.name.trim_start_matches("hhh/")).collect::<Vec<_>>();
    let hhh_columns =
        ["policy"].into_iter().chain(categories.iter().map(|&name| if name == "hhh" { "all" } else { name }));
    let hhh_columns = hhh_columns.collect::<Vec<_>>();
    let hhh_rows = results.policies.iter().map(|one| {
        let cells = one.hhh.iter().map(|measured| measured.show(3));
        row(std::iter::once(one.name.clone()).chain(cells).collect(), one.name == "rlhf")
    });
    let histogram = Histograms {
        title: "Scores of answers to held-out prompts".into(),
        x: "score of the train PM".into(),
        samples: vec![
            Sample { name: "distilled".into(), values: results.before_scores.clone() },
            Sample { name: "rlhf".into(), values: results.after_scores.clone() },
        ],
    };
    let mut blocks = vec![
        table(
            "Answers to held-out prompts by the preference models, with 95 % bootstrap intervals of the mean; Elo by the test PM",
            &columns,
            rows.collect(),
        ),
        Block::Facts(facts),
        Block::Figures(vec![Figure { svg: histogram.to_svg(), caption: String::new() }]),
    ];
    if simulated {
        let columns = ["policy", "mean of the three", "helpful", "honest", "harmless"];
        blocks.insert(0, table("Answers to held-out prompts by the world's oracle, 0 to 1, with the 95 % bootstrap interval of the mean", &columns, judged.collect()));
    }
    if !categories.is_empty() {
        blocks.push(table(
            "HHH comparisons by mutual information: accuracy, with 95 % Wilson intervals; chance is ½",
            &hhh_columns,
            hhh_rows.collect(),
        ));
    }
    Section { title: "Policies".into(), blocks }
}

fn hacking(results: &Results) -> Section {
    let correlation = results.metrics.iter().find(|one| one.name == "length_score_correlation/rlhf");
    let correlation = match correlation {
        Some(one) => format!("{:.2} over all {} answers of the final policy", one.estimate, results.after_scores.len()),
        None => "not defined: lengths or scores do not vary".into(),
    };
    let gap = |name: &str| {
        results.policies.iter().find(|one| one.name == name).map_or(0.0, |one| one.train_pm.mean - one.test_pm.mean)
    };
    let facts = vec![
        ("train PM less test PM, distilled".to_owned(), format!("{:.3}", gap("distilled"))),
        ("train PM less test PM, rlhf".to_owned(), format!("{:.3}", gap("rlhf"))),
        ("correlation of answer length and score".to_owned(), correlation),
    ];
    let text = "A policy that exploits its preference model scores higher by that model than by one trained on other comparisons. \
                Scores of two models compare only up to a constant, so it is the growth of the difference that tells.";
    Section { title: "Train PM against test PM".into(), blocks: vec![paragraph(text), Block::Facts(facts)] }
}

fn dialogues(results: &Results) -> Section {
    let block = |shown: &super::results::Shown| {
        let answer = |label: &str, text: &String, scores: &Vec<(String, f64)>| Answer {
            label: label.to_owned(),
            text: text.clone(),
            scores: scores.clone(),
        };
        Block::Dialogue(DialoguePair {
            prompt: shown.prompt.clone(),
            before: answer("distilled", &shown.before, &shown.before_scores),
            after: answer("rlhf", &shown.after, &shown.after_scores),
        })
    };
    Section { title: "Dialogues before and after".into(), blocks: results.shown.iter().map(block).collect() }
}

fn run_of(summary: Summary, pms: [&PreferenceModel; 3], recipe: &Recipe, ctx: &StageContext) -> Result<Section> {
    let mut facts = Vec::new();
    for (name, pm) in ["preference-model pretraining", "the train PM", "the test PM"].into_iter().zip(pms) {
        let used = pm.used()?;
        let too_long = match used.too_long {
            0 => String::new(),
            count => format!("; {count} more do not fit the context"),
        };
        facts.push((format!("pairs of {name}"), format!("{}{too_long}", used.pairs)));
    }
    run_section(&[summary], facts, recipe, ctx)
}

fn summary_of(results: &Results) -> String {
    let find = |name: &str| results.policies.iter().find(|one| one.name == name);
    let all = results.pm.last().expect("the last row is all tranches");
    let mut text = format!(
        "A preference model that picks the preferred answer {:.1} % of the time (length alone: {:.1} %) was used to train a policy \
         whose answers are preferred to those of the policy it started from on {:.0} % of held-out prompts.",
        100.0 * all.train_pm.mean,
        100.0 * all.length.mean,
        100.0 * results.win_rate.mean
    );
    if let (Some(before), Some(after)) =
        (find("distilled").and_then(|one| one.oracle), find("rlhf").and_then(|one| one.oracle))
    {
        text +=
            &format!(" By the world's oracle its score went from {} to {}.", before.score.show(2), after.score.show(2));
    }
    text
}

impl Stage<Env> for WriteReport {
    const VERSION: u32 = 3;
    type Inputs = (
        Output<Corpus>,
        Output<LanguageModel>,
        Output<LanguageModel>,
        Output<PreferenceModel>,
        Output<PreferenceModel>,
        Output<PreferenceModel>,
        Output<LanguageModel>,
        Output<Evaluation>,
    );
    type Output = Report;

    fn run(
        &self,
        (corpus, base, distilled, pmp, train_pm, test_pm, policy, Evaluation(results)): (
            Corpus,
            LanguageModel,
            LanguageModel,
            PreferenceModel,
            PreferenceModel,
            PreferenceModel,
            LanguageModel,
            Evaluation,
        ),
        ctx: &StageContext,
        _env: &Env,
    ) -> Result<(), BoxError> {
        let ppo = policy.metrics()?;
        let curves = training(
            &base.metrics()?,
            &distilled.metrics()?,
            &pmp.metrics()?,
            [&train_pm.metrics()?, &test_pm.metrics()?],
            &ppo,
        );
        let page = Page {
            title: "Alignment run".into(),
            summary: summary_of(&results),
            sections: vec![
                policies(&results),
                preference(&results),
                robustness(&ppo),
                hacking(&results),
                curves,
                dialogues(&results),
                run_of(corpus.summary()?, [&pmp, &train_pm, &test_pm], &self.recipe, ctx)?,
            ],
        };
        let path = ctx.artifact().join(Report::FILE);
        std::fs::write(&path, page.to_html()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}
