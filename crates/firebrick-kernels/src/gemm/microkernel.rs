//! Microkernels: tiles of C that stay in registers while the k index runs.

use std::sync::LazyLock;

use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::isa::{Avx2, Avx512, Avx512Pairs, avx512 as isa_avx512};
use super::isa::{Element, Portable, PortablePairs, Vector, portable as isa_portable};
use super::matrix::MatPtr;

/// C ← init + A B of a tile, or of every tile of a strip: k, the rows of A or its columns, the rows of B, init, C, columns.
pub(super) type Microkernel<T> =
    unsafe fn(usize, MatPtr<*const f32>, MatPtr<*const T>, MatPtr<*const f32>, MatPtr<*mut f32>, usize);

/// The same of a tile whose A is [`Indirect`].
pub(super) type IndirectMicrokernel =
    unsafe fn(usize, Indirect, MatPtr<*const f32>, MatPtr<*const f32>, MatPtr<*mut f32>, usize);

/// One of each number of rows: that of `n` rows at `n − 1`.
type ByRows<F> = [F; MAX_MR];

/// Where the elements of A are: its rows begin at some numbers of a slice, and its indices k are so far from there.
#[derive(Clone, Copy)]
pub(super) struct Indirect {
    pub(super) data: *const f32,
    pub(super) starts: *const usize,
    pub(super) steps: *const usize,
}

/// [`Vector::copy`].
type CopyRows<T> = unsafe fn(usize, usize, *const T, usize, *mut f32, usize);

/// [`Vector::transpose`].
type Transpose<T> = unsafe fn(usize, *const T, usize, *mut f32, usize);

/// Rounds neighbours, and pairs them: `to[p]` of `from[2p]` and `from[2p + 1]`.
type PackRowPairs<T> = unsafe fn(&[T], &mut [f32]);

/// Rounds two rows, and pairs what stands in the same column: the first has the earlier k.
type PackColumnPairs<T> = unsafe fn(&[T], &[T], &mut [f32]);

/// The greatest MR of any processor.
const MAX_MR: usize = 12;
/// The greatest NR.
const MAX_NR: usize = 32;
/// Vectors side by side in a tile; in one of few columns there is one.
const NR_VECTORS: usize = 2;
/// Numbers of a cache line.
const CACHE_LINE: usize = 16;
/// Rows times indices k until what is prefetched now is needed, where B may come from far; where it does not it costs nothing that could
/// be measured.
const PREFETCH_DISTANCE: usize = 200;
/// Rows of an unpacked B that are read at a time: as many as a hardware prefetcher follows.
pub(super) const STREAMS: usize = 8;

/// The microkernels and packing routines of an instruction set.
pub(crate) struct Kernel {
    /// The most rows of a tile.
    pub(super) mr: usize,
    /// The columns of a tile.
    pub(super) nr: usize,
    /// Tiles whose last columns may not exist: of a row-major A, and of a transposed one.
    pub(super) packed: [ByRows<Microkernel<f32>>; 2],
    /// Tiles whose A is [`Indirect`]: its rows begin anywhere, or side by side.
    pub(super) indirect: [ByRows<IndirectMicrokernel>; 2],
    /// What reads f32.
    pub(super) f32: Routines<f32>,
    /// What reads BF16.
    pub(super) bf16: Routines<bf16>,
}

/// What a kernel does with elements of one type.
pub(crate) struct Routines<T: 'static> {
    /// Strips of whole tiles whose B is read where it is: of a row-major A, and of a transposed one.
    pub(super) unpacked: [ByRows<Microkernel<T>>; 2],
    pub(super) copy: CopyRows<T>,
    pub(super) transpose: Transpose<T>,
    pub(super) pack_row_pairs: PackRowPairs<T>,
    pub(super) pack_column_pairs: PackColumnPairs<T>,
}

/// An element of B that kernels have routines for.
pub(crate) trait Operand: Element + 'static {
    fn routines(kernel: &Kernel) -> &Routines<Self>;
}

impl Operand for f32 {
    fn routines(kernel: &Kernel) -> &Routines<Self> {
        &kernel.f32
    }
}

impl Operand for bf16 {
    fn routines(kernel: &Kernel) -> &Routines<Self> {
        &kernel.bf16
    }
}

