//! A second factor that grows, kept as a tile reads it.

use super::tile::Kernel;
use super::{Matrix, Multiplier, Place};

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
    assert!(columns <= b.columns && b.links == a.columns, "shapes of a product");
    assert!(stride >= columns && super::extent(a.rows, columns, stride, 1) <= out.len(), "the result overlaps");
    let place = Place { data: out.as_mut_ptr(), stride };
    // SAFETY: `out` is borrowed alone and has these rows.
    unsafe { panelled(Multiplier::Vectors(Kernel::best()), 1, place, Place::ZERO, a, &b.data, columns) }
}

/// The elements of `start + a b`, row after row, computed on the threads of the current pool; `b` is laid out as [`prepacked`]
/// does it.
///
/// # Panics
/// If the shapes disagree.
pub(in crate::flex) fn product_of_prepacked(start: &[f32], a: Matrix<'_>, b: &[f32]) -> Vec<f32> {
    product_of_laid_out(Multiplier::Vectors(Kernel::best()), start, a, b)
}

/// The same by this one.
pub(super) fn product_of_laid_out(multiplier: Multiplier, start: &[f32], a: Matrix<'_>, b: &[f32]) -> Vec<f32> {
    let columns = start.len();
    let mut out = Vec::with_capacity(a.rows * columns);
    let place = Place { data: out.as_mut_ptr(), stride: columns };
    let start = Place { data: start.as_ptr(), stride: 0 };
    // SAFETY: the vector has room for the product, every element of which is written.
    unsafe {
        panelled(multiplier, rayon::current_num_threads(), place, start, a, b, columns);
        out.set_len(a.rows * columns);
    }
    out
}

/// All columns in panels as wide as a tile, one after another: `[panels, links, width]`.
pub(in crate::flex) fn prepacked(b: Matrix<'_>) -> (Vec<f32>, [usize; 3]) {
    laid_out(Kernel::best(), b)
}

/// The same for the tiles of this kernel.
pub(in crate::flex) fn laid_out(kernel: &Kernel, b: Matrix<'_>) -> (Vec<f32>, [usize; 3]) {
    let mut panels = Vec::new();
    super::pack::columns(kernel, &mut panels, b);
    (panels, [b.columns.div_ceil(kernel.columns), b.rows, kernel.columns])
}

/// So many rows are few: more are faster where the factors are laid out block by block.
pub(in crate::flex) fn few_rows() -> usize {
    super::FEW * Kernel::best().rows
}

/// A product whose second factor lies in panels, on so many threads.
///
/// # Safety
/// As [`super::divided`].
///
/// # Panics
/// If `a` reaches beyond its slice, or there are too few panels.
unsafe fn panelled(
    multiplier: Multiplier,
    threads: usize,
    out: Place<*mut f32>,
    start: Place<*const f32>,
    a: Matrix<'_>,
    b: &[f32],
    columns: usize,
) {
    assert!(a.extent() <= a.data.len(), "a factor reaches beyond its slice");
    let [_, width] = multiplier.sides();
    let panel_length = multiplier.panel_length(a.columns);
    assert!(columns.div_ceil(width) * panel_length <= b.len(), "a factor has too few columns");
    let half = (columns / 2).next_multiple_of(width);
    if threads > 1 && half < columns && a.rows * a.columns * columns >= 2 * super::WORTH {
        let (b, b_rest) = b.split_at(half / width * panel_length);
        // SAFETY: the two parts are disjoint and within the product.
        let (out_rest, start_rest) = unsafe { (out.at(0, half), start.at(0, half)) };
        let (threads, rest) = (threads / 2, threads - threads / 2);
        rayon::join(
            // SAFETY: as of the whole.
            move || unsafe { panelled(multiplier, threads, out, start, a, b, half) },
            // SAFETY: as of the whole.
            move || unsafe { panelled(multiplier, rest, out_rest, start_rest, a, b_rest, columns - half) },
        );
        return;
    }
    let kernel = match multiplier {
        Multiplier::Vectors(kernel) => kernel,
        // SAFETY: the caller's.
        Multiplier::Unit(unit) => return unsafe { unit.panelled(out, start, a, b, columns) },
    };
    let (Place { data: from, stride: a_stride }, turned) = a.place();
    let tiles = &kernel.tiles[usize::from(turned)];
    for column in (0..columns).step_by(kernel.columns) {
        let panel = Place { data: b[column * a.columns..].as_ptr(), stride: kernel.columns };
        for row in (0..a.rows).step_by(kernel.rows) {
            let rows = kernel.rows.min(a.rows - row);
            let from = Place { data: from.wrapping_add(row * a.row_stride), stride: a_stride };
            // SAFETY: the first factor has these rows and links and the panel these links; the tile lies within the result.
            unsafe {
                let (start, out) = (start.at(row, column), out.at(row, column));
                tiles[rows - 1](a.columns, from, panel, start, out, kernel.columns.min(columns - column));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::place_product;
    use super::*;

    #[test]
    fn a_factor_laid_out_beforehand_gives_the_bits_of_one_that_is_not() {
        let numbers = |count: usize, salt: usize| {
            (0..count).map(|index| ((index * 37 + salt) % 101) as f32 / 40.0 - 1.2).collect::<Vec<_>>()
        };
        let sizes: &[_] = if cfg!(miri) { &[(5, 37)] } else { &[(5, 37), (1, 1), (0, 3), (3, 0), (300, 900)] };
        for &(links, columns) in sizes {
            for turned in [false, true] {
                let data = numbers(links * columns, 2);
                let b = if turned {
                    Matrix::rows(&data, columns, links, links).transposed()
                } else {
                    Matrix::rows(&data, links, columns, columns)
                };
                let (panels, [count, rows, width]) = prepacked(b);
                assert_eq!((panels.len(), rows), (count * rows * width, links));
                for rows in [0, 1, 7, 24] {
                    let (a, start) = (numbers(rows * links, 3), numbers(columns, 4));
                    let a = Matrix::rows(&a, rows, links, links);
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
                    let found = pool.install(|| product_of_prepacked(&start, a, &panels));
                    assert_eq!(found, super::super::product(super::super::Start::Row(&start), a, b), "{rows} rows");
                }
            }
        }
    }

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
