//! Eight numbers of AVX2 with FMA.

use std::arch::x86_64::*;

use half::bf16;

use super::vector::{Element, TRANSPOSED_BLOCK, Vector};

/// Eight numbers.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Avx2(__m256);

impl Vector for Avx2 {
    const WIDTH: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller runs where AVX2 is.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller runs where AVX2 is, and holds eight numbers there.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller runs where AVX2 is, and holds eight numbers there. The upper half of an f32 is its bf16.
        Self(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())), 16)) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller runs where AVX2 is, and owns eight numbers there.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the caller runs where FMA is.
        Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn prefetch<T>(from: *const T) {
        // SAFETY: a prefetch reads nothing, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    /// Two halves that overlap, so that there is no loop.
    #[inline(always)]
    unsafe fn copy_tail(count: usize, from: *const f32, to: *mut f32) {
        // SAFETY: the caller runs where AVX2 is, holds what is read and owns what is written; each half lies within `count`.
        unsafe {
            match count {
                4.. => {
                    let last = count - 4;
                    let halves = (_mm_loadu_ps(from), _mm_loadu_ps(from.add(last)));
                    _mm_storeu_ps(to, halves.0);
                    _mm_storeu_ps(to.add(last), halves.1);
                }
                2.. => {
                    let last = count - 2;
                    let halves = (from.cast::<u64>().read_unaligned(), from.add(last).cast::<u64>().read_unaligned());
                    to.cast::<u64>().write_unaligned(halves.0);
                    to.add(last).cast::<u64>().write_unaligned(halves.1);
                }
                1 => *to = *from,
                0 => {}
            }
        }
    }

    /// Four squares of eight vectors, which exchange halves three times over: neighbours, pairs and halves of the square.
    #[inline(always)]
    unsafe fn transpose<T: Element>(
        columns: usize,
        from: *const T,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        const SIDE: usize = 8;
        // SAFETY: the caller runs where AVX2 is, holds what is read and owns what is written.
        unsafe {
            for (row, column) in [(0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)] {
                let mut x = [_mm256_setzero_ps(); SIDE];
                for (index, x) in x.iter_mut().enumerate() {
                    if column + index < columns {
                        let from = from.add((column + index) * from_stride + row);
                        *x = T::load::<Self>(from).0;
                        Self::prefetch(from.wrapping_add(TRANSPOSED_BLOCK * from_stride));
                    }
                }
                let mut y = x;
                for i in (0..SIDE).step_by(2) {
                    (y[i], y[i + 1]) = (_mm256_unpacklo_ps(x[i], x[i + 1]), _mm256_unpackhi_ps(x[i], x[i + 1]));
                }
                for i in (0..SIDE).step_by(4) {
                    for half in 0..2 {
                        x[i + 2 * half] = _mm256_shuffle_ps::<0x44>(y[i + half], y[i + half + 2]);
                        x[i + 2 * half + 1] = _mm256_shuffle_ps::<0xee>(y[i + half], y[i + half + 2]);
                    }
                }
                for i in 0..SIDE / 2 {
                    y[i] = _mm256_permute2f128_ps::<0x20>(x[i], x[i + SIDE / 2]);
                    y[i + SIDE / 2] = _mm256_permute2f128_ps::<0x31>(x[i], x[i + SIDE / 2]);
                }
                for (index, y) in y.into_iter().enumerate() {
                    Self(y).store(to.add((row + index) * to_stride + column));
                }
            }
        }
    }
}
