//! Sixteen numbers of AVX-512, and pairs of its extension BF16.

use std::arch::x86_64::*;

use half::bf16;

use super::portable;
use super::vector::{Element, TRANSPOSED_BLOCK, Vector};

/// Sixteen numbers.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Avx512(__m512);

impl Vector for Avx512 {
    const WIDTH: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller runs where AVX-512 is.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller runs where AVX-512 is, and holds sixteen numbers there.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller runs where AVX-512 is, and holds sixteen numbers there. The upper half of an f32 is its bf16.
        Self(unsafe {
            _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())), 16))
        })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller runs where AVX-512 is, and owns sixteen numbers there.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the caller runs where AVX-512 is.
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn prefetch<T>(from: *const T) {
        // SAFETY: a prefetch reads nothing, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn copy_tail(count: usize, from: *const f32, to: *mut f32) {
        let some = ((1_u32 << count) - 1) as __mmask16;
        // SAFETY: the caller runs where AVX-512 is; numbers beyond the mask are neither read nor written.
        unsafe { _mm512_mask_storeu_ps(to, some, _mm512_maskz_loadu_ps(some, from)) }
    }

    /// Sixteen vectors exchange halves, four times over: neighbours, pairs, quarters and halves of the square.
    #[inline(always)]
    unsafe fn transpose<T: Element>(
        columns: usize,
        from: *const T,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        // SAFETY: the caller runs where AVX-512 is, holds what is read and owns what is written.
        unsafe {
            let mut x = [_mm512_setzero_ps(); TRANSPOSED_BLOCK];
            for (column, x) in x.iter_mut().enumerate() {
                if column < columns {
                    let from = from.add(column * from_stride);
                    *x = T::load::<Self>(from).0;
                    Self::prefetch(from.wrapping_add(TRANSPOSED_BLOCK * from_stride));
                }
            }
            let pair = |x, y| (_mm512_castps_pd(x), _mm512_castps_pd(y));
            let mut y = x;
            for i in (0..TRANSPOSED_BLOCK).step_by(2) {
                (y[i], y[i + 1]) = (_mm512_unpacklo_ps(x[i], x[i + 1]), _mm512_unpackhi_ps(x[i], x[i + 1]));
            }
            for i in (0..TRANSPOSED_BLOCK).step_by(4) {
                for half in 0..2 {
                    let (a, b) = pair(y[i + half], y[i + half + 2]);
                    x[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    x[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            for i in (0..TRANSPOSED_BLOCK).step_by(8) {
                for quarter in 0..4 {
                    let (a, b) = (x[i + quarter], x[i + quarter + 4]);
                    y[i + quarter] = _mm512_shuffle_f32x4::<0x88>(a, b);
                    y[i + quarter + 4] = _mm512_shuffle_f32x4::<0xdd>(a, b);
                }
            }
            for i in 0..8 {
                x[i] = _mm512_shuffle_f32x4::<0x88>(y[i], y[i + 8]);
                x[i + 8] = _mm512_shuffle_f32x4::<0xdd>(y[i], y[i + 8]);
            }
            for (row, x) in x.into_iter().enumerate() {
                Self(x).store(to.add(row * to_stride));
            }
        }
    }
}

/// Sixteen pairs of BF16, which one instruction multiplies and sums.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Avx512Pairs(__m512);

impl Vector for Avx512Pairs {
    const WIDTH: usize = Avx512::WIDTH;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Avx512::splat(value) }.0)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Avx512::load(from) }.0)
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Avx512::load_bf16(from) }.0)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { Avx512(self.0).store(to) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the caller runs where AVX-512's BF16 is. The types differ in name alone.
        Self(unsafe {
            _mm512_dpbf16_ps(
                c.0,
                std::mem::transmute::<__m512, __m512bh>(self.0),
                std::mem::transmute::<__m512, __m512bh>(b.0),
            )
        })
    }

    #[inline(always)]
    fn prefetch<T>(from: *const T) {
        Avx512::prefetch(from);
    }

    #[inline(always)]
    unsafe fn copy_tail(count: usize, from: *const f32, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { Avx512::copy_tail(count, from, to) }
    }

    #[inline(always)]
    unsafe fn transpose<T: Element>(
        columns: usize,
        from: *const T,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        // SAFETY: the caller's.
        unsafe { Avx512::transpose(columns, from, from_stride, to, to_stride) }
    }
}

/// [`portable::pack_row_pairs`] by the instruction that rounds.
///
/// # Safety
/// AVX-512's BF16 is there.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in crate::gemm) unsafe fn pack_row_pairs(from: &[f32], to: &mut [f32]) {
    const WIDTH: usize = 32;
    let whole = from.len() / WIDTH;
    for (from, to) in from.chunks_exact(WIDTH).zip(to.chunks_exact_mut(WIDTH / 2)) {
        // SAFETY: there are 32 numbers, and room for 16 pairs.
        unsafe {
            let (earlier, later) = (_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from[WIDTH / 2..].as_ptr()));
            let pairs = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(later, earlier));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        }
    }
    portable::pack_row_pairs(&from[whole * WIDTH..], &mut to[whole * WIDTH / 2..]);
}

/// [`portable::pack_column_pairs`] by the instruction that rounds.
///
/// # Safety
/// AVX-512's BF16 is there.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in crate::gemm) unsafe fn pack_column_pairs(earlier: &[f32], later: &[f32], to: &mut [f32]) {
    const WIDTH: usize = 16;
    let whole = to.len() / WIDTH * WIDTH;
    let rows = earlier.chunks_exact(WIDTH).zip(later.chunks_exact(WIDTH));
    for ((earlier, later), to) in rows.zip(to.chunks_exact_mut(WIDTH)) {
        // SAFETY: there are 16 numbers of each, and room for 16 pairs.
        unsafe {
            let half = |from: &[f32]| {
                let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr()));
                _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(rounded))
            };
            let pairs = _mm512_or_si512(half(earlier), _mm512_slli_epi32::<16>(half(later)));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        }
    }
    portable::pack_column_pairs(&earlier[whole..], &later[whole..], &mut to[whole..]);
}
