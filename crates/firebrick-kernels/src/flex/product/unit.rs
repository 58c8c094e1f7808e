//! Products of factors that are rounded to BF16, on a processor's matrix unit (Intel's AMX).
//!
//! Links come in blocks of 32, the last of which zeros fill. In each the even and the odd ones are a chain of their own, from 0:
//!
//! ```text
//! e ← fma(a₂ₚ, b₂ₚ, e)        o ← fma(a₂ₚ₊₁, b₂ₚ₊₁, o)        p = 0, …, 15
//! c ← c + (e + o)
//! ```
//!
//! What is smaller than the least normal number is 0. That is what the unit's one instruction computes, for one row as for sixteen, so
//! an element has the same bits in every product. They are not those of the chain of [`pairs`](super::pairs), which processors without
//! such a unit follow.

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::LazyLock;

use super::lanes::{Avx512, Element, Lanes};
use super::{Matrix, Place};

/// Rows of a tile, and words of a row: two numbers each.
pub(super) const SIDE: usize = 16;
/// Links of a block.
pub(super) const BLOCK: usize = 2 * SIDE;
/// Words of a tile.
pub(super) const TILE: usize = SIDE * SIDE;
/// Rows of the first factor, or columns of the second, whose tiles are multiplied together.
pub(super) const LINES: usize = 2 * SIDE;
/// Links that are laid out in one go: a block of rows stays in the nearest cache.
const LINKS: usize = 512;
/// Columns of the second factor that are laid out together, and stay in the next one.
const COLUMNS: usize = 1024;

/// The unit of a processor that has one.
#[derive(Clone, Copy)]
pub(in crate::flex) struct Unit(());

impl Unit {
    /// It, if the processor has one and the system lets this process use it.
    pub(in crate::flex) fn get() -> Option<Self> {
        static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
            const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
            const REQUEST: libc::c_long = 0x1023;
            const REGISTERS: libc::c_long = 18;
            let vectors = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bf16");
            if cfg!(miri) || !vectors || __cpuid_count(7, 0).edx & TILES_AND_BF16 != TILES_AND_BF16 {
                return false;
            }
            // SAFETY: asks the system for the unit's registers, for the whole process.
            unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, REGISTERS) == 0 }
        });
        AVAILABLE.then_some(Self(()))
    }
}

/// The words of so many links of [`LINES`] lines.
pub(super) fn length(links: usize) -> usize {
    links.div_ceil(BLOCK) * 2 * TILE
}

/// Which of sixteen there are, of so many.
fn first(count: usize) -> __mmask16 {
    if count >= SIDE { __mmask16::MAX } else { (1 << count) - 1 }
}

/// Lays out at most [`LINES`] lines: rows of the first factor or, if `SECOND`, columns of the second. `[blocks, 2, 16, 16]` words: a
/// tile of the first factor has a row for each of its lines, one of the second a row for each word. Links that do not exist are 0;
/// lines are that or not written.
///
/// # Safety
/// The unit is there, and with it its vectors; `to` has room for all of it, and the lines, neighbours or of neighbours, lie in their slice.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn lay<T: Element, const SECOND: bool>(to: *mut f32, lines: Matrix<'_, T>) {
    let along = lines.column_stride == 1;
    let stride = if along { lines.row_stride } else { lines.column_stride };
    // SAFETY: the indices of sixteen words, the numbers of either half in turns.
    let in_turns = unsafe {
        let counted: [u16; BLOCK] = std::array::from_fn(|index| (index / 2 + index % 2 * SIDE) as u16);
        _mm512_loadu_si512(counted.as_ptr().cast())
    };
    for (block, link) in (0..lines.columns).step_by(BLOCK).enumerate() {
        let links = lines.columns - link;
        for (half, line) in (0..lines.rows).step_by(SIDE).enumerate() {
            let count = SIDE.min(lines.rows - line);
            let tile = to.wrapping_add((block * 2 + half) * TILE);
            let rows = if along { count } else { SIDE };
            for row in 0..rows {
                // SAFETY: the caller's; what does not exist is not read.
                unsafe {
                    let words = if along {
                        let from = lines.data.as_ptr().wrapping_add((line + row) * stride + link);
                        let later = T::some(from.wrapping_add(SIDE), first(links.saturating_sub(SIDE)));
                        _mm512_cvtne2ps_pbh(later, T::some(from, first(links)))
                    } else {
                        let from = lines.data.as_ptr().wrapping_add((link + 2 * row) * stride + line);
                        // What stands beside is laid out next, and lies where a processor does not see it coming.
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(LINES).cast());
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(LINES + stride).cast());
                        let mask = |there: bool| if there { first(count) } else { 0 };
                        let later = T::some(from.wrapping_add(stride), mask(2 * row + 1 < links));
                        _mm512_cvtne2ps_pbh(later, T::some(from, mask(2 * row < links)))
                    };
                    let words = std::mem::transmute::<__m512bh, __m512i>(words);
                    let words = if along { words } else { _mm512_permutexvar_epi16(in_turns, words) };
                    _mm512_storeu_si512(tile.add(row * SIDE).cast(), words);
                }
            }
            if SECOND == along {
                // SAFETY: sixteen rows are there, of which these were just written.
                unsafe { Avx512::turn(rows, tile.cast_const(), SIDE, tile, SIDE) }
            }
        }
    }
}

