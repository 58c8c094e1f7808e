//! What stage `questions` measures, as it is kept.

use std::collections::BTreeMap;

use firebrick_stats::wilson;
use serde::{Deserialize, Serialize};

use crate::pipelines::rlhf::results::Estimate;

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// What became of hidden pixels, a row of each family of masks and way to fill them in.
    pub(crate) completion: Vec<Completion>,
    /// What became of pictures that something lies over, or that are corrupted, where nobody says so.
    pub(crate) covered: Vec<CoverResult>,
    /// What became of pictures of two shapes.
    pub(crate) overlap: Overlap,
    /// What was found on canvases of several shapes.
    pub(crate) clutter: ClutterResult,
    /// What became of blends of two shapes.
    pub(crate) ambiguity: Ambiguity,
    /// What evidence of classes is divided by, chosen on pictures kept apart.
    pub(crate) temperature: f64,
    /// Pictures to look at.
    pub(crate) grids: Vec<Grid>,
    /// The numbers that are held to bands.
    pub(crate) metrics: BTreeMap<String, f64>,
}

impl Results {
    /// Gives every number that bands may hold its name.
    pub(crate) fn measure(&mut self) {
        let mut metrics = BTreeMap::new();
        for one in &self.completion {
            let name = format!("{}/{}", one.occluder, one.method);
            metrics.insert(format!("accuracy/{name}"), one.accuracy.mean);
            if let Some(error) = one.error {
                metrics.insert(format!("error/{name}"), error);
            }
        }
        for one in &self.covered {
            metrics.insert(format!("covered/{}", one.cover), one.found.mean);
        }
        for one in &self.clutter.found {
            metrics.insert(format!("clutter/{}", one.by), one.f1);
        }
        metrics.insert("overlap/pointing".into(), self.overlap.pointing.mean);
        metrics.insert("overlap/ink_assignment".into(), self.overlap.ink_assignment);
        metrics.insert("overlap/both_searched".into(), self.overlap.both_searched.mean);
        metrics.insert("overlap/both_remembered".into(), self.overlap.both_remembered.mean);
        for (name, way) in ["alone", "remembered", "both"].iter().zip(&self.ambiguity.ways) {
            metrics.insert(format!("ambiguity/{name}"), way.judged.mean);
        }
        self.metrics = metrics;
    }

    /// The tables in plain text.
    pub(crate) fn summary(&self) -> String {
        let mut lines = vec![format!("{:8} {:10} {:>24} {:>8}", "mask", "filled by", "accuracy", "error")];
        for one in &self.completion {
            let Completion { occluder, method, accuracy, .. } = one;
            lines.push(format!("{occluder:8} {method:10} {:>24} {:>8}", accuracy.show(3), or_dash(one.error)));
        }
        lines.push(String::new());
        lines.extend(self.covered.iter().map(|one| format!("{} of {} pictures", one.line(), one.pictures)));
        let Overlap { pairs, pointing, ink_assignment, error, composite_error, .. } = &self.overlap;
        let Overlap { searched, both_searched, both_first, both_remembered, .. } = &self.overlap;
        lines.push(format!(
            "\nof {pairs} pictures of two shapes: pointing game {}, ink assigned {ink_assignment:.3}, error {error:.4} (the picture \
             itself {composite_error:.4}), both labels found {} by remembered pictures, {} as the classifier's first two, {} by energy (of {searched})",
            pointing.show(3),
            both_remembered.show(3),
            both_first.show(3),
            both_searched.show(3)
        ));
        let ClutterResult { canvases, shapes, found } = &self.clutter;
        let told = found.iter().map(|one| format!("{} {:.3} (pointing {})", one.by, one.f1, one.pointing.show(3)));
        lines.push(format!("of {shapes} shapes on {canvases} canvases, F1: {}", told.collect::<Vec<_>>().join(", ")));
        for Drawing { given, judged, closer, error } in &self.ambiguity.ways {
            lines.push(format!(
                "of the halves of {} blends, with {given}: judged as their label {}, nearer to themselves {}, error {error:.4}",
                self.ambiguity.pictures,
                judged.show(3),
                closer.show(3)
            ));
        }
        lines.join("\n")
    }
}

