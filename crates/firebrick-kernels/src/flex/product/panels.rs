//! A second factor that grows, kept as a tile reads it.

use super::tile::Kernel;
use super::{Matrix, Place};

/// Columns that come one after another, in panels as wide as a tile: for each link the numbers of the panel's columns, side by side.
#[derive(Debug)]
pub(in crate::flex) struct Panels {
    links: usize,
    columns: usize,
    data: Vec<f32>,
}

impl Panels {
    /// Room for this many columns of `links` numbers, none of which is there yet.
    pub(in crate::flex) fn new(links: usize, capacity: usize) -> Self {
        let width = Kernel::best().columns;
        Self { links, columns: 0, data: Vec::with_capacity(capacity.next_multiple_of(width) * links) }
    }

    /// Forgets all columns but the first.
    pub(in crate::flex) fn truncate(&mut self, columns: usize) {
        self.columns = self.columns.min(columns);
    }

    /// Adds a column.
    pub(in crate::flex) fn push(&mut self, column: &[f32]) {
        assert_eq!(column.len(), self.links, "links of a column");
        let width = Kernel::best().columns;
        let (panel, place) = (self.columns / width * width * self.links, self.columns % width);
        if self.data.len() == panel {
            self.data.resize(panel + width * self.links, 0.0);
        }
        for (row, &number) in self.data[panel..].chunks_exact_mut(width).zip(column) {
            row[place] = number;
        }
        self.columns += 1;
    }

    /// Becomes the first columns of another.
    pub(in crate::flex) fn take_from(&mut self, other: &Self, columns: usize) {
        assert!(columns <= other.columns && self.links == other.links, "columns of another factor");
        let width = Kernel::best().columns;
        self.data.clear();
        self.data.extend_from_slice(&other.data[..columns.next_multiple_of(width) * self.links]);
        self.columns = columns;
    }
}

/// Writes the product of `a` and the first `columns` columns into rows `stride` apart.
///
/// # Panics
/// If the shapes disagree, there are fewer columns, or the result reaches beyond its slice.
pub(in crate::flex) fn place_product_of_panels(
    out: &mut [f32],
    stride: usize,
    a: Matrix<'_>,
    b: &Panels,
    columns: usize,
) {
    let kernel = Kernel::best();
    assert!(a.columns == b.links && columns <= b.columns, "shapes of a product");
    assert!(stride >= columns && a.extent() <= a.data.len(), "a factor reaches beyond its slice");
    assert!(super::extent(a.rows, columns, stride, 1) <= out.len(), "the result reaches beyond its slice");
    let (Place { data: from, stride: a_stride }, turned) = a.place();
    let out = Place { data: out.as_mut_ptr(), stride };
    for (panel, numbers) in b.data.chunks_exact(kernel.columns * b.links).enumerate() {
        let column = panel * kernel.columns;
        if column >= columns {
            break;
        }
        let panel = Place { data: numbers.as_ptr(), stride: kernel.columns };
        for row in (0..a.rows).step_by(kernel.rows) {
            let rows = kernel.rows.min(a.rows - row);
            let from = Place { data: from.wrapping_add(row * a.row_stride), stride: a_stride };
            let tile = kernel.tiles[usize::from(turned)][rows - 1];
            // SAFETY: the first factor has these rows and links and the panel these links; the tile lies within the result.
            unsafe {
                tile(b.links, from, panel, Place::ZERO, out.at(row, column), kernel.columns.min(columns - column))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::place_product;
    use super::*;

    #[test]
    fn a_factor_that_grows_gives_the_bits_of_one_that_is_whole() {
        let numbers = |count: usize, salt: usize| {
            (0..count).map(|index| ((index * 37 + salt) % 101) as f32 / 40.0 - 1.2).collect::<Vec<_>>()
        };
        let (links, most) = (5, 70);
        let columns = numbers(links * most, 1);
        let mut panels = Panels::new(links, most);
        for (count, column) in (1..).zip(columns.chunks_exact(links)) {
            panels.push(column);
            if ![1, 15, 16, 17, 33, 70].contains(&count) {
                continue;
            }
            for rows in [1, 3, 13] {
                let a = numbers(rows * links, 7);
                let a = Matrix::rows(&a, rows, links, links);
                let b = Matrix::rows(&columns, count, links, links).transposed();
                let (mut found, mut expected) = (vec![0.0; rows * count], vec![0.0; rows * count]);
                place_product_of_panels(&mut found, count, a, &panels, count);
                place_product(&mut expected, count, a, b);
                assert_eq!(found, expected, "{rows} rows, {count} columns");
            }
        }
        let mut copy = Panels::new(links, most);
        copy.take_from(&panels, 17);
        panels.truncate(17);
        copy.push(&columns[..links]);
        panels.push(&columns[..links]);
        let a = Matrix::rows(&columns, 1, links, links);
        let (mut found, mut expected) = (vec![0.0; 18], vec![0.0; 18]);
        place_product_of_panels(&mut found, 18, a, &copy, 18);
        place_product_of_panels(&mut expected, 18, a, &panels, 18);
        assert_eq!((copy.columns, found), (18, expected));
    }
}
