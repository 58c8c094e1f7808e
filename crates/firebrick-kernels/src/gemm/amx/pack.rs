//! A and B rounded to BF16 and packed into the tiles that the unit loads.

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::super::isa::{Avx512, Element, Vector};
use super::super::matrix::Matrix;
use super::microkernel::{BLOCK, PANEL, TILE_PAIRS, TILE_ROWS};

/// The pairs of a packed panel: of so many indices k, of [`PANEL`] rows of A or columns of B.
pub(in crate::gemm) fn panel_length(k: usize) -> usize {
    k.div_ceil(BLOCK) * 2 * TILE_PAIRS
}

/// The first so many of sixteen.
fn first(count: usize) -> __mmask16 {
    if count >= TILE_ROWS { __mmask16::MAX } else { (1 << count) - 1 }
}

/// Packs a panel: at most [`PANEL`] rows of A or, if `IS_B`, of the transposed B, as `[blocks, 2, 16, 16]` pairs. A tile of A has a row
/// of pairs for each row of A, one of B a row for each pair. Indices k that do not exist are 0; rows are that or not written.
///
/// # Safety
/// The unit is there, and with it its vectors; `to` has room for all of it, and the rows, of a row-major or a column-major matrix, lie in
/// their slice.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn panel<T: Element, const IS_B: bool>(to: *mut f32, m: Matrix<'_, T>) {
    let row_major = m.column_stride == 1;
    let stride = if row_major { m.row_stride } else { m.column_stride };
    // SAFETY: the indices of sixteen pairs, the numbers of either half in turns.
    let interleave = unsafe {
        let indices: [u16; BLOCK] = std::array::from_fn(|index| (index / 2 + index % 2 * TILE_ROWS) as u16);
        _mm512_loadu_si512(indices.as_ptr().cast())
    };
    for (block, k) in (0..m.columns).step_by(BLOCK).enumerate() {
        let kc = m.columns - k;
        for (half, row) in (0..m.rows).step_by(TILE_ROWS).enumerate() {
            let count = TILE_ROWS.min(m.rows - row);
            let tile = to.wrapping_add((block * 2 + half) * TILE_PAIRS);
            let tile_rows = if row_major { count } else { TILE_ROWS };
            for tile_row in 0..tile_rows {
                // SAFETY: the caller's; what does not exist is not read.
                unsafe {
                    let pairs = if row_major {
                        let from = m.data.as_ptr().wrapping_add((row + tile_row) * stride + k);
                        let later = T::load_masked(from.wrapping_add(TILE_ROWS), first(kc.saturating_sub(TILE_ROWS)));
                        _mm512_cvtne2ps_pbh(later, T::load_masked(from, first(kc)))
                    } else {
                        let from = m.data.as_ptr().wrapping_add((k + 2 * tile_row) * stride + row);
                        // The next panel's rows are beside, where no hardware prefetcher expects them.
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(PANEL).cast());
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(PANEL + stride).cast());
                        let mask = |there: bool| if there { first(count) } else { 0 };
                        let later = T::load_masked(from.wrapping_add(stride), mask(2 * tile_row + 1 < kc));
                        _mm512_cvtne2ps_pbh(later, T::load_masked(from, mask(2 * tile_row < kc)))
                    };
                    let pairs = std::mem::transmute::<__m512bh, __m512i>(pairs);
                    let pairs = if row_major { pairs } else { _mm512_permutexvar_epi16(interleave, pairs) };
                    _mm512_storeu_si512(tile.add(tile_row * TILE_ROWS).cast(), pairs);
                }
            }
            if IS_B == row_major {
                // SAFETY: sixteen rows are there, of which these were just written.
                unsafe { Avx512::transpose(tile_rows, tile.cast_const(), TILE_ROWS, tile, TILE_ROWS) }
            }
        }
    }
}

/// Packs all rows of A or, if `IS_B`, of the transposed B, panel by panel.
///
/// # Safety
/// As [`panel`].
///
/// # Panics
/// If the matrix reaches beyond its slice, or is neither row-major nor column-major.
pub(super) unsafe fn panels<T: Element, const IS_B: bool>(to: *mut f32, m: Matrix<'_, T>) {
    m.pointer();
    assert!(m.extent() <= m.data.len(), "a factor reaches beyond its slice");
    for row in (0..m.rows).step_by(PANEL) {
        let rows = m.split_rows(row).1;
        let rows = rows.split_rows(PANEL.min(rows.rows)).0;
        // SAFETY: the caller's; the matrix was checked.
        unsafe { panel::<T, IS_B>(to.wrapping_add(row / PANEL * panel_length(m.columns)), rows) }
    }
}

/// Sixteen pairs of a row, which lie in one cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct TileRow(#[expect(dead_code, reason = "read as memory")] [f32; TILE_ROWS]);

/// Packed panels.
#[derive(Default)]
pub(super) struct PackedTiles(Vec<TileRow>);

impl PackedTiles {
    /// Room for so many pairs, and where it begins.
    pub(super) fn reserve(&mut self, pairs: usize) -> *mut f32 {
        let rows = pairs.div_ceil(TILE_ROWS);
        self.0.resize(self.0.len().max(rows), TileRow([0.0; TILE_ROWS]));
        self.0.as_mut_ptr().cast()
    }

    /// # Safety
    /// As [`panel`].
    pub(super) unsafe fn pack<T: Element, const IS_B: bool>(&mut self, m: Matrix<'_, T>) {
        let to = self.reserve(m.rows.div_ceil(PANEL) * panel_length(m.columns));
        // SAFETY: there is room for all of it.
        unsafe { panels::<T, IS_B>(to, m) }
    }

    /// The panel that begins with this row, where there are so many k.
    pub(super) fn panel(&self, row: usize, k: usize) -> *const f32 {
        self.0[row / PANEL * panel_length(k) / TILE_ROWS..].as_ptr().cast()
    }
}

thread_local! {
    /// Packed A and packed B.
    pub(super) static BUFFERS: RefCell<[PackedTiles; 2]> = RefCell::default();
}
