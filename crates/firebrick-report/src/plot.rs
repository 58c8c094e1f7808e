//! Charts as SVG: curves, reward against √KL, calibration, histograms.
//!
//! A chart is a plain description; `to_svg` draws it. Numbers that are not finite (or beyond ±1e300) are left out, and
//! the picture says how many. Colours are those of Okabe and Ito (2008) and come again after the seventh series.

mod axis;
mod canvas;
mod pictures;

use plotters::element::{Circle, PathElement, Polygon};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, ShapeStyle};

pub use canvas::Svg;
pub use pictures::Pictures;

use axis::{Axis, drawable, extent};
use canvas::{
    Chart, Entry, Frame, MUTED, Mark, Outcome, card, colour, draw_frame, draw_no_data, draw_note, draw_text, stroke,
};

const X_TICKS: usize = 6;
const Y_TICKS: usize = 5;

/// Curves over a common axis, such as a loss over the samples seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineChart {
    /// Heading; may be empty.
    pub title: String,
    /// What the horizontal axis measures, with its unit.
    pub x: String,
    /// What the vertical axis measures, with its unit.
    pub y: String,
    /// The curves.
    pub lines: Vec<Line>,
}

/// One named curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Points (x, y), drawn in this order.
    pub points: Vec<(f64, f64)>,
    /// Points (x, lower, upper) of a shaded interval; may be empty.
    pub band: Vec<(f64, f64, f64)>,
    /// Weight of the past in an exponential moving average, in 0..1. The raw curve is then drawn faint behind it.
    pub smoothing: Option<f64>,
}

impl Line {
    /// Returns a plain curve.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, ..Self::default() }
    }

    /// Returns the curve with a shaded interval of points (x, lower, upper).
    pub fn with_band(self, band: Vec<(f64, f64, f64)>) -> Self {
        Self { band, ..self }
    }

    /// Returns the curve with an exponential moving average in front, in which the past weighs `weight`.
    pub fn smoothed(self, weight: f64) -> Self {
        Self { smoothing: Some(weight), ..self }
    }
}

impl LineChart {
    /// Returns the picture.
    ///
    /// # Panics
    /// If a smoothing weight lies outside 0..1.
    pub fn to_svg(&self) -> Svg {
        let mut skipped = 0;
        let lines: Vec<Line> = self
            .lines
            .iter()
            .map(|line| Line {
                points: keep(&line.points, |&(x, y)| drawable(x) && drawable(y), &mut skipped),
                band: keep(&line.band, |&(x, low, high)| [x, low, high].into_iter().all(drawable), &mut skipped),
                ..line.clone()
            })
            .collect();
        let xs = lines.iter().flat_map(|line| line.points.iter().map(|p| p.0).chain(line.band.iter().map(|p| p.0)));
        let ys = lines.iter().flat_map(|line| {
            line.points.iter().map(|p| p.1).chain(line.band.iter().flat_map(|&(_, low, high)| [low, high]))
        });
        let extents = extent(xs).zip(extent(ys));
        let legend = legend(lines.iter().map(|line| line.name.clone()), Mark::Line);
        chart(&self.title, legend, (&self.x, &self.y), extents, skipped, |chart, frame| {
            let columns = Columns::of(&frame.x);
            for (index, line) in lines.iter().enumerate() {
                draw_band(chart, &columns.thin_band(&line.band), index)?;
            }
            for (index, line) in lines.iter().enumerate() {
                match line.smoothing {
                    Some(weight) => {
                        draw_line(chart, &columns.thin(&line.points), stroke(colour(index), 0.25, 2))?;
                        draw_line(chart, &columns.thin(&smooth(&line.points, weight)), stroke(colour(index), 1.0, 4))?;
                    }
                    None => draw_line(chart, &columns.thin(&line.points), stroke(colour(index), 1.0, 4))?,
                }
            }
            Ok(())
        })
    }
}

/// Clouds of points with fitted lines, such as reward against √KL (B-28).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scatter {
    /// Heading; may be empty.
    pub title: String,
    /// What the horizontal axis measures, with its unit.
    pub x: String,
    /// What the vertical axis measures, with its unit.
    pub y: String,
    /// The clouds.
    pub clouds: Vec<Cloud>,
    /// Lines of text drawn in the upper corner that a first fitted line leaves free; may be empty.
    pub note: String,
}

/// One named cloud of points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cloud {
    /// Its name in the legend.
    pub name: String,
    /// Points (x, y).
    pub points: Vec<(f64, f64)>,
    /// The line fitted to them, drawn from the leftmost to the rightmost point.
    pub fit: Option<Fit>,
}

