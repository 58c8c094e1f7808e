//! One self-contained HTML page from a small document model.
//!
//! Style and pictures stand in the file, nothing is loaded from elsewhere and nothing is run. All text is escaped.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::plot::Svg;

/// A whole page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Heading, also the name of the browser's tab.
    pub title: String,
    /// What the reader should know if nothing else is read.
    pub summary: String,
    /// The sections, listed in a table of contents.
    pub sections: Vec<Section>,
}

/// A titled part of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// Heading.
    pub title: String,
    /// What it holds, in order.
    pub blocks: Vec<Block>,
}

/// One piece of a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Running text.
    Paragraph(String),
    /// Names and values, one pair a line.
    Facts(Vec<(String, String)>),
    /// Rows and columns.
    Table(Table),
    /// Pictures, side by side where there is room.
    Figures(Vec<Figure>),
    /// Two answers to one prompt, side by side.
    Dialogue(DialoguePair),
    /// A remark that must not be missed.
    Callout(Tone, String),
    /// A line that opens to more.
    Details {
        /// The line.
        summary: String,
        /// What it opens to.
        blocks: Vec<Block>,
    },
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// A line above it; may be empty.
    pub caption: String,
    /// The columns' names and alignments.
    pub columns: Vec<Column>,
    /// The rows, each with a cell for every column.
    pub rows: Vec<Row>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// Where its cells' text stands.
    pub align: Align,
}

/// Where the text of a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// To the left, for words.
    Left,
    /// To the right, for numbers.
    Right,
}

/// A row of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The text of each cell.
    pub cells: Vec<String>,
    /// Whether the row stands out.
    pub emphasis: bool,
}

/// A picture and the words below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The picture.
    pub svg: Svg,
    /// The words below it; may be empty.
    pub caption: String,
}

/// Two answers to one prompt, such as before and after training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DialoguePair {
    /// What both were asked, with line breaks as they are.
    pub prompt: String,
    /// The answer before.
    pub before: Answer,
    /// The answer after.
    pub after: Answer,
}

/// One answer with its scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Who gave it.
    pub label: String,
    /// What it says, with line breaks as they are.
    pub text: String,
    /// Names and values of its scores, shown with two decimals.
    pub scores: Vec<(String, f64)>,
}

/// What a callout tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// Look here.
    Warn,
}

impl Page {
    /// Returns the page as an HTML file.
    ///
    /// # Panics
    /// If a table's row has not one cell for every column.
    pub fn to_html(&self) -> String {
        // No page made here needs more, and a reader's browser then holds to it.
        let policy = "default-src 'none'; style-src 'unsafe-inline'";
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) }
                    style { (PreEscaped(include_str!("page.css"))) }
                }
                body {
                    header {
                        h1 { (self.title) }
                        p .lead { (self.summary) }
                    }
                    nav aria-label="Contents" {
                        ol {
                            @for (index, section) in self.sections.iter().enumerate() {
                                li { a href={ "#section-" (index + 1) } { (section.title) } }
                            }
                        }
                    }
                    main {
                        @for (index, section) in self.sections.iter().enumerate() {
                            section {
                                h2 id={ "section-" (index + 1) } { (section.title) }
                                @for block in &section.blocks { (render_block(block)) }
                            }
                        }
                    }
                }
            }
        };
        page.into_string()
    }
}

fn render_block(block: &Block) -> Markup {
    match block {
        Block::Paragraph(text) => html! { p { (text) } },
        Block::Facts(facts) => html! {
            dl { @for (name, value) in facts { dt { (name) } dd { (value) } } }
        },
        Block::Table(table) => render_table(table),
        Block::Figures(figures) => html! {
            div .figures {
                @for figure in figures {
                    figure {
                        div .plot { (PreEscaped(figure.svg.as_str())) }
                        @if !figure.caption.is_empty() { figcaption { (figure.caption) } }
                    }
                }
            }
        },
        Block::Dialogue(pair) => html! {
            div .dialogue {
                p .prompt { (pair.prompt) }
                div .answers { (render_answer(&pair.before)) (render_answer(&pair.after)) }
            }
        },
        Block::Callout(Tone::Good, text) => html! { p .callout.good { b { "✓" } (text) } },
        Block::Callout(Tone::Warn, text) => html! { p .callout.warn { b { "!" } (text) } },
        Block::Details { summary, blocks } => html! {
            details {
                summary { (summary) }
                @for block in blocks { (render_block(block)) }
            }
        },
    }
}

fn render_table(table: &Table) -> Markup {
    let class = |column: &Column| (column.align == Align::Right).then_some("number");
    html! {
        div .table {
            table {
                @if !table.caption.is_empty() { caption { (table.caption) } }
                thead {
                    tr { @for column in &table.columns { th scope="col" class=[class(column)] { (column.name) } } }
                }
                tbody {
                    @for row in &table.rows {
                        @let (cells, columns) = (row.cells.len(), table.columns.len());
                        @let () = assert_eq!(cells, columns, "a row has one cell for every column");
                        tr class=[row.emphasis.then_some("strong")] {
                            @for (cell, column) in row.cells.iter().zip(&table.columns) {
                                td class=[class(column)] { (cell) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn render_answer(answer: &Answer) -> Markup {
    html! {
        div .answer {
            h3 { (answer.label) }
            p { (answer.text) }
            @if !answer.scores.is_empty() {
                ul .scores {
                    @for (name, value) in &answer.scores { li { (name) " " b { (score(*value)) } } }
                }
            }
        }
    }
}

/// Returns a score with two decimals and a real minus sign.
fn score(value: f64) -> String {
    format!("{value:.2}").replace('-', "−")
}
