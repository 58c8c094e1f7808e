//! Plain Rust, for the compiler to find instructions for.

use half::bf16;

use super::vector::{Element, Vector};

/// Eight numbers.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Portable([f32; 8]);

impl Vector for Portable {
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
    unsafe fn load_bf16(from: *const bf16) -> Self {
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

/// Eight pairs of BF16, multiplied in the order of AVX-512's instruction.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct PortablePairs(Portable);

impl Vector for PortablePairs {
    const WIDTH: usize = Portable::WIDTH;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Portable::splat(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Portable::load(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Portable::load_bf16(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { self.0.store(to) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        let later = |pair: f32| f32::from_bits(pair.to_bits() & 0xffff_0000);
        let earlier = |pair: f32| f32::from_bits(pair.to_bits() << 16);
        let flushed = |x: f32| if x.abs() < f32::MIN_POSITIVE { 0.0 * x } else { x };
        Self(Portable(std::array::from_fn(|lane| {
            let [a, b, c] = [self.0.0[lane], b.0.0[lane], c.0.0[lane]];
            let c = flushed(later(a).mul_add(later(b), c));
            flushed(earlier(a).mul_add(earlier(b), c))
        })))
    }
}

/// The bits of a number's BF16: the nearest one, of two as near the even one; 0 below the least normal number.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return (bits >> 16) | 0x40;
    }
    if magnitude < 0x0080_0000 {
        return (bits >> 16) & 0x8000;
    }
    (bits + 0x7fff + ((bits >> 16) & 1)) >> 16
}

/// A pair: the earlier k in the lower half, the later in the upper.
#[inline(always)]
fn pair(earlier: f32, later: f32) -> f32 {
    f32::from_bits(rounded(earlier) | (rounded(later) << 16))
}

/// Rounds neighbours, and pairs them: `to[p]` of `from[2p]` and `from[2p + 1]`.
#[inline(always)]
pub(in crate::gemm) fn pack_row_pairs<T: Element>(from: &[T], to: &mut [f32]) {
    let (pairs, last) = from.as_chunks::<2>();
    for (&[earlier, later], to) in pairs.iter().zip(&mut *to) {
        *to = pair(earlier.f32(), later.f32());
    }
    if let [last] = last {
        to[pairs.len()] = pair(last.f32(), 0.0);
    }
}

/// Rounds two rows, and pairs what stands in the same column.
#[inline(always)]
pub(in crate::gemm) fn pack_column_pairs<T: Element>(earlier: &[T], later: &[T], to: &mut [f32]) {
    for ((earlier, later), to) in earlier.iter().zip(later).zip(to) {
        *to = pair(earlier.f32(), later.f32());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        let numbers = (0..1000).map(|index| (index * 37 % 1009) as f32 / 1009.0 - 0.5);
        for x in numbers.chain([1.0, -2.5, 3.0e38, f32::INFINITY, 1.005_859_4, 1.009_765_6]) {
            assert_eq!(rounded(x), u32::from(bf16::from_f32(x).to_bits()), "{x}");
        }
        assert_eq!([1e-39, -1e-39].map(rounded), [0, 0x8000]);
        assert!(f32::from_bits(rounded(f32::NAN) << 16).is_nan());
    }
}
