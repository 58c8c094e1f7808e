//! What the commands measure of finished models, in one form for the terminal, the report and bands.

use std::path::Path;

use firebrick_pipeline::{Artifact, BoxError};
use firebrick_types::Measured;
use serde::{Deserialize, Serialize};

use crate::artifacts::read_json;

/// What was measured of finished models.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measurements {
    /// Every number that may have a band.
    pub metrics: Vec<Measured>,
    /// Numbers by group.
    pub tables: Vec<Table>,
    /// Distributions.
    pub plots: Vec<Plot>,
    /// What models answered.
    pub exchanges: Vec<Exchange>,
    /// What a reader must not miss.
    pub remarks: Vec<String>,
}

/// A table of text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// A cell for each column.
    pub rows: Vec<Vec<String>>,
}

/// A picture of many numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plot {
    /// Predicted probability, observed frequency and count of every bin.
    Calibration(Vec<(f64, f64, u64)>),
    /// Distributions over each other.
    Histograms {
        /// What is counted.
        title: String,
        /// The axis.
        x: String,
        /// The samples by name.
        samples: Vec<(String, Vec<f64>)>,
    },
}

/// A prompt and the answers of models to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exchange {
    /// What was asked.
    pub prompt: String,
    /// The answers, in the order of the models.
    pub answers: Vec<Answer>,
}

/// An answer of a model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Which model's.
    pub model: String,
    /// What it says.
    pub text: String,
    /// Its scores by name.
    pub scores: Vec<(String, f64)>,
}

impl Measurements {
    pub(crate) const FILE: &str = "measurements.json";

    /// The numbers and tables in plain text.
    pub fn summary(&self) -> String {
        let mut lines = vec![format!("{:32} {:>30}  unit", "metric", "value")];
        for one in &self.metrics {
            let chance = one.chance.map_or(String::new(), |chance| format!("  (chance {chance})"));
            lines.push(format!("{:32} {:>30}  {}{chance}", one.name, one.show(4), one.unit).trim_end().to_owned());
        }
        lines.extend(self.tables.iter().map(|table| format!("\n{}", table.text())));
        lines.extend(self.remarks.iter().map(|remark| format!("\n{remark}")));
        lines.join("\n")
    }
}

impl Table {
    /// It in plain text, the first column to the left and the others to the right.
    fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].chars().count()]).max().unwrap_or(0)
        };
        let widths = (0..self.columns.len()).map(width).collect::<Vec<_>>();
        let line = |cells: &[String]| {
            let cell = |(column, cell): (usize, &String)| match column {
                0 => format!("{cell:width$}", width = widths[0]),
                _ => format!("{cell:>width$}", width = widths[column]),
            };
            cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let rows = self.rows.iter().map(|row| line(row));
        [self.caption.clone(), line(&self.columns)].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }
}

impl Artifact for Measurements {
    const KIND: &'static str = "measurements";

    fn open(folder: &Path) -> Result<Self, BoxError> {
        Ok(read_json(&folder.join(Self::FILE))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_aligned_and_tells_chance() {
        let cells = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
        let measurements = Measurements {
            metrics: vec![Measured::new("pm/accuracy", 0.75).interval(0.7, 0.8).unit("share of pairs").chance(0.5)],
            tables: vec![Table {
                caption: "By source".to_owned(),
                columns: cells(&["source", "pairs"]),
                rows: vec![cells(&["harmless-base", "7"]), cells(&["all", "1234"])],
            }],
            ..Measurements::default()
        };
        let wanted = "metric                                                    value  unit
pm/accuracy                             0.7500 [0.7000, 0.8000]  share of pairs  (chance 0.5)

By source
source         pairs
harmless-base      7
all             1234";
        assert_eq!(measurements.summary(), wanted);
    }
}
