//! Tiles of a product that stay in registers while their chains grow.

use std::sync::LazyLock;

use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512, Avx512Pairs};
use super::lanes::{Element, Lanes, Plain, PlainPairs};
use super::pairs::{Join, Zip};
use super::{Place, STREAMS, lanes, pairs};

/// Lets `links` links grow on a tile, or on every tile of a strip: links, rows or columns of the first factor and rows of the
/// second, where the chains begin, where they go, columns.
pub(in crate::flex) type Grow<T> =
    unsafe fn(usize, Place<*const f32>, Place<*const T>, Place<*const f32>, Place<*mut f32>, usize);

/// Tiles of one to [`MOST_ROWS`] rows.
type Grows<T> = [Grow<T>; MOST_ROWS];

/// The same on a tile whose first factor is gathered.
pub(super) type Gather = unsafe fn(usize, Places, Place<*const f32>, Place<*const f32>, Place<*mut f32>, usize);

/// Where the elements of a factor are: its rows begin at some numbers of a slice, and its links are so far from there.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) data: *const f32,
    pub(super) starts: *const usize,
    pub(super) steps: *const usize,
}

/// Copies rows: [`Lanes::copy`].
pub(in crate::flex) type Copy<T> = unsafe fn(usize, usize, *const T, usize, *mut f32, usize);

/// Turns up to sixteen columns of sixteen numbers into rows: [`Lanes::turn`].
pub(in crate::flex) type Turn<T> = unsafe fn(usize, *const T, usize, *mut f32, usize);

/// The most rows that a tile has on any processor.
const MOST_ROWS: usize = 12;
/// The most columns.
const MOST_COLUMNS: usize = 32;
/// Vectors side by side in a tile; in one of few columns there is one.
const VECTORS: usize = 2;
/// Numbers of a line of the caches.
const LINE: usize = 16;
/// Rows times links until what is fetched now is needed, where the second factor may come from far; where it does not it costs nothing that
/// could be measured.
const AHEAD: usize = 200;

/// How a processor grows tiles; those of `n` rows stand at `n − 1`.
pub(in crate::flex) struct Kernel {
    /// The most rows of a tile.
    pub(super) rows: usize,
    /// The columns of a tile.
    pub(super) columns: usize,
    /// Tiles whose last columns may not exist: of a first factor that lies row by row, and of one that lies column by column.
    pub(super) tiles: [Grows<f32>; 2],
    /// Tiles whose first factor is gathered: its rows begin anywhere, or side by side.
    pub(super) gathers: [[Gather; MOST_ROWS]; 2],
    /// Strips of whole tiles, likewise.
    pub(super) sweeps: [Grows<f32>; 2],
    /// Strips whose second factor is half as wide in memory, likewise.
    pub(super) half_sweeps: [Grows<bf16>; 2],
    /// What lays rows out closer.
    pub(super) copy: Copy<f32>,
    /// The same of numbers half as wide in memory.
    pub(super) half_copy: Copy<bf16>,
    /// What lays columns out as rows.
    pub(super) turn: Turn<f32>,
    /// The same of numbers half as wide in memory.
    pub(super) half_turn: Turn<bf16>,
    /// What makes words of neighbours.
    pub(super) join: Join<f32>,
    /// The same of numbers half as wide in memory.
    pub(super) half_join: Join<bf16>,
    /// What makes words of two rows.
    pub(super) zip: Zip<f32>,
    /// The same of numbers half as wide in memory.
    pub(super) half_zip: Zip<bf16>,
}

/// A first factor: where its rows begin, how far its links are from there, and what is to be read soon.
trait First<const R: usize>: std::marker::Copy {
    /// # Safety
    /// There are so many rows.
    unsafe fn rows(self) -> [*const f32; R];
    /// # Safety
    /// There is such a link.
    unsafe fn step(self, link: usize) -> usize;
    fn fetch<V: Lanes>(self, _link: usize) {}
}

/// One that lies row by row or, if `TURNED`, column by column.
#[derive(Clone, Copy)]
struct Lying<const TURNED: bool>(Place<*const f32>);

impl<const TURNED: bool, const R: usize> First<R> for Lying<TURNED> {
    #[inline(always)]
    unsafe fn rows(self) -> [*const f32; R] {
        std::array::from_fn(|row| self.0.data.wrapping_add(if TURNED { row } else { row * self.0.stride }))
    }

    #[inline(always)]
    unsafe fn step(self, link: usize) -> usize {
        if TURNED { link * self.0.stride } else { link }
    }

    #[inline(always)]
    fn fetch<V: Lanes>(self, link: usize) {
        if !TURNED {
            // The rows of the tile below are short: a processor does not see them coming.
            (R..2 * R).for_each(|row| V::fetch(self.0.data.wrapping_add(row * self.0.stride + link)));
        }
    }
}

/// One that is gathered; if `TURNED` its rows begin side by side.
#[derive(Clone, Copy)]
struct Gathered<const TURNED: bool>(Places);

