//! Vectors of f32, each of an instruction set, and the tiles that are made of them.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::bf16;

use super::pack::TURNED;
use super::pairs::{Join, Zip};
use super::tile::{Copy as CopyRows, Grow, Kernel, Turn};

/// Numbers that a processor treats at once.
///
/// # Safety
/// The functions of an implementation may only run where its instruction set is.
pub(in crate::flex) trait Lanes: Copy {
    const WIDTH: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn widen(from: *const bf16) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self · b + c`, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;

    /// Has a number fetched that is read soon; any address will do.
    #[inline(always)]
    fn fetch<T>(_from: *const T) {}

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
            // What stands beside is copied next, and lies where a processor does not see it coming.
            for vector in 0..columns.div_ceil(Self::WIDTH) {
                Self::fetch(from.wrapping_add(row * from_stride + columns + vector * Self::WIDTH));
            }
            // SAFETY: the caller's.
            unsafe {
                let (from, to) = (from.add(row * from_stride), to.add(row * to_stride));
                for column in (0..whole).step_by(Self::WIDTH) {
                    T::load::<Self>(from.add(column)).store(to.add(column));
                }
                T::copy_some::<Self>(columns - whole, from.add(whole), to.add(whole));
            }
        }
    }

    /// Writes fewer numbers than a vector has.
    ///
    /// # Safety
    /// The caller holds what is read and owns what is written.
    #[inline(always)]
    unsafe fn copy_some(count: usize, from: *const f32, to: *mut f32) {
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
    unsafe fn turn<T: Element>(columns: usize, from: *const T, from_stride: usize, to: *mut f32, to_stride: usize) {
        for row in 0..TURNED {
            for column in 0..TURNED {
                // SAFETY: the caller's.
                unsafe {
                    let value = if column < columns { (*from.add(column * from_stride + row)).f32() } else { 0.0 };
                    *to.add(row * to_stride + column) = value;
                }
            }
        }
    }
}

/// An element of the second factor: what is computed with is its f32.
pub(in crate::flex) trait Element: Copy + Send + Sync {
    const ZERO: Self;

    fn f32(self) -> f32;

    fn join(kernel: &Kernel) -> Join<Self>;

    fn zip(kernel: &Kernel) -> Zip<Self>;

    /// The strips of a kernel whose second factor is made of these.
    fn sweeps(kernel: &Kernel, turned: bool) -> &[Grow<Self>];

    fn copy(kernel: &Kernel) -> CopyRows<Self>;

    fn turn(kernel: &Kernel) -> Turn<Self>;

    /// # Safety
    /// As [`Lanes::load`].
    unsafe fn load<V: Lanes>(from: *const Self) -> V;

    /// # Safety
    /// As [`Lanes::copy_some`].
    unsafe fn copy_some<V: Lanes>(count: usize, from: *const Self, to: *mut f32);

    /// Those of sixteen that the mask names, 0 for the others.
    ///
    /// # Safety
    /// AVX-512 is there, with the extensions of [`unit`](super::unit); the named ones are there.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    unsafe fn some(from: *const Self, mask: __mmask16) -> __m512;
}

impl Element for f32 {
    const ZERO: Self = 0.0;

    fn join(kernel: &Kernel) -> Join<Self> {
        kernel.join
    }

    fn zip(kernel: &Kernel) -> Zip<Self> {
        kernel.zip
    }

    fn f32(self) -> f32 {
        self
    }

    fn sweeps(kernel: &Kernel, turned: bool) -> &[Grow<Self>] {
        &kernel.sweeps[usize::from(turned)]
    }

    fn copy(kernel: &Kernel) -> CopyRows<Self> {
        kernel.copy
    }

    fn turn(kernel: &Kernel) -> Turn<Self> {
        kernel.turn
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: the caller's.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn copy_some<V: Lanes>(count: usize, from: *const Self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { V::copy_some(count, from, to) }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[inline(always)]
    unsafe fn some(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's; others are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Element for bf16 {
    const ZERO: Self = bf16::ZERO;

    fn join(kernel: &Kernel) -> Join<Self> {
        kernel.half_join
    }

    fn zip(kernel: &Kernel) -> Zip<Self> {
        kernel.half_zip
    }

    fn f32(self) -> f32 {
        self.to_f32()
    }

    fn sweeps(kernel: &Kernel, turned: bool) -> &[Grow<Self>] {
        &kernel.half_sweeps[usize::from(turned)]
    }

    fn copy(kernel: &Kernel) -> CopyRows<Self> {
        kernel.half_copy
    }

    fn turn(kernel: &Kernel) -> Turn<Self> {
        kernel.half_turn
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: the caller's.
        unsafe { V::widen(from) }
    }

    #[inline(always)]
    unsafe fn copy_some<V: Lanes>(count: usize, from: *const Self, to: *mut f32) {
        for place in 0..count {
            // SAFETY: the caller's.
            unsafe { *to.add(place) = (*from.add(place)).to_f32() }
        }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[inline(always)]
    unsafe fn some(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's; others are not read. The upper half of an f32 is its bf16.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }
}

/// Eight numbers in plain Rust, for the compiler to find instructions for.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 8]);

impl Lanes for Plain {
    const WIDTH: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller holds eight numbers there.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn widen(from: *const bf16) -> Self {
        // SAFETY: the caller holds eight numbers there.
        Self(unsafe { from.cast::<[bf16; 8]>().read_unaligned() }.map(bf16::to_f32))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller owns eight numbers there.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].mul_add(b.0[lane], c.0[lane])))
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
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
    unsafe fn widen(from: *const bf16) -> Self {
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
    fn fetch<T>(from: *const T) {
        // SAFETY: a prefetch reads nothing, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    /// Two halves that overlap, so that there is no loop.
    #[inline(always)]
    unsafe fn copy_some(count: usize, from: *const f32, to: *mut f32) {
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
    unsafe fn turn<T: Element>(columns: usize, from: *const T, from_stride: usize, to: *mut f32, to_stride: usize) {
        const SIDE: usize = 8;
        // SAFETY: the caller runs where AVX2 is, holds what is read and owns what is written.
        unsafe {
            for (row, column) in [(0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)] {
                let mut x = [_mm256_setzero_ps(); SIDE];
                for (index, x) in x.iter_mut().enumerate() {
                    if column + index < columns {
                        let from = from.add((column + index) * from_stride + row);
                        *x = T::load::<Self>(from).0;
                        Self::fetch(from.wrapping_add(TURNED * from_stride));
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

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
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
    unsafe fn widen(from: *const bf16) -> Self {
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
    fn fetch<T>(from: *const T) {
        // SAFETY: a prefetch reads nothing, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn copy_some(count: usize, from: *const f32, to: *mut f32) {
        let some = ((1_u32 << count) - 1) as __mmask16;
        // SAFETY: the caller runs where AVX-512 is; numbers beyond the mask are neither read nor written.
        unsafe { _mm512_mask_storeu_ps(to, some, _mm512_maskz_loadu_ps(some, from)) }
    }

    /// Sixteen vectors exchange halves, four times over: neighbours, pairs, quarters and halves of the square.
    #[inline(always)]
    unsafe fn turn<T: Element>(columns: usize, from: *const T, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller runs where AVX-512 is, holds what is read and owns what is written.
        unsafe {
            let mut x = [_mm512_setzero_ps(); TURNED];
            for (column, x) in x.iter_mut().enumerate() {
                if column < columns {
                    let from = from.add(column * from_stride);
                    *x = T::load::<Self>(from).0;
                    Self::fetch(from.wrapping_add(TURNED * from_stride));
                }
            }
            let pair = |x, y| (_mm512_castps_pd(x), _mm512_castps_pd(y));
            let mut y = x;
            for i in (0..TURNED).step_by(2) {
                (y[i], y[i + 1]) = (_mm512_unpacklo_ps(x[i], x[i + 1]), _mm512_unpackhi_ps(x[i], x[i + 1]));
            }
            for i in (0..TURNED).step_by(4) {
                for half in 0..2 {
                    let (a, b) = pair(y[i + half], y[i + half + 2]);
                    x[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    x[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            for i in (0..TURNED).step_by(8) {
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

/// Eight words of two numbers each, in plain Rust: [`pairs`](super::pairs) says what their product is.
#[derive(Clone, Copy)]
pub(super) struct PlainPairs(Plain);

impl Lanes for PlainPairs {
    const WIDTH: usize = Plain::WIDTH;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Plain::splat(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Plain::load(from) })
    }

    #[inline(always)]
    unsafe fn widen(from: *const bf16) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Plain::widen(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { self.0.store(to) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        let later = |word: f32| f32::from_bits(word.to_bits() & 0xffff_0000);
        let earlier = |word: f32| f32::from_bits(word.to_bits() << 16);
        let flushed = |x: f32| if x.abs() < f32::MIN_POSITIVE { 0.0 * x } else { x };
        Self(Plain(std::array::from_fn(|lane| {
            let [a, b, c] = [self.0.0[lane], b.0.0[lane], c.0.0[lane]];
            let c = flushed(later(a).mul_add(later(b), c));
            flushed(earlier(a).mul_add(earlier(b), c))
        })))
    }
}

/// Sixteen words of two numbers each, which one instruction multiplies and sums.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512Pairs(__m512);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512Pairs {
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
    unsafe fn widen(from: *const bf16) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Avx512::widen(from) }.0)
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
    fn fetch<T>(from: *const T) {
        Avx512::fetch(from);
    }

    #[inline(always)]
    unsafe fn copy_some(count: usize, from: *const f32, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { Avx512::copy_some(count, from, to) }
    }

    #[inline(always)]
    unsafe fn turn<T: Element>(columns: usize, from: *const T, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's.
        unsafe { Avx512::turn(columns, from, from_stride, to, to_stride) }
    }
}

/// [`Join`](super::pairs::Join) by the instruction that rounds.
///
/// # Safety
/// AVX-512's BF16 is there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn join(from: &[f32], to: &mut [f32]) {
    const WIDTH: usize = 32;
    let whole = from.len() / WIDTH;
    for (from, to) in from.chunks_exact(WIDTH).zip(to.chunks_exact_mut(WIDTH / 2)) {
        // SAFETY: there are 32 numbers, and room for 16 words.
        unsafe {
            let (earlier, later) = (_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from[WIDTH / 2..].as_ptr()));
            let words = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(later, earlier));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), words);
        }
    }
    super::pairs::join(&from[whole * WIDTH..], &mut to[whole * WIDTH / 2..]);
}

/// [`Zip`](super::pairs::Zip) by the instruction that rounds.
///
/// # Safety
/// AVX-512's BF16 is there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn zip(earlier: &[f32], later: &[f32], to: &mut [f32]) {
    const WIDTH: usize = 16;
    let whole = to.len() / WIDTH * WIDTH;
    let rows = earlier.chunks_exact(WIDTH).zip(later.chunks_exact(WIDTH));
    for ((earlier, later), to) in rows.zip(to.chunks_exact_mut(WIDTH)) {
        // SAFETY: there are 16 numbers of each, and room for 16 words.
        unsafe {
            let half = |from: &[f32]| {
                let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr()));
                _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(rounded))
            };
            let words = _mm512_or_si512(half(earlier), _mm512_slli_epi32::<16>(half(later)));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), words);
        }
    }
    super::pairs::zip(&earlier[whole..], &later[whole..], &mut to[whole..]);
}
