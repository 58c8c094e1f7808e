//! A page escapes what it is given and stands alone.

use firebrick_report::page::{Align, Answer, Block, Column, DialoguePair, Figure, Page, Row, Section, Table, Tone};
use firebrick_report::plot::{Line, LineChart};

/// A page with every kind of block, all of whose texts are `text`.
fn page(text: &str) -> Page {
    let word = || text.to_owned();
    let answer = || Answer { label: word(), text: word(), scores: vec![(word(), -1.5)] };
    let line = Line::new(word(), vec![(0.0, 1.0), (1.0, 2.0)]);
    let figure =
        Figure { svg: LineChart { title: word(), x: word(), y: word(), lines: vec![line] }.to_svg(), caption: word() };
    let table = Table {
        caption: word(),
        columns: vec![Column { name: word(), align: Align::Left }, Column { name: word(), align: Align::Right }],
        rows: vec![
            Row { cells: vec![word(), word()], emphasis: false },
            Row { cells: vec![word(), word()], emphasis: true },
        ],
    };
    let blocks = vec![
        Block::Paragraph(word()),
        Block::Facts(vec![(word(), word())]),
        Block::Table(table),
        Block::Figures(vec![figure]),
        Block::Dialogue(DialoguePair { prompt: word(), before: answer(), after: answer() }),
        Block::Callout(Tone::Good, word()),
        Block::Callout(Tone::Warn, word()),
    ];
    let details = Block::Details { summary: word(), blocks: blocks.clone() };
    Page {
        title: word(),
        summary: word(),
        sections: vec![Section { title: word(), blocks }, Section { title: word(), blocks: vec![details] }],
    }
}

#[test]
fn every_text_is_escaped_wherever_it_stands() {
    let html = page("<script>alert(1)</script>").to_html();
    assert!(!html.contains("<script"));
    let plain = page("word").to_html();
    // Each of the texts comes back once, escaped: as often as the same page says "word".
    let texts = plain.matches("word").count() - include_str!("../src/page.css").matches("word").count();
    assert_eq!(html.matches("&lt;script&gt;").count(), texts);
}

#[test]
fn a_page_stands_alone() {
    let html = page("word").to_html();
    for outside in ["src=", "@import", "url(", "<link", "javascript:"] {
        assert!(!html.contains(outside), "{outside}");
    }
    // The one address is the name of SVG's vocabulary, which nobody loads.
    assert_eq!(html.matches("http").count(), html.matches("http://www.w3.org/2000/svg").count() + 1);
    assert!(html.contains("http-equiv"));
}

#[test]
fn the_contents_lead_to_every_section() {
    let html = page("word").to_html();
    for section in 1..=2 {
        assert_eq!(html.matches(&format!("href=\"#section-{section}\"")).count(), 1);
        assert_eq!(html.matches(&format!("id=\"section-{section}\"")).count(), 1);
    }
}

#[test]
fn blocks_carry_their_meaning() {
    let html = page("word").to_html();
    assert!(html.contains("<tr class=\"strong\"><td>word</td><td class=\"number\">word</td></tr>"));
    assert!(html.contains("<p class=\"callout warn\"><b>!</b>word</p>"));
    assert!(html.contains("<li>word <b>−1.50</b></li>"));
    assert!(html.contains("<details><summary>word</summary>"));
}

#[test]
#[should_panic(expected = "a row has one cell for every column")]
fn a_row_has_one_cell_for_every_column() {
    let columns = vec![Column { name: "a".into(), align: Align::Left }];
    let table = Table { columns, rows: vec![Row::default()], ..Table::default() };
    let section = Section { blocks: vec![Block::Table(table)], ..Section::default() };
    Page { sections: vec![section], ..Page::default() }.to_html();
}
