//! Functions of numbers and sums of slices, to be compiled into loops for several instruction sets.
//!
//! Sums run in 16 lanes that are added up in a fixed order, so that a row gives the same bits wherever it stands.

use multiversion::multiversion;

const LANES: usize = 16;

/// eˣ within 2 units in the last place, without a branch; 0 below the smallest normal number.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with n whole. Adding 1.5 · 2²³ rounds to it, and leaves n in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.7);
    let rounded = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, clamped));
    // The Taylor series' coefficients, adjusted for the least greatest error on |r| ≤ ½ ln 2 (Cephes' `expf`).
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    // Wrapping and masks instead of checks and branches, which no vector unit has.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < -87.3 { 0.0 } else { power * y }
}

/// erf x within 1.5 · 10⁻⁷, and e^(−x²).
///
/// Abramowitz and Stegun 1964, 7.1.26.
#[inline(always)]
pub(crate) fn erf(x: f32) -> (f32, f32) {
    let magnitude = x.abs();
    let t = 1.0 / magnitude.mul_add(0.327_591_1, 1.0);
    let gauss = exp(-magnitude * magnitude);
    let mut p = 1.061_405_4_f32;
    p = p.mul_add(t, -1.453_152);
    p = p.mul_add(t, 1.421_413_7);
    p = p.mul_add(t, -0.284_496_74);
    p = p.mul_add(t, 0.254_829_6);
    ((1.0 - p * t * gauss).copysign(x), gauss)
}

#[inline(always)]
pub(crate) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += f(chunk[lane]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += f(value);
    }
    lanes.iter().sum()
}

#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let whole = x.len() / LANES * LANES;
    for (a, b) in x[..whole].chunks_exact(LANES).zip(y[..whole].chunks_exact(LANES)) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(&x[whole..]).zip(&y[whole..]) {
        *lane = a.mul_add(b, *lane);
    }
    lanes.iter().sum()
}

#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &value| if value > max { value } else { max })
}

/// eˣ of a number from −708 to 0 within 2 units in the last place, without a branch; 0 below.
#[inline(always)]
pub(crate) fn exp_f64(x: f64) -> f64 {
    // As of `exp`: adding 1.5 · 2⁵² rounds x / ln 2, and leaves it in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    /// 1 / k! for k from 13 down to 2: the Taylor series on |r| ≤ ½ ln 2.
    const SERIES: [f64; 12] = [
        1.605_904_383_682_161_5e-10,
        2.087_675_698_786_81e-9,
        2.505_210_838_544_172e-8,
        2.755_731_922_398_589_4e-7,
        2.755_731_922_398_589e-6,
        2.480_158_730_158_73e-5,
        1.984_126_984_126_984e-4,
        1.388_888_888_888_889e-3,
        8.333_333_333_333_333e-3,
        4.166_666_666_666_666_4e-2,
        1.666_666_666_666_666_6e-1,
        0.5,
    ];
    let clamped = x.max(-708.0);
    let rounded = clamped.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, clamped));
    let mut p = SERIES[0];
    for coefficient in &SERIES[1..] {
        p = p.mul_add(r, *coefficient);
    }
    let y = p.mul_add(r * r, r) + 1.0;
    let power = f64::from_bits(rounded.to_bits().wrapping_add(1023) << 52);
    if x < -708.0 { 0.0 } else { power * y }
}

/// The sums of so many columns of rows.
pub(crate) fn column_sums(rows: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    add_rows(rows, &mut sums);
    sums
}

/// Adds every row to the sums of the columns.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn add_rows(rows: &[f32], sums: &mut [f32]) {
    /// Sums that stay in registers.
    const HELD: usize = 32;
    let columns = sums.len();
    let whole = columns / HELD * HELD;
    for first in (0..whole).step_by(HELD) {
        let mut held = [0.0; HELD];
        held.copy_from_slice(&sums[first..first + HELD]);
        for row in rows.chunks_exact(columns) {
            let row: &[f32; HELD] = row[first..first + HELD].try_into().expect("as many as are held");
            held.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        sums[first..first + HELD].copy_from_slice(&held);
    }
    for row in rows.chunks_exact(columns) {
        sums[whole..].iter_mut().zip(&row[whole..]).for_each(|(sum, value)| *sum += value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_within_two_units_in_the_last_place() {
        for step in -8_700..=8_800 {
            let x = step as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "exp({x}) is off by {error}");
        }
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn exponentials_of_f64_are_within_two_units_in_the_last_place() {
        for step in 0..=70_800 {
            let x = f64::from(step) / -100.0;
            let error = (exp_f64(x) - x.exp()).abs() / x.exp();
            assert!(error < 2.0 * f64::EPSILON, "exp({x}) is off by {error}");
        }
        assert_eq!((exp_f64(0.0), exp_f64(-708.5), exp_f64(f64::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn sums_take_every_element_once_whatever_the_length() {
        for length in 0..70 {
            let x: Vec<f32> = (0..length).map(|index| index as f32).collect();
            let expected = (length * length.max(1) - length) as f32 / 2.0;
            assert_eq!(sum(&x, |v| v), expected);
            assert_eq!(dot(&x, &vec![2.0; length]), 2.0 * expected);
            assert_eq!(max(&x), if length == 0 { f32::NEG_INFINITY } else { length as f32 - 1.0 });
        }
    }
}
