//! What every vector does, and every element that it is loaded from.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::bf16;

/// Rows and columns of a block that is transposed in registers.
pub(in crate::gemm) const TRANSPOSED_BLOCK: usize = 16;

/// Numbers that an instruction treats at once.
///
/// # Safety
/// The functions of an implementation may only run where its instruction set is.
pub(crate) trait Vector: Copy {
    /// How many numbers.
    const WIDTH: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self · b + c`, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;

    /// Fetches a cache line that is read soon; any address will do.
    #[inline(always)]
    fn prefetch<T>(_from: *const T) {}

    /// Writes rows of `columns` numbers, `from_stride` apart, `to_stride` apart.
    ///
    /// # Safety
    /// The caller holds what is read and owns what is written.
    #[inline(always)]
    unsafe fn copy<T: Element>(
        rows: usize,
        columns: usize,
        from: *const T,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        let whole = columns / Self::WIDTH * Self::WIDTH;
        for row in 0..rows {
            // The columns beside are copied next, where no hardware prefetcher expects it.
            for vector in 0..columns.div_ceil(Self::WIDTH) {
                Self::prefetch(from.wrapping_add(row * from_stride + columns + vector * Self::WIDTH));
            }
            // SAFETY: the caller's.
            unsafe {
                let (from, to) = (from.add(row * from_stride), to.add(row * to_stride));
                for column in (0..whole).step_by(Self::WIDTH) {
                    T::load::<Self>(from.add(column)).store(to.add(column));
                }
                T::copy_tail::<Self>(columns - whole, from.add(whole), to.add(whole));
            }
        }
    }

    /// Writes fewer numbers than a vector has.
    ///
    /// # Safety
    /// The caller holds what is read and owns what is written.
    #[inline(always)]
    unsafe fn copy_tail(count: usize, from: *const f32, to: *mut f32) {
        for place in 0..count {
            // SAFETY: the caller's.
            unsafe { *to.add(place) = *from.add(place) }
        }
    }

    /// Writes `columns ≤ 16` columns of 16 numbers, `from_stride` apart, as 16 rows of 16, `to_stride` apart and in order;
    /// columns beyond are 0.
    ///
    /// # Safety
    /// The caller holds what is read and owns what is written.
    #[inline(always)]
    unsafe fn transpose<T: Element>(
        columns: usize,
        from: *const T,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        for row in 0..TRANSPOSED_BLOCK {
            for column in 0..TRANSPOSED_BLOCK {
                // SAFETY: the caller's.
                unsafe {
                    let value = if column < columns { (*from.add(column * from_stride + row)).f32() } else { 0.0 };
                    *to.add(row * to_stride + column) = value;
                }
            }
        }
    }
}

/// An element of B: what is computed with is its f32.
pub(crate) trait Element: Copy + Send + Sync {
    const ZERO: Self;

    fn f32(self) -> f32;

    /// # Safety
    /// As [`Vector::load`].
    unsafe fn load<V: Vector>(from: *const Self) -> V;

    /// # Safety
    /// As [`Vector::copy_tail`].
    unsafe fn copy_tail<V: Vector>(count: usize, from: *const Self, to: *mut f32);

    /// Those of sixteen that the mask names, 0 for the others.
    ///
    /// # Safety
    /// AVX-512 is there, with its extensions BW and VL; the named ones are there.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    unsafe fn load_masked(from: *const Self, mask: __mmask16) -> __m512;
}

impl Element for f32 {
    const ZERO: Self = 0.0;

    fn f32(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn copy_tail<V: Vector>(count: usize, from: *const Self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { V::copy_tail(count, from, to) }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[inline(always)]
    unsafe fn load_masked(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's; others are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Element for bf16 {
    const ZERO: Self = bf16::ZERO;

    fn f32(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's.
        unsafe { V::load_bf16(from) }
    }

    #[inline(always)]
    unsafe fn copy_tail<V: Vector>(count: usize, from: *const Self, to: *mut f32) {
        for place in 0..count {
            // SAFETY: the caller's.
            unsafe { *to.add(place) = (*from.add(place)).to_f32() }
        }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[inline(always)]
    unsafe fn load_masked(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's; others are not read. The upper half of an f32 is its bf16.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }
}