/// Lays out all lines of a matrix, [`LINES`] at a time.
///
/// # Safety
/// As [`lay`].
///
/// # Panics
/// If the matrix reaches beyond its slice, or neither rows nor columns are of neighbours.
pub(super) unsafe fn lay_all<T: Element, const SECOND: bool>(to: *mut f32, lines: Matrix<'_, T>) {
    lines.place();
    assert!(lines.extent() <= lines.data.len(), "a factor reaches beyond its slice");
    for line in (0..lines.rows).step_by(LINES) {
        let some = lines.split_rows(line).1;
        let some = some.split_rows(LINES.min(some.rows)).0;
        // SAFETY: the caller's; the matrix was checked.
        unsafe { lay::<T, SECOND>(to.wrapping_add(line / LINES * length(lines.columns)), some) }
    }
}

/// Sixteen words of a row, which lie in one line of the caches.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Row(#[expect(dead_code, reason = "read as memory")] [f32; SIDE]);

/// Lines that are laid out.
#[derive(Default)]
pub(super) struct Laid(Vec<Row>);

impl Laid {
    /// Room for so many words, and where it begins.
    pub(super) fn room(&mut self, words: usize) -> *mut f32 {
        let rows = words.div_ceil(SIDE);
        self.0.resize(self.0.len().max(rows), Row([0.0; SIDE]));
        self.0.as_mut_ptr().cast()
    }

    /// # Safety
    /// As [`lay`].
    pub(super) unsafe fn fill<T: Element, const SECOND: bool>(&mut self, lines: Matrix<'_, T>) {
        let to = self.room(lines.rows.div_ceil(LINES) * length(lines.columns));
        // SAFETY: there is room for all of it.
        unsafe { lay_all::<T, SECOND>(to, lines) }
    }

    /// Where this line, the first of [`LINES`], begins, where there are so many links.
    pub(super) fn at(&self, line: usize, links: usize) -> *const f32 {
        self.0[line / LINES * length(links) / SIDE..].as_ptr().cast()
    }
}

thread_local! {
    pub(super) static LAID: RefCell<[Laid; 2]> = RefCell::default();
}

/// How the registers of tiles are divided, as the instruction reads it.
#[repr(C, align(64))]
struct Division {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

/// The registers of tiles, divided for so many rows of the first factor: four for results, two for either factor.
pub(super) struct Registers(usize);

impl Registers {
    /// Not divided yet.
    pub(super) fn new() -> Self {
        Self(0)
    }

    /// Divides them, where they are not yet.
    ///
    /// # Safety
    /// The unit is there; there are one to [`LINES`] rows.
    unsafe fn divide(&mut self, rows: usize) {
        // Of two tiles, one below the other, the upper one may stand alone.
        if self.0 == rows || rows == SIDE && self.0 > SIDE {
            return;
        }
        self.0 = rows;
        let (upper, side) = (rows.min(SIDE) as u8, SIDE as u8);
        let lower = rows.saturating_sub(SIDE).max(1) as u8;
        let mut division = Division { palette: 1, start: 0, reserved: [0; 14], bytes_of_row: [0; 16], rows: [0; 16] };
        division.bytes_of_row[..8].fill(4 * SIDE as u16);
        division.rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, side, side]);
        // SAFETY: the caller's; it is a division that the unit has.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const division, options(nostack, readonly)) }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        if self.0 > 0 {
            // SAFETY: they were divided, so the unit is there.
            unsafe { asm!("tilerelease", options(nostack, nomem)) }
        }
    }
}