/// A of a tile: where its rows begin, how far its indices k are from there, and what is read soon.
trait Rows<const MR: usize>: Copy {
    /// # Safety
    /// There are so many rows.
    unsafe fn rows(self) -> [*const f32; MR];
    /// # Safety
    /// There is such an index.
    unsafe fn offset(self, k: usize) -> usize;
    fn prefetch<V: Vector>(self, _k: usize) {}
}

/// A row-major A or, if `TRANSPOSED`, a column-major one.
#[derive(Clone, Copy)]
struct Strided<const TRANSPOSED: bool>(MatPtr<*const f32>);

impl<const TRANSPOSED: bool, const MR: usize> Rows<MR> for Strided<TRANSPOSED> {
    #[inline(always)]
    unsafe fn rows(self) -> [*const f32; MR] {
        std::array::from_fn(|row| self.0.data.wrapping_add(if TRANSPOSED { row } else { row * self.0.stride }))
    }

    #[inline(always)]
    unsafe fn offset(self, k: usize) -> usize {
        if TRANSPOSED { k * self.0.stride } else { k }
    }

    #[inline(always)]
    fn prefetch<V: Vector>(self, k: usize) {
        if !TRANSPOSED {
            // The rows of the tile below are short: no hardware prefetcher expects them.
            (MR..2 * MR).for_each(|row| V::prefetch(self.0.data.wrapping_add(row * self.0.stride + k)));
        }
    }
}

/// An indirect A; if `ADJACENT` its rows begin side by side.
#[derive(Clone, Copy)]
struct Gather<const ADJACENT: bool>(Indirect);

impl<const ADJACENT: bool, const MR: usize> Rows<MR> for Gather<ADJACENT> {
    #[inline(always)]
    unsafe fn rows(self) -> [*const f32; MR] {
        // SAFETY: the caller's.
        let start = |row| if ADJACENT { row } else { unsafe { *self.0.starts.add(row) } };
        std::array::from_fn(|row| self.0.data.wrapping_add(start(row)))
    }

    #[inline(always)]
    unsafe fn offset(self, k: usize) -> usize {
        // SAFETY: the caller's.
        unsafe { *self.0.steps.add(k) }
    }
}