/// The straight line y = slope · x + intercept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Rise of y over x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
}

impl Scatter {
    /// Returns the picture. A fit that is not finite is not drawn.
    pub fn to_svg(&self) -> Svg {
        let mut skipped = 0;
        let clouds: Vec<Vec<(f64, f64)>> = self
            .clouds
            .iter()
            .map(|cloud| keep(&cloud.points, |&(x, y)| drawable(x) && drawable(y), &mut skipped))
            .collect();
        let fits: Vec<Option<[(f64, f64); 2]>> = self
            .clouds
            .iter()
            .zip(&clouds)
            .map(|(cloud, points)| {
                let fit = cloud.fit?;
                let (left, right) = extent(points.iter().map(|p| p.0))?;
                let ends = [left, right].map(|x| (x, fit.slope * x + fit.intercept));
                ends.iter().all(|&(_, y)| drawable(y)).then_some(ends)
            })
            .collect();
        let all = || clouds.iter().flatten().chain(fits.iter().flatten().flatten());
        let extents = extent(all().map(|p| p.0)).zip(extent(all().map(|p| p.1)));
        let legend = legend(self.clouds.iter().map(|cloud| cloud.name.clone()), Mark::Dot);
        chart(&self.title, legend, (&self.x, &self.y), extents, skipped, |chart, _| {
            for (index, points) in clouds.iter().enumerate() {
                let dot = |&point: &(f64, f64)| Circle::new(point, 8, colour(index).mix(0.6).filled());
                chart.draw_series(points.iter().map(dot))?;
            }
            for (index, ends) in fits.iter().enumerate() {
                if let Some(ends) = ends {
                    draw_line(chart, ends, stroke(colour(index), 1.0, 4))?;
                }
            }
            let falls = fits.iter().flatten().next().is_some_and(|[left, right]| right.1 < left.1);
            draw_note(chart, &self.note, falls)
        })
    }
}

/// Predicted probabilities against observed frequencies (A-38, B-12), with the diagonal of perfect calibration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// Heading; may be empty.
    pub title: String,
    /// The bins; empty ones (count 0) are not drawn.
    pub bins: Vec<CalibrationBin>,
}

/// The predictions that fell into one bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationBin {
    /// Mean predicted probability.
    pub predicted: f64,
    /// Observed frequency.
    pub observed: f64,
    /// Number of predictions; the area of a point is proportional to it.
    pub count: usize,
}

impl Calibration {
    /// Returns the picture.
    pub fn to_svg(&self) -> Svg {
        const LARGEST_RADIUS: f64 = 26.0;
        let mut skipped = 0;
        let filled: Vec<CalibrationBin> = self.bins.iter().copied().filter(|bin| bin.count > 0).collect();
        let bins = keep(&filled, |bin| drawable(bin.predicted) && drawable(bin.observed), &mut skipped);
        let most = bins.iter().map(|bin| bin.count).max();
        let legend = vec![
            Entry { mark: Mark::Dot, colour: colour(0), name: "bins, with their counts".into() },
            Entry { mark: Mark::Line, colour: MUTED, name: "perfectly calibrated".into() },
        ];
        let names = ("predicted probability", "observed frequency");
        chart(&self.title, legend, names, most.map(|_| ((0.0, 1.0), (0.0, 1.0))), skipped, |chart, _| {
            draw_line(chart, &[(0.0, 0.0), (1.0, 1.0)], stroke(MUTED, 1.0, 2))?;
            for bin in &bins {
                let share = bin.count as f64 / most.unwrap_or(1) as f64;
                let radius = (LARGEST_RADIUS * share.sqrt()).max(5.0) as i32;
                let place = (bin.predicted, bin.observed);
                chart.draw_series([Circle::new(place, radius, colour(0).mix(0.75).filled())])?;
                let (x, y) = chart.backend_coord(&place);
                // Counts stand above their points, or below where the chart ends.
                let (side, y) =
                    if bin.observed > 0.85 { (VPos::Top, y + radius + 6) } else { (VPos::Bottom, y - radius - 6) };
                let area = chart.plotting_area().strip_coord_spec();
                let (left, top) = chart.plotting_area().get_base_pixel();
                draw_text(&area, &bin.count.to_string(), Pos::new(HPos::Center, side), (x - left, y - top), MUTED)?;
            }
            Ok(())
        })
    }
}

/// Overlaid histograms with common bins, such as the scores of chosen and rejected answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histograms {
    /// Heading; may be empty.
    pub title: String,
    /// What is measured, with its unit.
    pub x: String,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// One named sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Its name in the legend, which adds the sample's size.
    pub name: String,
    /// The values.
    pub values: Vec<f64>,
}