/// So many blocks of links of [`LINES`] columns: of the first factor, of the second, where the chains begin and where they go.
type Tiles = unsafe fn(usize, *const f32, *const f32, Place<*const f32>, Place<*mut f32>);

/// [`Tiles`] of one tile of rows, or of two, one below the other.
macro_rules! grow {
    ($name:ident, $clear:expr, $begin:expr, $links:expr, $store:expr) => {
        unsafe fn $name(
            blocks: usize,
            a: *const f32,
            b: *const f32,
            start: Place<*const f32>,
            out: Place<*mut f32>,
        ) {
            // SAFETY: the caller's: the registers are divided, and all that is read and written is there.
            unsafe {
                asm!(
                    "test {s}, {s}",
                    "jnz 2f",
                    $clear,
                    "jmp 3f",
                    "2:",
                    $begin,
                    "3:",
                    "test {blocks}, {blocks}",
                    "jz 5f",
                    "4:",
                    $links,
                    "add {a}, 2048",
                    "add {b}, 2048",
                    "dec {blocks}",
                    "jnz 4b",
                    "5:",
                    $store,
                    blocks = inout(reg) blocks => _,
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    s = inout(reg) start.data => _,
                    s_row = inout(reg) start.stride * 4 => _,
                    c = inout(reg) out.data => _,
                    c_row = inout(reg) out.stride * 4 => _,
                    line = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

grow!(
    one,
    "tilezero tmm0\n tilezero tmm1",
    "tileloadd tmm0, [{s} + {s_row}]\n tileloadd tmm1, [{s} + {s_row} + 64]",
    "tileloadd tmm4, [{a} + {line}]\n tileloadd tmm6, [{b} + {line}]\n tdpbf16ps tmm0, tmm4, tmm6\n
    tileloadd tmm7, [{b} + {line} + 1024]\n tdpbf16ps tmm1, tmm4, tmm7",
    "tilestored [{c} + {c_row}], tmm0\n tilestored [{c} + {c_row} + 64], tmm1"
);
grow!(
    two,
    "tilezero tmm0\n tilezero tmm1\n tilezero tmm2\n tilezero tmm3",
    "tileloadd tmm0, [{s} + {s_row}]\n tileloadd tmm1, [{s} + {s_row} + 64]
    shl {s_row}, 4\n add {s}, {s_row}\n shr {s_row}, 4
    tileloadd tmm2, [{s} + {s_row}]\n tileloadd tmm3, [{s} + {s_row} + 64]",
    "tileloadd tmm4, [{a} + {line}]\n tileloadd tmm6, [{b} + {line}]\n tdpbf16ps tmm0, tmm4, tmm6
    tileloadd tmm7, [{b} + {line} + 1024]\n tdpbf16ps tmm1, tmm4, tmm7
    tileloadd tmm5, [{a} + {line} + 1024]\n tdpbf16ps tmm2, tmm5, tmm6\n tdpbf16ps tmm3, tmm5, tmm7",
    "tilestored [{c} + {c_row}], tmm0\n tilestored [{c} + {c_row} + 64], tmm1
    shl {c_row}, 4\n add {c}, {c_row}\n shr {c_row}, 4
    tilestored [{c} + {c_row}], tmm2\n tilestored [{c} + {c_row} + 64], tmm3"
);

/// So many rows and columns of the result, through memory of its own where there are fewer columns than a function writes.
///
/// # Safety
/// The unit is there; the factors have these links, and the place lies within the result.
pub(super) unsafe fn tile(
    registers: &mut Registers,
    [rows, columns]: [usize; 2],
    links: usize,
    [a, b]: [*const f32; 2],
    start: Place<*const f32>,
    out: Place<*mut f32>,
) {
    let grow: Tiles = if rows > SIDE { two } else { one };
    let blocks = links.div_ceil(BLOCK);
    // SAFETY: the caller's.
    unsafe {
        registers.divide(rows);
        if columns == LINES {
            return grow(blocks, a, b, start, out);
        }
        let mut whole = [0.0_f32; LINES * LINES];
        let place = Place { data: whole.as_mut_ptr(), stride: LINES };
        if !start.data.is_null() {
            start.copy(place, [rows, columns]);
        }
        grow(blocks, a, b, place.begins(), place);
        place.begins().copy(out, [rows, columns]);
    }
}

impl Unit {
    /// A product on this thread.
    ///
    /// # Safety
    /// As of [`divided`](super::divided).
    pub(super) unsafe fn alone<T: Element>(
        self,
        out: Place<*mut f32>,
        start: Place<*const f32>,
        a: Matrix<'_>,
        b: Matrix<'_, T>,
    ) {
        // Few rows use what is laid out up at once: it need not outlive the nearest cache.
        let width = if a.rows <= 2 * LINES { LINES } else { COLUMNS };
        let mut registers = Registers::new();
        LAID.with_borrow_mut(|[laid_a, laid_b]| {
            for k in (0..a.columns.max(1)).step_by(LINKS) {
                let links = LINKS.min(a.columns - k);
                let start = if k == 0 { start } else { out.begins() };
                let (a, b) = (a.split_columns(k).1.split_columns(links).0, b.split_rows(k).1.split_rows(links).0);
                // SAFETY: the caller's; the tiles lie within the product.
                unsafe {
                    laid_a.fill::<_, false>(a);
                    for column in (0..b.columns).step_by(width) {
                        let b = b.split_columns(column).1;
                        let b = b.split_columns(width.min(b.columns)).0;
                        laid_b.fill::<_, true>(b.transposed());
                        for row in (0..a.rows).step_by(LINES) {
                            for panel in (0..b.columns).step_by(LINES) {
                                let factors = [laid_a.at(row, links), laid_b.at(panel, links)];
                                let (start, out) = (start.at(row, column + panel), out.at(row, column + panel));
                                let shape = [a.rows - row, b.columns - panel].map(|lines| lines.min(LINES));
                                tile(&mut registers, shape, links, factors, start, out);
                            }
                        }
                    }
                }
            }
        });
    }

    /// All columns of a second factor laid out: the panels, and how many there are.
    pub(super) fn laid_out<T: Element>(self, b: Matrix<'_, T>) -> (Vec<f32>, usize) {
        let count = b.columns.div_ceil(LINES);
        let mut panels = vec![0.0; count * length(b.rows)];
        // SAFETY: there is room for all of it.
        unsafe { lay_all::<T, true>(panels.as_mut_ptr(), b.transposed()) }
        (panels, count)
    }

    /// The product of a few rows and the columns of panels, on this thread.
    ///
    /// # Safety
    /// As [`alone`]; there are as many panels as the columns need.
    pub(super) unsafe fn panelled(
        self,
        out: Place<*mut f32>,
        start: Place<*const f32>,
        a: Matrix<'_>,
        panels: &[f32],
        columns: usize,
    ) {
        let mut registers = Registers::new();
        LAID.with_borrow_mut(|[laid, _]| {
            // SAFETY: the caller's; the tiles lie within the product.
            unsafe {
                laid.fill::<_, false>(a);
                for column in (0..columns).step_by(LINES) {
                    let panel = panels[column / LINES * length(a.columns)..].as_ptr();
                    for row in (0..a.rows).step_by(LINES) {
                        let (start, out) = (start.at(row, column), out.at(row, column));
                        let shape = [a.rows - row, columns - column].map(|lines| lines.min(LINES));
                        tile(&mut registers, shape, a.columns, [laid.at(row, a.columns), panel], start, out);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::super::panels::product_of_laid_out;
    use super::super::tests::{flushed, numbers, rounded, turned};
    use super::super::{Multiplier, Start, product_with};
    use super::*;

    /// Every element in the order of the module's words.
    fn blocks<T: Element>(start: &[f32], a: Matrix<'_>, b: Matrix<'_, T>) -> Vec<f32> {
        let mut out = Vec::new();
        for row in 0..a.rows {
            for (column, &start) in start.iter().enumerate() {
                let element = |c: f32, block: usize| {
                    let mut sums = [0.0_f32; 2];
                    for k in block..block + BLOCK {
                        let (a, b) = (rounded(a, row, k), rounded(b, k, column));
                        sums[k % 2] = flushed(a.mul_add(b, sums[k % 2]));
                    }
                    flushed(c + flushed(sums[0] + sums[1]))
                };
                out.push((0..a.columns).step_by(BLOCK).fold(start, element));
            }
        }
        out
    }

    fn same(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
    }

    /// On any number of threads, whatever the shape and the layout, and of panels too.
    fn hold<T: Element>(shape: [usize; 3], turns: [bool; 2], b: impl Fn(Vec<f32>) -> Vec<T>) {
        let Some(unit) = Unit::get() else { return };
        let multiplier = Multiplier::Unit(unit);
        let [rows, links, columns] = shape;
        let (a, b, start) = (numbers(rows * links, 1), b(numbers(links * columns, 2)), numbers(columns, 3));
        let (a, b) = (turned(&a, rows, links, 0, turns[0]), turned(&b, links, columns, 0, turns[1]));
        let expected = blocks(&start, a, b);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| product_with(multiplier, Start::Row(&start), a, b));
            assert!(same(&found, &expected), "{shape:?} {turns:?}, {threads} threads");
        }
        let panels = unit.laid_out(b).0;
        let found = product_of_laid_out(multiplier, &start, a, &panels);
        assert!(same(&found, &expected), "{shape:?} {turns:?}, panels");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 150 }))]

        #[test]
        fn every_element_is_its_blocks_to_the_bit(
            rows in 0..70_usize, links in 0..100_usize, columns in 0..80_usize, turns: [bool; 2], half: bool,
        ) {
            if half {
                hold([rows, links, columns], turns, |b| b.into_iter().map(bf16::from_f32).collect());
            } else {
                hold([rows, links, columns], turns, |b| b);
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_in_its_row_and_its_column() {
        let Some(unit) = Unit::get() else { return };
        let multiplier = Multiplier::Unit(unit);
        let mut a = numbers(32 * 64, 1);
        let b = numbers(64 * 32, 2);
        let product = |a: &[f32], shape: [usize; 3]| {
            let [rows, links, columns] = shape;
            let (a, b) = (Matrix::rows(a, rows, links, links), Matrix::rows(&b, links, columns, columns));
            product_with(multiplier, Start::Zero, a, b)
        };
        let (whole, small) = (product(&a, [32, 64, 32]), product(&a, [17, 33, 5]));
        let row = 3;
        let kept = std::mem::replace(&mut a[row * 64 + 40], f32::NAN);
        for (index, (number, expected)) in product(&a, [32, 64, 32]).iter().zip(&whole).enumerate() {
            if index / 32 == row {
                assert!(number.is_nan());
            } else {
                assert_eq!(number, expected);
            }
        }
        // Nor does it stay in the memory that factors are laid out in.
        product(&[f32::NAN; 32 * 64], [32, 64, 32]);
        a[row * 64 + 40] = kept;
        assert_eq!(product(&a, [17, 33, 5]), small);
    }

    #[test]
    fn what_is_below_the_least_normal_number_is_zero() {
        let Some(unit) = Unit::get() else { return };
        let of = |a: [f32; 2], b: [f32; 2]| {
            let (a, b) = (Matrix::rows(&a, 1, 2, 2), Matrix::rows(&b, 2, 1, 1));
            product_with(Multiplier::Unit(unit), Start::Zero, a, b)[0]
        };
        assert_eq!([of([1e-39, 0.0], [1e30, 0.0]), of([1e-20, 0.0], [1e-20, 0.0])], [0.0, 0.0]);
        assert_eq!(of([0.0, 2.0_f32.powi(-126)], [0.0, 1.0]), 2.0_f32.powi(-126));
    }

    #[test]
    fn long_chains_go_on_to_the_bit() {
        for shape in [[1, LINKS + 40, 33], [70, 2 * LINKS + 1, 40], [70, 30, COLUMNS + 40]] {
            hold(shape, [false, true], |b| b);
        }
    }
}