impl<const TURNED: bool, const R: usize> First<R> for Gathered<TURNED> {
    #[inline(always)]
    unsafe fn rows(self) -> [*const f32; R] {
        // SAFETY: the caller's.
        let start = |row| if TURNED { row } else { unsafe { *self.0.starts.add(row) } };
        std::array::from_fn(|row| self.0.data.wrapping_add(start(row)))
    }

    #[inline(always)]
    unsafe fn step(self, link: usize) -> usize {
        // SAFETY: the caller's.
        unsafe { *self.0.steps.add(link) }
    }
}

/// One tile: `R` rows of `N` vectors, of a second factor that may come from `FAR`.
///
/// # Safety
/// The instruction set of `V` is there; the pointers reach as far as [`Grow`] or [`Gather`] tells.
#[inline(always)]
unsafe fn grow<V: Lanes, T: Element, const R: usize, const N: usize, const FAR: bool>(
    links: usize,
    a: impl First<R>,
    b: Place<*const T>,
    start: Place<*const f32>,
    out: Place<*mut f32>,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut c = [[V::splat(0.0); N]; R];
        if !start.data.is_null() {
            for (row, c) in c.iter_mut().enumerate() {
                for (vector, c) in c.iter_mut().enumerate() {
                    *c = V::load(start.data.add(row * start.stride + vector * V::WIDTH));
                }
            }
        }
        for row in R..2 * R {
            // The tile below goes on where its chains stopped, in lines that are far apart.
            V::fetch(out.data.wrapping_add(row * out.stride));
            V::fetch(out.data.wrapping_add(row * out.stride + N * V::WIDTH - 1));
        }
        let rows = a.rows();
        for first in (0..links).step_by(LINE) {
            a.fetch::<V>(first);
            for k in first..links.min(first + LINE) {
                let mut b_vectors = [V::splat(0.0); N];
                for (vector, b_vector) in b_vectors.iter_mut().enumerate() {
                    // Of few rows a processor sees the next links coming; of many they are too far apart in time.
                    if FAR && R >= 4 {
                        V::fetch(b.data.wrapping_add((k + AHEAD / R) * b.stride + vector * V::WIDTH));
                    }
                    *b_vector = T::load(b.data.add(k * b.stride + vector * V::WIDTH));
                }
                let step = a.step(k);
                for (row, c) in rows.iter().zip(&mut c) {
                    let a = V::splat(*row.add(step));
                    for (c, &b) in c.iter_mut().zip(&b_vectors) {
                        *c = a.mul_add(b, *c);
                    }
                }
            }
        }
        for (row, c) in c.iter().enumerate() {
            for (vector, c) in c.iter().enumerate() {
                c.store(out.data.add(row * out.stride + vector * V::WIDTH));
            }
        }
    }
}

/// A tile of which only the first `columns` columns exist in the result; in the panel `b` all do. One vector is enough for few.
///
/// # Safety
/// As [`grow`].
#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize, const FAR: bool>(
    links: usize,
    a: impl First<R>,
    b: Place<*const f32>,
    start: Place<*const f32>,
    out: Place<*mut f32>,
    columns: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        if columns <= V::WIDTH {
            part::<V, R, 1, FAR>(links, a, b, start, out, columns);
        } else {
            part::<V, R, VECTORS, FAR>(links, a, b, start, out, columns);
        }
    }
}

/// The same of `N` vectors.
///
/// # Safety
/// As [`grow`].
#[inline(always)]
unsafe fn part<V: Lanes, const R: usize, const N: usize, const FAR: bool>(
    links: usize,
    a: impl First<R>,
    b: Place<*const f32>,
    start: Place<*const f32>,
    out: Place<*mut f32>,
    columns: usize,
) {
    let width = N * V::WIDTH;
    // SAFETY: the caller's; what does not exist in the result is grown beside it.
    unsafe {
        if columns == width {
            return grow::<V, f32, R, N, FAR>(links, a, b, start, out);
        }
        let mut whole = [0.0_f32; MOST_ROWS * MOST_COLUMNS];
        let place = Place { data: whole.as_mut_ptr(), stride: width };
        if !start.data.is_null() {
            start.copy(place, [R, columns]);
        }
        grow::<V, f32, R, N, FAR>(links, a, b, place.begins(), place);
        place.begins().copy(out, [R, columns]);
    }
}

/// A strip of whole tiles.
///
/// # Safety
/// As [`grow`].
#[inline(always)]
unsafe fn sweep<V: Lanes, T: Element, const TURNED: bool, const R: usize>(
    links: usize,
    a: Place<*const f32>,
    b: Place<*const T>,
    start: Place<*const f32>,
    out: Place<*mut f32>,
    columns: usize,
) {
    for column in (0..columns).step_by(VECTORS * V::WIDTH) {
        if links <= STREAMS {
            // The rows that are read next begin where a processor does not see them coming.
            (links..2 * links).for_each(|k| V::fetch(b.data.wrapping_add(k * b.stride + column)));
        }
        // SAFETY: the caller's.
        unsafe {
            let b = Place { data: b.data.add(column), ..b };
            grow::<V, T, R, VECTORS, false>(links, Lying::<TURNED>(a), b, start.at(0, column), out.at(0, column));
        }
    }
}