impl Histograms {
    /// Returns the picture: for each bin the share of the sample that lies in it, so that samples of different sizes
    /// compare.
    pub fn to_svg(&self) -> Svg {
        let mut skipped = 0;
        let samples: Vec<Vec<f64>> =
            self.samples.iter().map(|sample| keep(&sample.values, |&value| drawable(value), &mut skipped)).collect();
        let range = extent(samples.iter().flatten().copied());
        let bins = range.map(|range| samples.iter().map(|values| shares(values, range)).collect::<Vec<_>>());
        let highest = bins.iter().flatten().flatten().copied().fold(0.0, f64::max);
        let names =
            self.samples.iter().zip(&samples).map(|(sample, values)| format!("{} (n = {})", sample.name, values.len()));
        let extents = range.map(|range| (range, (0.0, highest)));
        chart(&self.title, legend(names, Mark::Area), (&self.x, "share of the sample"), extents, skipped, |chart, _| {
            let ((low, high), bins) = range.zip(bins.as_ref()).expect("a chart with data has a range");
            for (index, shares) in bins.iter().enumerate() {
                let edge = |bin: usize| low + (high - low) * bin as f64 / BINS as f64;
                let steps =
                    shares.iter().enumerate().flat_map(|(bin, &share)| [(edge(bin), share), (edge(bin + 1), share)]);
                let outline: Vec<_> = [(low, 0.0)].into_iter().chain(steps).chain([(high, 0.0)]).collect();
                chart.draw_series([Polygon::new(outline.clone(), colour(index).mix(0.25).filled())])?;
                draw_line(chart, &outline, stroke(colour(index), 1.0, 3))?;
            }
            Ok(())
        })
    }
}

/// Bins of a histogram.
const BINS: usize = 30;

/// Returns for each bin of `range` the share of `values` that lies in it; the last bin holds its upper edge.
fn shares(values: &[f64], (low, high): (f64, f64)) -> [f64; BINS] {
    let mut shares = [0.0; BINS];
    for value in values {
        let bin = ((value - low) / (high - low) * BINS as f64) as usize;
        shares[bin.min(BINS - 1)] += 1.0 / values.len() as f64;
    }
    shares
}

/// Returns the exponential moving average of the points' y, corrected for its start at zero:
/// sₜ = w sₜ₋₁ + (1 − w) yₜ, drawn as sₜ / (1 − wᵗ).
fn smooth(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
    assert!((0.0..1.0).contains(&weight), "a smoothing weight lies in 0..1, not {weight}");
    let (mut average, mut past) = (0.0, 1.0);
    points
        .iter()
        .map(|&(x, y)| {
            average = weight * average + (1.0 - weight) * y;
            past *= weight;
            (x, average / (1.0 - past))
        })
        .collect()
}

/// Returns the items that can be drawn and counts the others.
fn keep<T: Copy>(items: &[T], drawable: impl Fn(&T) -> bool, skipped: &mut usize) -> Vec<T> {
    let kept: Vec<T> = items.iter().copied().filter(drawable).collect();
    *skipped += items.len() - kept.len();
    kept
}

/// The pixel columns of a chart. A long run has far more points than a picture has columns.
struct Columns {
    low: f64,
    width: f64,
}

impl Columns {
    fn of(axis: &Axis<'_>) -> Self {
        Self { low: axis.low, width: (axis.high - axis.low) / 1000.0 }
    }

    fn index(&self, x: f64) -> i32 {
        ((x - self.low) / self.width) as i32
    }

    /// Returns the first, lowest, highest and last point of each column.
    fn thin(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let columns = points.chunk_by(|a, b| self.index(a.0) == self.index(b.0));
        let shape = columns.flat_map(|column| {
            let by_height = |&a: &usize, &b: &usize| column[a].1.total_cmp(&column[b].1);
            let lowest = (0..column.len()).min_by(by_height).unwrap_or(0);
            let highest = (0..column.len()).max_by(by_height).unwrap_or(0);
            let mut kept = vec![0, lowest, highest, column.len() - 1];
            kept.sort_unstable();
            kept.dedup();
            kept.into_iter().map(|index| column[index]).collect::<Vec<_>>()
        });
        shape.collect()
    }