/// Hidden pixels filled in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Completion {
    /// The family of masks.
    pub(crate) occluder: String,
    /// What filled them in.
    pub(crate) method: String,
    /// How many pictures.
    pub(crate) pictures: usize,
    /// How often the classifier is right on the filled picture.
    pub(crate) accuracy: Estimate,
    /// The mean square error of hidden pixels, where they are drawn at all.
    pub(crate) error: Option<f64>,
    /// The mean structural similarity of the whole pictures, likewise.
    pub(crate) similarity: Option<f64>,
    /// The expected calibration error of the answers' probabilities, where they have any; of `map` those of softmax(−E).
    pub(crate) calibration_error: Option<f64>,
    /// How far the best wrong label's energy is above the right one's in the mean, in nats, where there are energies.
    pub(crate) energy_gap: Option<f64>,
}

/// Pictures whose covered pixels nobody names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CoverResult {
    /// What lies over them.
    pub(crate) cover: String,
    pub(crate) pictures: usize,
    /// How often the classifier is right on the picture as it is.
    pub(crate) blind: Estimate,
    /// How often it is with what was found to be covered filled in.
    pub(crate) found: Estimate,
    /// How often it is with what is covered filled in, where that is known.
    pub(crate) told: Option<Estimate>,
    /// The area under the curve of what was found to be covered, where that is known.
    pub(crate) auroc: Option<f64>,
}

impl CoverResult {
    pub(crate) fn line(&self) -> String {
        let Self { cover, blind, found, .. } = self;
        let (known, auroc) = (or_dash(self.told.as_ref().map(|known| known.mean)), or_dash(self.auroc));
        format!("{cover} {:.3} found {:.3} told {known} auroc {auroc}", blind.mean, found.mean)
    }
}

/// A number that may not be there.
pub(crate) fn or_dash(number: Option<f64>) -> String {
    number.map_or("–".to_owned(), |number| format!("{number:.3}"))
}

/// Pictures of two shapes taken apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Overlap {
    pub(crate) pairs: usize,
    /// Both labels given.
    pub(crate) ink_assignment: f64,
    pub(crate) intersection_over_union: f64,
    pub(crate) pointing: Estimate,
    /// Of each shape, and of the picture of both in its place.
    pub(crate) error: f64,
    pub(crate) composite_error: f64,
    /// How often both labels are those of least energy, of so many pictures.
    pub(crate) searched: usize,
    pub(crate) both_searched: Estimate,
    /// How often they are the classifier's first two.
    pub(crate) both_first: Estimate,
    /// How often they are of the two remembered pictures that make this one best.
    pub(crate) both_remembered: Estimate,
    /// The mean energy before every step, and after the last, in nats.
    pub(crate) curve: Vec<f64>,
    pub(crate) grid: Grid,
}

/// Blends of two shapes, each half drawn from what is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ambiguity {
    pub(crate) pictures: usize,
    pub(crate) ways: Vec<Drawing>,
}

/// Halves of blends as they are drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Drawing {
    pub(crate) given: String,
    /// How often an independent classifier sees the label that was given.
    pub(crate) judged: Estimate,
    /// How often what is drawn is nearer to its own half than to the other.
    pub(crate) closer: Estimate,
    /// The mean square difference from its own half.
    pub(crate) error: f64,
}

/// Pictures side by side: names of the columns, and rows of grey pictures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Grid {
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    /// Height and width of a picture.
    pub(crate) size: [usize; 2],
    pub(crate) rows: Vec<Vec<Vec<u8>>>,
}

/// Rows of a grid.
pub(super) const SHOWN: usize = 8;

/// Numbers from 0 to 1 as bytes.
pub(super) fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().map(|&number| (255.0 * number.clamp(0.0, 1.0)).round() as u8).collect()
}

/// A share with its 95 % interval.
pub(crate) fn share(right: usize, of: usize) -> Estimate {
    wilson(right as u64, of as u64, 0.95).expect("a share of at least one").into()
}

/// What was found on canvases.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClutterResult {
    pub(crate) canvases: usize,
    /// On all of them.
    pub(crate) shapes: usize,
    pub(crate) found: Vec<DetectorResult>,
}

/// What one way found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DetectorResult {
    pub(crate) by: String,
    /// Of what it claims, how much is there: the right label, at most four pixels off.
    pub(crate) precision: Estimate,
    /// Of what is there, how much it claims.
    pub(crate) recall: Estimate,
    /// The harmonic mean of both.
    pub(crate) f1: f64,
    /// Of what is there, how much has a claim of any label within two pixels.
    pub(crate) pointing: Estimate,
}

/// How long something takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) what: String,
    /// Of one thread, for each picture.
    pub(crate) milliseconds: f64,
    /// How many forward passes of the classifier take as long.
    pub(crate) passes: f64,
}
