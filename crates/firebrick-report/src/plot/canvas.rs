//! What all charts share: the card, the colours, the frame of axes and the legend.

use std::fmt;
use std::io;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::prelude::{Cartesian2d, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, ShapeStyle, TextStyle, WHITE};

use super::axis::Axis;

/// A finished picture: an `<svg>` element on a white card, with real text and no outside reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svg(String);

impl Svg {
    /// Of finished markup.
    pub(super) fn of(markup: String) -> Self {
        Self(markup)
    }

    /// Returns the markup, ready for a file or a page.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Svg {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
pub(super) type Outcome<T> = Result<T, DrawingAreaErrorKind<io::Error>>;

// The backend rounds to whole pixels, so the card is drawn at twice the size at which it is read.
const WIDTH: u32 = 1280;
const HEIGHT: u32 = 800;
const MARGIN: i32 = 24;
pub(super) const TEXT_SIZE: f64 = 28.0;
const TITLE_SIZE: f64 = 32.0;
const LEGEND_ROW: i32 = 40;

const TEXT: RGBColor = RGBColor(0x24, 0x29, 0x2f);
pub(super) const MUTED: RGBColor = RGBColor(0x57, 0x60, 0x6a);
const AXIS: RGBColor = RGBColor(0x8a, 0x90, 0x99);
const GRID: RGBColor = RGBColor(0xe6, 0xe8, 0xeb);

/// Returns the colour of the series at `index`: the palette of Okabe and Ito (2008), which colour-blind readers can
/// tell apart, without its yellow, which is too pale on white. Colours come again after the seventh.
pub(super) fn colour(index: usize) -> RGBColor {
    const PALETTE: [RGBColor; 7] = [
        RGBColor(0x00, 0x72, 0xb2),
        RGBColor(0xd5, 0x5e, 0x00),
        RGBColor(0x00, 0x9e, 0x73),
        RGBColor(0xcc, 0x79, 0xa7),
        RGBColor(0xe6, 0x9f, 0x00),
        RGBColor(0x56, 0xb4, 0xe9),
        RGBColor(0x4d, 0x4d, 0x4d),
    ];
    PALETTE[index % PALETTE.len()]
}

/// Returns a picture drawn on an empty card, which is the higher the more rows its legend has.
pub(super) fn card(legend: &[Entry], draw: impl FnOnce(&Area<'_>) -> Outcome<()>) -> Svg {
    let mut markup = String::new();
    let last_row = legend_places(legend).last().map_or(0, |&(_, row)| row);
    let height = HEIGHT + (LEGEND_ROW * last_row) as u32;
    let area = SVGBackend::with_string(&mut markup, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)
        .and_then(|()| draw(&area))
        .and_then(|()| area.present())
        .expect("drawing into a string cannot fail");
    drop(area);
    // A name may hold characters that XML forbids even when escaped.
    markup.retain(|c| (c >= ' ' || c == '\n') && c != '\u{fffe}' && c != '\u{ffff}');
    Svg(markup)
}

/// Returns a style for text of `size` pixels, smaller if `text` would not fit into `room` pixels.
fn text_style(text: &str, size: f64, room: i32, colour: RGBColor) -> TextStyle<'static> {
    let size = size.min(f64::from(room) / (text_width(text, 1.0)).max(1.0));
    // The backend takes this factor away again.
    FontDesc::new(FontFamily::Name("system-ui, sans-serif"), size * 1.24, FontStyle::Normal).color(&colour)
}

/// Returns the width in pixels that `text` takes at most in common sans-serif fonts, near enough for a layout.
fn text_width(text: &str, size: f64) -> f64 {
    0.56 * size * text.chars().count() as f64
}

/// How a legend shows a series.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    Line,
    Dot,
    Area,
}

/// One series in the legend.
pub(super) struct Entry {
    pub(super) mark: Mark,
    pub(super) colour: RGBColor,
    pub(super) name: String,
}