    /// Returns for each column its first x, its lowest lower bound and its highest upper bound.
    fn thin_band(&self, band: &[(f64, f64, f64)]) -> Vec<(f64, f64, f64)> {
        let columns = band.chunk_by(|a, b| self.index(a.0) == self.index(b.0));
        let hull = |column: &[(f64, f64, f64)]| {
            column.iter().copied().reduce(|(x, low, high), point| (x, point.1.min(low), point.2.max(high)))
        };
        columns.filter_map(hull).collect()
    }
}

/// Returns the legend of series that differ by their colour.
fn legend(names: impl Iterator<Item = String>, mark: Mark) -> Vec<Entry> {
    names.enumerate().map(|(index, name)| Entry { mark, colour: colour(index), name }).collect()
}

/// The extents of the two axes.
type Extents = ((f64, f64), (f64, f64));

/// Returns a framed picture: the data within their extents, or "no data" if there is no extent.
fn chart(
    title: &str,
    legend: Vec<Entry>,
    (x, y): (&str, &str),
    extents: Option<Extents>,
    skipped: usize,
    draw: impl FnOnce(&mut Chart<'_>, &Frame<'_>) -> Outcome<()>,
) -> Svg {
    let (x_extent, y_extent) = extents.unwrap_or(((0.0, 1.0), (0.0, 1.0)));
    let (x, y) = (Axis::around(x, x_extent, X_TICKS), Axis::around(y, y_extent, Y_TICKS));
    let frame = Frame { title, legend, x, y, skipped };
    card(&frame.legend, |area| match extents {
        Some(_) => draw(&mut draw_frame(area, &frame)?, &frame),
        None => draw_no_data(area, &frame),
    })
}

/// Draws a curve; a single point becomes a dot.
fn draw_line(chart: &mut Chart<'_>, points: &[(f64, f64)], style: ShapeStyle) -> Outcome<()> {
    match points {
        [] => {}
        [point] => drop(chart.draw_series([Circle::new(*point, 8, style.color.filled())])?),
        _ => drop(chart.draw_series([PathElement::new(points, style)])?),
    }
    Ok(())
}

/// Draws a shaded interval.
fn draw_band(chart: &mut Chart<'_>, band: &[(f64, f64, f64)], index: usize) -> Outcome<()> {
    let lower = band.iter().map(|&(x, low, _)| (x, low));
    let upper = band.iter().rev().map(|&(x, _, high)| (x, high));
    let outline: Vec<_> = lower.chain(upper).collect();
    if !outline.is_empty() {
        chart.draw_series([Polygon::new(outline, colour(index).mix(0.18).filled())])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moving_average_is_corrected_for_its_start() {
        // w = 1/2 on 4, 2, 6: s = 2, 2, 4; 1 − wᵗ = 1/2, 3/4, 7/8; s / (1 − wᵗ) = 4, 8/3, 32/7.
        let smoothed = smooth(&[(0.0, 4.0), (1.0, 2.0), (2.0, 6.0)], 0.5);
        assert_eq!(smoothed, [(0.0, 4.0), (1.0, 8.0 / 3.0), (2.0, 32.0 / 7.0)]);
        assert_eq!(smooth(&[(0.0, 4.0)], 0.0), [(0.0, 4.0)]);
    }

    #[test]
    #[should_panic(expected = "lies in 0..1, not 1")]
    fn a_smoothing_weight_of_one_forgets_the_data() {
        smooth(&[], 1.0);
    }

    #[test]
    fn shares_sum_to_one_and_the_last_bin_holds_the_upper_edge() {
        // 30 bins of width 1 over 0..30: 0 and 0.5 fall into bin 0, 1 into bin 1, 30 into bin 29.
        let shares = shares(&[0.0, 0.5, 1.0, 30.0], (0.0, 30.0));
        assert_eq!((shares[0], shares[1], shares[29]), (0.5, 0.25, 0.25));
        assert_eq!(shares.iter().sum::<f64>(), 1.0);
    }

    #[test]
    fn thinning_keeps_the_extremes_of_each_column() {
        let columns = Columns { low: 0.0, width: 1.0 };
        let points = [(0.0, 1.0), (0.1, 5.0), (0.2, 3.0), (0.3, -1.0), (0.4, 2.0), (1.0, 7.0)];
        assert_eq!(columns.thin(&points), [(0.0, 1.0), (0.1, 5.0), (0.3, -1.0), (0.4, 2.0), (1.0, 7.0)]);
        let band = [(0.0, 1.0, 2.0), (0.5, 0.0, 1.5), (0.6, 0.5, 3.0), (2.0, 1.0, 1.0)];
        assert_eq!(columns.thin_band(&band), [(0.0, 0.0, 3.0), (2.0, 1.0, 1.0)]);
    }
}
