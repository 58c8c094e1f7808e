//! Expected bands of a run's metrics.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use firebrick_pipeline::{open, read_record};
use firebrick_types::Measured;
use serde::{Deserialize, Serialize};

use crate::artifacts::Evaluation;

/// The bands of a recipe, and the runs they come from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bands {
    /// The seeds of the runs.
    seeds: Vec<u64>,
    metrics: BTreeMap<String, Band>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Band {
    low: f64,
    high: f64,
    /// What the runs gave, in the order of their seeds.
    seen: Vec<f64>,
}

impl Band {
    /// From the least to the greatest value seen, and as far again on both sides: by a few seeds the spread is hardly known.
    /// At least 5 % of the value and 0.05: another machine rounds otherwise, and a few answers of a small evaluation differ.
    fn around(seen: Vec<f64>) -> Self {
        let (least, greatest) = seen.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        let room = (greatest - least).max(0.05 * greatest.abs().max(least.abs())).max(0.05);
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let seen = seen.into_iter().map(round).collect();
        Self { low: round(least - room), high: round(greatest + room), seen }
    }
}

impl Bands {
    /// The bands of a file.
    ///
    /// # Errors
    /// If the text is none.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("the bands of this recipe")
    }

    /// The bands of finished runs of one recipe that differ in their seeds.
    ///
    /// # Errors
    /// If a run is not finished, or two have the same seed.
    pub fn of(runs: &[PathBuf]) -> Result<Self> {
        let mut by_seed = BTreeMap::new();
        for run in runs {
            let seed = read_record(run, "data")?.identity.recipe["seed"].as_u64().context("a run has a seed")?;
            let Evaluation(results) = open(run, "evaluate")?;
            let metrics = results.metrics.into_iter().map(|one| (one.name, one.estimate)).collect::<BTreeMap<_, _>>();
            if by_seed.insert(seed, metrics).is_some() {
                bail!("{}: another run has the seed {seed} too; bands need different ones", run.display());
            }
        }
        let names = by_seed.values().next().map(|metrics| metrics.keys().cloned().collect::<Vec<_>>());
        let band = |name: String| {
            let seen = by_seed.values().map(|metrics| metrics.get(&name).copied()).collect::<Option<Vec<_>>>();
            let seen = seen.with_context(|| format!("`{name}` was not measured in every run"))?;
            Ok((name, Band::around(seen)))
        };
        let metrics = names.unwrap_or_default().into_iter().map(band).collect::<Result<_>>()?;
        Ok(Self { seeds: by_seed.into_keys().collect(), metrics })
    }

    /// As a file of bands.
    pub fn to_toml(&self) -> String {
        let mut text = format!("seeds = {:?}\n\n[metrics]\n", self.seeds);
        for (name, Band { low, high, seen }) in &self.metrics {
            text += &format!("\"{name}\" = {{ low = {low:?}, high = {high:?}, seen = {seen:?} }}\n");
        }
        text
    }

    /// As a table of the book.
    #[cfg(test)]
    fn to_markdown(&self) -> String {
        let seeds = self.seeds.iter().map(|seed| format!(" seed {seed} |")).collect::<String>();
        let rules = "---: |".repeat(self.seeds.len());
        let mut text = format!("| metric | low | high |{seeds}\n| --- | ---: | ---: |{rules}\n");
        for (name, Band { low, high, seen }) in &self.metrics {
            let seen = seen.iter().map(|value| format!(" {value:.3} |")).collect::<String>();
            text += &format!("| `{name}` | {low:.3} | {high:.3} |{seen}\n");
        }
        text
    }

    /// Every metric beside its band, a line each; and whether all lie within.
    pub fn check(&self, metrics: &[Measured]) -> (String, bool) {
        let mut lines = vec![format!("{:28} {:>10} {:>10} {:>10}", "metric", "value", "low", "high")];
        let mut all = true;
        for (name, &Band { low, high, .. }) in &self.metrics {
            let value = metrics.iter().find(|one| one.name == *name).map_or(f64::NAN, |one| one.estimate);
            let within = low <= value && value <= high;
            all &= within;
            let verdict = if within { "" } else { "  OUTSIDE" };
            lines.push(format!("{name:28} {value:10.4} {low:10.4} {high:10.4}{verdict}"));
        }
        (lines.join("\n"), all)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pipelines::{Recipe, rlhf};

    #[test]
    fn a_band_leaves_the_spread_again_on_both_sides() {
        let band = Band::around(vec![1.0, 1.5, 1.25]);
        assert_eq!((band.low, band.high), (0.5, 2.0));
        // The same value thrice: 5 % of it.
        let band = Band::around(vec![2.0, 2.0, 2.0]);
        assert_eq!((band.low, band.high), (1.9, 2.1));
    }

    #[test]
    fn what_lies_outside_or_was_not_measured_is_no_match() {
        let bands = Bands { seeds: vec![1], metrics: [("a".to_owned(), Band::around(vec![1.0]))].into() };
        let within = |metrics: &[Measured]| bands.check(metrics).1;
        assert!(within(&[Measured::new("a", 1.04)]));
        assert!(!within(&[Measured::new("a", 1.1)]));
        assert!(!within(&[Measured::new("a", f64::NAN)]));
        assert!(!within(&[]));
    }

    #[test]
    fn bands_survive_their_file() {
        let bands = Bands { seeds: vec![1, 2], metrics: [("a/b".to_owned(), Band::around(vec![1.0, 3.0]))].into() };
        assert_eq!(Bands::parse(&bands.to_toml()).expect("it was written so").to_toml(), bands.to_toml());
    }

    #[test]
    fn the_book_shows_the_bands_of_every_recipe() {
        // Read when the test runs: the book is no part of the published crate.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/src/expected.md");
        let book = std::fs::read_to_string(path).expect("the book stands beside the crates");
        for (name, text) in rlhf::Recipe::BANDS {
            let table = Bands::parse(text).expect("built-in bands").to_markdown();
            assert!(book.contains(&table), "docs/book/src/expected.md should hold for `{name}`:\n{table}");
        }
    }
}