/// All of a chart but its data.
pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    pub(super) legend: Vec<Entry>,
    pub(super) x: Axis<'a>,
    pub(super) y: Axis<'a>,
    /// Points that were left out because they are not finite.
    pub(super) skipped: usize,
}

/// Draws the frame and returns the chart to draw the data on.
pub(super) fn draw_frame<'a>(area: &Area<'a>, frame: &Frame<'_>) -> Outcome<Chart<'a>> {
    let room = WIDTH as i32 - 2 * MARGIN;
    let mut top = MARGIN;
    if !frame.title.is_empty() {
        area.draw_text(frame.title, &text_style(frame.title, TITLE_SIZE, room, TEXT), (MARGIN, top))?;
        top += 52;
    }
    top = draw_legend(area, &frame.legend, top)?;
    let mut bottom = MARGIN;
    if frame.skipped > 0 {
        let points = if frame.skipped == 1 { "point" } else { "points" };
        let note = format!("{} {points} not finite, left out", frame.skipped);
        let style = text_style(&note, 22.0, room, MUTED).pos(Pos::new(HPos::Right, VPos::Bottom));
        area.draw_text(&note, &style, (WIDTH as i32 - MARGIN, area.dim_in_pixel().1 as i32 - 12))?;
        bottom += 28;
    }

    let (x, y) = (&frame.x, &frame.y);
    let widest = y.ticks().into_iter().map(|tick| text_width(&y.label(tick), TEXT_SIZE)).fold(0.0, f64::max);
    // A label of the x axis may reach beyond its end.
    let body = area.margin(top + 24, bottom, MARGIN, 2 * MARGIN);
    let left = 56 + widest as i32;
    let mut chart = ChartBuilder::on(&body)
        .x_label_area_size(92)
        .y_label_area_size(left)
        .build_cartesian_2d(x.low..x.high, y.low..y.high)?;
    let (width, height) = chart.plotting_area().dim_in_pixel();
    let (width, height) = (width as i32, height as i32);
    let (base_x, base_y) = chart.plotting_area().get_base_pixel();

    // Drawn by hand, since the mesh of the library knows no label that depends on the distance of the ticks.
    let grid = GRID.stroke_width(2);
    let label_style = |pos| text_style("", TEXT_SIZE, room, MUTED).pos(pos);
    let mut free = 0;
    for tick in x.ticks() {
        chart.draw_series([PathElement::new([(tick, y.low), (tick, y.high)], grid)])?;
        let label = x.label(tick);
        let centre = left + chart.backend_coord(&(tick, y.low)).0 - base_x;
        let half = text_width(&label, TEXT_SIZE) as i32 / 2;
        // Long labels would run into each other.
        if centre - half >= free {
            body.draw_text(&label, &label_style(Pos::new(HPos::Center, VPos::Top)), (centre, height + 12))?;
            free = centre + half + 12;
        }
    }
    for tick in y.ticks() {
        chart.draw_series([PathElement::new([(x.low, tick), (x.high, tick)], grid)])?;
        let place = (left - 12, chart.backend_coord(&(x.low, tick)).1 - base_y);
        body.draw_text(&y.label(tick), &label_style(Pos::new(HPos::Right, VPos::Center)), place)?;
    }
    let corner = [(x.low, y.high), (x.low, y.low), (x.high, y.low)];
    chart.draw_series([PathElement::new(corner, AXIS.stroke_width(2))])?;
    let below = text_style(x.name, TEXT_SIZE, width, TEXT).pos(Pos::new(HPos::Center, VPos::Bottom));
    body.draw_text(x.name, &below, (left + width / 2, height + 88))?;
    let beside = text_style(y.name, TEXT_SIZE, height, TEXT).pos(Pos::new(HPos::Center, VPos::Top));
    body.draw_text(y.name, &beside.transform(FontTransform::Rotate270), (0, height / 2))?;
    Ok(chart)
}