/// One tile: `MR` rows of `N` vectors, with a `PREFETCH` of B where it may come from far.
///
/// # Safety
/// The instruction set of `V` is there; the pointers reach as far as [`Microkernel`] or [`IndirectMicrokernel`] tells.
#[inline(always)]
unsafe fn microkernel<V: Vector, T: Element, const MR: usize, const N: usize, const PREFETCH: bool>(
    k: usize,
    a: impl Rows<MR>,
    b: MatPtr<*const T>,
    init: MatPtr<*const f32>,
    out: MatPtr<*mut f32>,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut c = [[V::splat(0.0); N]; MR];
        if !init.data.is_null() {
            for (row, c) in c.iter_mut().enumerate() {
                for (vector, c) in c.iter_mut().enumerate() {
                    *c = V::load(init.data.add(row * init.stride + vector * V::WIDTH));
                }
            }
        }
        for row in MR..2 * MR {
            // The tile below goes on where its sums stopped, in cache lines that are far apart.
            V::prefetch(out.data.wrapping_add(row * out.stride));
            V::prefetch(out.data.wrapping_add(row * out.stride + N * V::WIDTH - 1));
        }
        let rows = a.rows();
        for first in (0..k).step_by(CACHE_LINE) {
            a.prefetch::<V>(first);
            for p in first..k.min(first + CACHE_LINE) {
                let mut b_vectors = [V::splat(0.0); N];
                for (vector, b_vector) in b_vectors.iter_mut().enumerate() {
                    // Of few rows a hardware prefetcher expects the next k; of many they are too far apart in time.
                    if PREFETCH && MR >= 4 {
                        V::prefetch(b.data.wrapping_add((p + PREFETCH_DISTANCE / MR) * b.stride + vector * V::WIDTH));
                    }
                    *b_vector = T::load(b.data.add(p * b.stride + vector * V::WIDTH));
                }
                let offset = a.offset(p);
                for (row, c) in rows.iter().zip(&mut c) {
                    let a = V::splat(*row.add(offset));
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

/// A tile of which only the first `columns` columns exist in C; in the panel of B all do. One vector is enough for few.
///
/// # Safety
/// As [`microkernel`].
#[inline(always)]
unsafe fn tile<V: Vector, const MR: usize, const PREFETCH: bool>(
    k: usize,
    a: impl Rows<MR>,
    b: MatPtr<*const f32>,
    init: MatPtr<*const f32>,
    out: MatPtr<*mut f32>,
    columns: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        if columns <= V::WIDTH {
            edge_tile::<V, MR, 1, PREFETCH>(k, a, b, init, out, columns);
        } else {
            edge_tile::<V, MR, NR_VECTORS, PREFETCH>(k, a, b, init, out, columns);
        }
    }
}

/// The same of `N` vectors.
///
/// # Safety
/// As [`microkernel`].
#[inline(always)]
unsafe fn edge_tile<V: Vector, const MR: usize, const N: usize, const PREFETCH: bool>(
    k: usize,
    a: impl Rows<MR>,
    b: MatPtr<*const f32>,
    init: MatPtr<*const f32>,
    out: MatPtr<*mut f32>,
    columns: usize,
) {
    let width = N * V::WIDTH;
    // SAFETY: the caller's; what does not exist in C is computed beside it.
    unsafe {
        if columns == width {
            return microkernel::<V, f32, MR, N, PREFETCH>(k, a, b, init, out);
        }
        let mut whole = [0.0_f32; MAX_MR * MAX_NR];
        let buffer = MatPtr { data: whole.as_mut_ptr(), stride: width };
        if !init.data.is_null() {
            init.copy(buffer, [MR, columns]);
        }
        microkernel::<V, f32, MR, N, PREFETCH>(k, a, b, buffer.cast_const(), buffer);
        buffer.cast_const().copy(out, [MR, columns]);
    }
}

/// A strip of whole tiles.
///
/// # Safety
/// As [`microkernel`].
#[inline(always)]
unsafe fn strip<V: Vector, T: Element, const TRANSPOSED: bool, const MR: usize>(
    k: usize,
    a: MatPtr<*const f32>,
    b: MatPtr<*const T>,
    init: MatPtr<*const f32>,
    out: MatPtr<*mut f32>,
    columns: usize,
) {
    for column in (0..columns).step_by(NR_VECTORS * V::WIDTH) {
        if k <= STREAMS {
            // The rows that are read next begin where no hardware prefetcher expects them.
            (k..2 * k).for_each(|p| V::prefetch(b.data.wrapping_add(p * b.stride + column)));
        }
        // SAFETY: the caller's.
        unsafe {
            let b = MatPtr { data: b.data.add(column), ..b };
            let a = Strided::<TRANSPOSED>(a);
            microkernel::<V, T, MR, NR_VECTORS, false>(k, a, b, init.at(0, column), out.at(0, column));
        }
    }
}

/// The functions of an instruction set, and the kernel made of them; `$pairs` is where f32 is packed into pairs.
macro_rules! kernel {
    ($name:ident, $module:ident, $vector:ty, $pairs:ident, $mr:literal, [$($rows:literal),*], $(#[$feature:meta])?) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            pub(super) unsafe fn packed<const TRANSPOSED: bool, const MR: usize>(
                k: usize, a: MatPtr<*const f32>, b: MatPtr<*const f32>,
                init: MatPtr<*const f32>, out: MatPtr<*mut f32>, columns: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { tile::<$vector, MR, true>(k, Strided::<TRANSPOSED>(a), b, init, out, columns) }
            }

            $(#[$feature])?
            pub(super) unsafe fn indirect<const ADJACENT: bool, const MR: usize>(
                k: usize, a: Indirect, b: MatPtr<*const f32>,
                init: MatPtr<*const f32>, out: MatPtr<*mut f32>, columns: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { tile::<$vector, MR, false>(k, Gather::<ADJACENT>(a), b, init, out, columns) }
            }

            $(#[$feature])?
            pub(super) unsafe fn unpacked<T: Element, const TRANSPOSED: bool, const MR: usize>(
                k: usize, a: MatPtr<*const f32>, b: MatPtr<*const T>,
                init: MatPtr<*const f32>, out: MatPtr<*mut f32>, columns: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { strip::<$vector, T, TRANSPOSED, MR>(k, a, b, init, out, columns) }
            }

            $(#[$feature])?
            pub(super) unsafe fn copy<T: Element>(
                rows: usize, columns: usize, from: *const T, from_stride: usize, to: *mut f32, to_stride: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { <$vector>::copy(rows, columns, from, from_stride, to, to_stride) }
            }

            $(#[$feature])?
            pub(super) unsafe fn transpose<T: Element>(
                columns: usize, from: *const T, from_stride: usize, to: *mut f32, to_stride: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { <$vector>::transpose(columns, from, from_stride, to, to_stride) }
            }

            $(#[$feature])?
            pub(super) unsafe fn pack_row_pairs<T: Element>(from: &[T], to: &mut [f32]) {
                isa_portable::pack_row_pairs(from, to);
            }

            $(#[$feature])?
            pub(super) unsafe fn pack_column_pairs<T: Element>(earlier: &[T], later: &[T], to: &mut [f32]) {
                isa_portable::pack_column_pairs(earlier, later, to);
            }
        }

        static $name: Kernel = Kernel {
            mr: $mr,
            nr: NR_VECTORS * <$vector>::WIDTH,
            packed: [[$($module::packed::<false, $rows>),*], [$($module::packed::<true, $rows>),*]],
            indirect: [[$($module::indirect::<false, $rows>),*], [$($module::indirect::<true, $rows>),*]],
            f32: Routines {
                unpacked: [[$($module::unpacked::<f32, false, $rows>),*], [$($module::unpacked::<f32, true, $rows>),*]],
                copy: $module::copy::<f32>,
                transpose: $module::transpose::<f32>,
                pack_row_pairs: $pairs::pack_row_pairs,
                pack_column_pairs: $pairs::pack_column_pairs,
            },
            bf16: Routines {
                unpacked: [[$($module::unpacked::<bf16, false, $rows>),*], [$($module::unpacked::<bf16, true, $rows>),*]],
                copy: $module::copy::<bf16>,
                transpose: $module::transpose::<bf16>,
                pack_row_pairs: $module::pack_row_pairs,
                pack_column_pairs: $module::pack_column_pairs,
            },
        };
    };
}

kernel!(PORTABLE, portable, Portable, portable, 4, [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4],);
#[cfg(target_arch = "x86_64")]
kernel!(AVX2, avx2, Avx2, avx2, 6, [1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6], #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
kernel!(AVX512, avx512, Avx512, avx512, 12, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], #[target_feature(enable = "avx512f")]);
kernel!(PORTABLE_PAIRS, portable_pairs, PortablePairs, portable_pairs, 4, [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4],);
#[cfg(target_arch = "x86_64")]
kernel!(AVX512_PAIRS, avx512_pairs, Avx512Pairs, isa_avx512, 12, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], #[target_feature(enable = "avx512f,avx512bf16")]);

impl Kernel {
    /// The fastest that runs on this processor.
    pub(crate) fn best() -> &'static Self {
        static BEST: LazyLock<&Kernel> =
            LazyLock::new(|| Kernel::all().pop().expect("the portable one runs everywhere"));
        *BEST
    }

    /// All that run on this processor, the fastest last.
    pub(super) fn all() -> Vec<&'static Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "others are added there"))]
        let mut kernels = vec![&PORTABLE];
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

    /// The fastest on this processor that multiplies pairs of BF16.
    pub(crate) fn best_of_pairs() -> &'static Self {
        static BEST: LazyLock<&Kernel> =
            LazyLock::new(|| Kernel::all_of_pairs().pop().expect("the portable one runs everywhere"));
        *BEST
    }

    /// Whether this processor has an instruction for products of pairs.
    pub(crate) fn has_bf16() -> bool {
        !std::ptr::eq(Self::best_of_pairs(), &PORTABLE_PAIRS)
    }

    /// All on this processor that multiply pairs of BF16, the fastest last.
    pub(super) fn all_of_pairs() -> Vec<&'static Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "another is added there"))]
        let mut kernels = vec![&PORTABLE_PAIRS];
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
