//! Small grey pictures side by side.

use std::fmt::Write;

use super::canvas::Svg;

/// Rows of grey pictures of one size, under the names of their columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pictures {
    /// The name of each column.
    pub columns: Vec<String>,
    /// Height and width of a picture, in its pixels.
    pub size: [usize; 2],
    /// Rows of pictures, each row after row: 0 is black and 255 white.
    pub rows: Vec<Vec<Vec<u8>>>,
}

impl Pictures {
    /// Returns the picture of all of them.
    ///
    /// # Panics
    /// If a picture is of another size, or a row has not one of every column.
    pub fn to_svg(&self) -> Svg {
        const GAP: usize = 3;
        const HEADING: usize = 8;
        let [height, width] = self.size;
        let (across, down) = (width + GAP, height + GAP);
        let whole = [self.columns.len() * across + GAP, HEADING + self.rows.len() * down];
        let mut markup = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" shape-rendering=\"crispEdges\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            whole[0], whole[1]
        );
        for (column, name) in self.columns.iter().enumerate() {
            let name = name.replace('&', "&amp;").replace('<', "&lt;");
            let middle = GAP + column * across + width / 2;
            _ = writeln!(
                markup,
                "<text x=\"{middle}\" y=\"6\" font-family=\"system-ui, sans-serif\" font-size=\"5\" fill=\"#24292f\" \
                 text-anchor=\"middle\">{name}</text>"
            );
        }
        for (row, pictures) in self.rows.iter().enumerate() {
            assert_eq!(pictures.len(), self.columns.len(), "a picture of every column");
            for (column, pixels) in pictures.iter().enumerate() {
                assert_eq!(pixels.len(), height * width, "a picture of {height} x {width}");
                let (left, top) = (GAP + column * across, HEADING + row * down);
                _ = writeln!(markup, "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"/>");
                for (line, pixels) in pixels.chunks_exact(width.max(1)).enumerate() {
                    draw_runs(&mut markup, pixels, left, top + line);
                }
            }
        }
        markup += "</svg>\n";
        Svg::of(markup)
    }
}

/// Draws a line of pixels as runs of one grey, sixteen of which are told apart; black is there already.
fn draw_runs(markup: &mut String, pixels: &[u8], left: usize, y: usize) {
    let grey = |pixel: u8| (usize::from(pixel) + 8) / 17;
    let mut start = 0;
    while start < pixels.len() {
        let level = grey(pixels[start]);
        let length = pixels[start..].iter().take_while(|pixel| grey(**pixel) == level).count();
        if level > 0 {
            let x = left + start;
            _ = writeln!(
                markup,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{length}\" height=\"1\" fill=\"#{level:x}{level:x}{level:x}\"/>"
            );
        }
        start += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_neighbours_are_one_rectangle_and_black_is_none() {
        let pictures = Pictures {
            columns: vec!["seen & not".into()],
            size: [2, 3],
            rows: vec![vec![vec![0, 255, 255, 0, 0, 128]]],
        };
        let svg = pictures.to_svg();
        assert_eq!(svg.as_str().matches("height=\"1\"").count(), 2);
        assert!(svg.as_str().contains("<rect x=\"4\" y=\"8\" width=\"2\" height=\"1\" fill=\"#fff\"/>"));
        assert!(svg.as_str().contains("<rect x=\"5\" y=\"9\" width=\"1\" height=\"1\" fill=\"#888\"/>"));
        assert!(svg.as_str().contains("seen &amp; not"));
        roxmltree::Document::parse(svg.as_str()).unwrap();
    }

    #[test]
    #[should_panic(expected = "a picture of 2 x 3")]
    fn pictures_of_another_size_are_refused() {
        let rows = vec![vec![vec![0; 5]]];
        Pictures { columns: vec!["one".into()], size: [2, 3], rows }.to_svg();
    }
}