/// Returns where each entry of a legend stands: its left edge in pixels and its row.
fn legend_places(entries: &[Entry]) -> Vec<(i32, i32)> {
    let (mut left, mut row) = (MARGIN, 0);
    let place = |entry: &Entry| {
        let width = 52 + text_width(&entry.name, TEXT_SIZE) as i32;
        if left + width > WIDTH as i32 - MARGIN && left > MARGIN {
            (left, row) = (MARGIN, row + 1);
        }
        let place = (left, row);
        left += width + 28;
        place
    };
    entries.iter().map(place).collect()
}

/// Draws the legend from `top` on and returns where it ends.
fn draw_legend(area: &Area<'_>, entries: &[Entry], top: i32) -> Outcome<i32> {
    let places = legend_places(entries);
    for (entry, &(left, row)) in entries.iter().zip(&places) {
        let middle = top + LEGEND_ROW * row + LEGEND_ROW / 2;
        match entry.mark {
            Mark::Line => {
                area.draw(&PathElement::new([(left, middle), (left + 40, middle)], entry.colour.stroke_width(5)))?;
            }
            Mark::Dot => area.draw(&Circle::new((left + 20, middle), 9, entry.colour.filled()))?,
            Mark::Area => {
                let corners = [(left + 4, middle - 12), (left + 36, middle + 12)];
                area.draw(&Rectangle::new(corners, entry.colour.mix(0.3).filled()))?;
                area.draw(&Rectangle::new(corners, entry.colour.stroke_width(3)))?;
            }
        }
        let style = text_style(&entry.name, TEXT_SIZE, WIDTH as i32 - MARGIN - left - 52, TEXT);
        area.draw_text(&entry.name, &style.pos(Pos::new(HPos::Left, VPos::Center)), (left + 52, middle))?;
    }
    Ok(places.last().map_or(top, |&(_, row)| top + LEGEND_ROW * (row + 1)))
}

/// Draws one line of text with its anchor at the pixel `place`.
pub(super) fn draw_text(area: &Area<'_>, text: &str, anchor: Pos, place: (i32, i32), colour: RGBColor) -> Outcome<()> {
    area.draw_text(text, &text_style(text, TEXT_SIZE - 2.0, WIDTH as i32, colour).pos(anchor), place)
}

/// Draws lines of text into the upper left corner of a chart, or the upper right one.
pub(super) fn draw_note(chart: &Chart<'_>, text: &str, on_the_right: bool) -> Outcome<()> {
    const ROW: i32 = 36;
    if text.is_empty() {
        return Ok(());
    }
    let area = chart.plotting_area().strip_coord_spec();
    let width = text.lines().map(|line| text_width(line, TEXT_SIZE)).fold(0.0, f64::max) as i32;
    let left = if on_the_right { area.dim_in_pixel().0 as i32 - width - 20 } else { 20 };
    let corners = [(left - 8, 8), (left + width, 20 + ROW * text.lines().count() as i32)];
    area.draw(&Rectangle::new(corners, WHITE.mix(0.85).filled()))?;
    for (row, line) in text.lines().enumerate() {
        draw_text(&area, line, Pos::new(HPos::Left, VPos::Top), (left, 14 + ROW * row as i32), TEXT)?;
    }
    Ok(())
}

/// Draws an empty frame that says so.
pub(super) fn draw_no_data(area: &Area<'_>, frame: &Frame<'_>) -> Outcome<()> {
    let plot = draw_frame(area, frame)?.plotting_area().strip_coord_spec();
    let (width, height) = plot.dim_in_pixel();
    draw_text(&plot, "no data", Pos::new(HPos::Center, VPos::Center), (width as i32 / 2, height as i32 / 2), MUTED)
}

/// Returns the style of a curve.
pub(super) fn stroke(colour: RGBColor, opacity: f64, width: u32) -> ShapeStyle {
    colour.mix(opacity).stroke_width(width)
}