/// The functions of an instruction set, and the kernel made of them.
macro_rules! kernel {
    ($name:ident, $module:ident, $lanes:ty, $words:ident, $most:literal, [$($rows:literal),*], $(#[$feature:meta])?) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            pub(super) unsafe fn one<const TURNED: bool, const R: usize>(
                links: usize, a: Place<*const f32>, b: Place<*const f32>,
                start: Place<*const f32>, out: Place<*mut f32>, columns: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { tile::<$lanes, R, true>(links, Lying::<TURNED>(a), b, start, out, columns) }
            }

            $(#[$feature])?
            pub(super) unsafe fn gathered<const TURNED: bool, const R: usize>(
                links: usize, a: Places, b: Place<*const f32>,
                start: Place<*const f32>, out: Place<*mut f32>, columns: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { tile::<$lanes, R, false>(links, Gathered::<TURNED>(a), b, start, out, columns) }
            }

            $(#[$feature])?
            pub(super) unsafe fn strip<T: Element, const TURNED: bool, const R: usize>(
                links: usize, a: Place<*const f32>, b: Place<*const T>,
                start: Place<*const f32>, out: Place<*mut f32>, columns: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { sweep::<$lanes, T, TURNED, R>(links, a, b, start, out, columns) }
            }

            $(#[$feature])?
            pub(super) unsafe fn copy<T: Element>(
                rows: usize, columns: usize, from: *const T, from_stride: usize, to: *mut f32, to_stride: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { <$lanes>::copy(rows, columns, from, from_stride, to, to_stride) }
            }

            $(#[$feature])?
            pub(super) unsafe fn turn<T: Element>(
                columns: usize, from: *const T, from_stride: usize, to: *mut f32, to_stride: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { <$lanes>::turn(columns, from, from_stride, to, to_stride) }
            }

            $(#[$feature])?
            pub(super) unsafe fn join<T: Element>(from: &[T], to: &mut [f32]) {
                pairs::join(from, to);
            }

            $(#[$feature])?
            pub(super) unsafe fn zip<T: Element>(earlier: &[T], later: &[T], to: &mut [f32]) {
                pairs::zip(earlier, later, to);
            }
        }

        pub(super) static $name: Kernel = Kernel {
            rows: $most,
            columns: VECTORS * <$lanes>::WIDTH,
            tiles: [[$($module::one::<false, $rows>),*], [$($module::one::<true, $rows>),*]],
            gathers: [[$($module::gathered::<false, $rows>),*], [$($module::gathered::<true, $rows>),*]],
            sweeps: [[$($module::strip::<f32, false, $rows>),*], [$($module::strip::<f32, true, $rows>),*]],
            half_sweeps: [[$($module::strip::<bf16, false, $rows>),*], [$($module::strip::<bf16, true, $rows>),*]],
            copy: $module::copy::<f32>,
            half_copy: $module::copy::<bf16>,
            turn: $module::turn::<f32>,
            half_turn: $module::turn::<bf16>,
            join: $words::join,
            half_join: $module::join,
            zip: $words::zip,
            half_zip: $module::zip,
        };
    };
}

kernel!(PLAIN, plain, Plain, plain, 4, [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4],);
#[cfg(target_arch = "x86_64")]
kernel!(AVX2, avx2, Avx2, avx2, 6, [1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6], #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
kernel!(AVX512, avx512, Avx512, avx512, 12, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], #[target_feature(enable = "avx512f")]);
kernel!(PLAIN_PAIRS, plain_pairs, PlainPairs, plain_pairs, 4, [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4],);
#[cfg(target_arch = "x86_64")]
kernel!(AVX512_PAIRS, avx512_pairs, Avx512Pairs, lanes, 12, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], #[target_feature(enable = "avx512f,avx512bf16")]);

impl Kernel {
    /// The fastest that runs on this processor.
    pub(in crate::flex) fn best() -> &'static Self {
        static BEST: LazyLock<&Kernel> = LazyLock::new(|| Kernel::all().pop().expect("the plain one runs everywhere"));
        *BEST
    }

    /// All that run on this processor, the fastest last.
    pub(super) fn all() -> Vec<&'static Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "others are added there"))]
        let mut kernels = vec![&PLAIN];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kernels.push(&AVX2);
            }
            if is_x86_feature_detected!("avx512f") {
                kernels.push(&AVX512);
            }
        }
        kernels
    }

    /// The fastest on this processor whose factors are words.
    pub(in crate::flex) fn best_of_pairs() -> &'static Self {
        static BEST: LazyLock<&Kernel> =
            LazyLock::new(|| Kernel::all_of_pairs().pop().expect("the plain one runs everywhere"));
        *BEST
    }

    /// Whether this processor has an instruction for products of pairs.
    pub(in crate::flex) fn has_bf16() -> bool {
        !std::ptr::eq(Self::best_of_pairs(), &PLAIN_PAIRS)
    }

    /// All on this processor whose factors are words, the fastest last.
    pub(super) fn all_of_pairs() -> Vec<&'static Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "another is added there"))]
        let mut kernels = vec![&PLAIN_PAIRS];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16")
        {
            kernels.push(&AVX512_PAIRS);
        }
        kernels
    }
}
