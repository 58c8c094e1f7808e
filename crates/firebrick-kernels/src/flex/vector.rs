//! Loops over slices, compiled for several instruction sets; which one runs is found out at run time.
//!
//! Sums run in 16 lanes that are added up in a fixed order, so that a row gives the same bits wherever it stands.

use multiversion::multiversion;

use crate::AdamWStep;

const LANES: usize = 16;

/// eˣ within 2 units in the last place, without a branch; 0 below the smallest normal number.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
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

/// 1 / √2π
const DENSITY_AT_0: f32 = 0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;

/// erf x within 1.5 · 10⁻⁷, and e^(−x²).
///
/// Abramowitz and Stegun 1964, 7.1.26.
#[inline(always)]
fn erf(x: f32) -> (f32, f32) {
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
fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
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
fn dot(x: &[f32], y: &[f32]) -> f32 {
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
fn greatest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most })
}

/// eˣ of a number from −708 to 0 within 2 units in the last place, without a branch; 0 below.
#[inline(always)]
fn exp_f64(x: f64) -> f64 {
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

/// [`crate::boltzmann`].
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn boltzmann(x: &[f32], most: f64, temperature: f64, weights: &mut [f64]) {
    for (weight, &x) in weights.iter_mut().zip(x) {
        *weight = exp_f64((f64::from(x) - most) / temperature);
    }
}

/// [`crate::greatest`].
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn greatest_of(x: &[f32]) -> f32 {
    greatest(x)
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn gelu(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2).0);
    }
}

/// dx = g (Φ(x) + x φ(x))
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn gelu_backward(x: &[f32], g: &mut [f32]) {
    for (g, &x) in g.iter_mut().zip(x) {
        let (erf, gauss) = erf(x * std::f32::consts::FRAC_1_SQRT_2);
        *g *= 0.5 * (1.0 + erf) + x * gauss * DENSITY_AT_0;
    }
}

/// tanh of the polynomial that GPT-2 takes for erf, and that polynomial's slope.
#[inline(always)]
fn gelu_tanh_parts(x: f32) -> (f32, f32) {
    const ROOT: f32 = 0.797_884_6; // √(2/π)
    const CUBIC: f32 = 0.044_715;
    let inner = ROOT * x * (CUBIC * x).mul_add(x, 1.0);
    // tanh u = 1 − 2 / (e^{2u} + 1)
    let tanh = 1.0 - 2.0 / (exp(2.0 * inner) + 1.0);
    (tanh, ROOT * (3.0 * CUBIC * x).mul_add(x, 1.0))
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn gelu_tanh(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = 0.5 * x * (1.0 + gelu_tanh_parts(x).0);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn gelu_tanh_backward(x: &[f32], g: &mut [f32]) {
    for (g, &x) in g.iter_mut().zip(x) {
        let (tanh, slope) = gelu_tanh_parts(x);
        *g *= 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope;
    }
}

/// y = silu(gate) · up
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
        *y = gate / (1.0 + exp(-gate)) * up;
    }
}

/// With σ = sigmoid(gate): d gate = g up σ (1 + gate (1 − σ)), d up = g gate σ.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn swiglu_backward(gate: &[f32], up: &[f32], g: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    for ((((dgate, dup), &gate), &up), &g) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(g) {
        let sigmoid = 1.0 / (1.0 + exp(-gate));
        *dgate = g * up * sigmoid * gate.mul_add(1.0 - sigmoid, 1.0);
        *dup = g * gate * sigmoid;
    }
}

/// The pairs (x, y) turned by their angles.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn rotate(x: &mut [f32], y: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (((x, y), &cos), &sin) in x.iter_mut().zip(y).zip(cos).zip(sin) {
        (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
    }
}

/// One row; returns the inverse of its root mean square.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) -> f32 {
    let inverse = 1.0 / (sum_of(x, |v| v * v) / x.len() as f32 + epsilon).sqrt();
    for ((y, &x), &weight) in y.iter_mut().zip(x).zip(weight) {
        *y = x * inverse * weight;
    }
    inverse
}

/// With x̂ the normalised row and h = g · weight: dx = (h − x̂ mean(h x̂)) / rms; d weight += g x̂.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    g: &[f32],
    inverse: f32,
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    for index in 0..x.len() {
        dweight[index] = g[index].mul_add(x[index] * inverse, dweight[index]);
        dx[index] = g[index] * weight[index];
    }
    let along = dot(dx, x) * inverse * inverse / x.len() as f32;
    for (dx, &x) in dx.iter_mut().zip(x) {
        *dx = inverse * (*dx - x * along);
    }
}

/// Adds every row to the sums of the columns.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn column_sums(rows: &[f32], sums: &mut [f32]) {
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

/// One row; returns its mean and the inverse of its deviation.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) -> [f32; 2] {
    let width = x.len() as f32;
    let mean = sum_of(x, |v| v) / width;
    let variance = sum_of(x, |v| (v - mean) * (v - mean)) / width;
    let inverse = 1.0 / (variance + epsilon).sqrt();
    for (((y, &x), &weight), &bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
        *y = ((x - mean) * inverse).mul_add(weight, bias);
    }
    [mean, inverse]
}

/// With x̂ the normalised row and h = g · weight: dx = (h − h̄ − x̂ mean(h x̂)) / deviation; d weight += g x̂, d bias += g.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn layer_norm_backward(
    x: &[f32],
    weight: &[f32],
    g: &[f32],
    [mean, inverse]: [f32; 2],
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let width = x.len() as f32;
    for index in 0..x.len() {
        let normal = (x[index] - mean) * inverse;
        dweight[index] = g[index].mul_add(normal, dweight[index]);
        dbias[index] += g[index];
        dx[index] = g[index] * weight[index];
    }
    let sum = sum_of(dx, |v| v);
    let along = (dot(dx, x) - mean * sum) * inverse / width;
    let level = sum / width;
    for (dx, &x) in dx.iter_mut().zip(x) {
        *dx = inverse * (*dx - level - (x - mean) * inverse * along);
    }
}

/// Scores to probabilities in place, those beyond `seen` to 0; returns the logarithm of the sum of exponentials.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn softmax(row: &mut [f32], seen: usize, scale: f32) -> f32 {
    let (seen, hidden) = row.split_at_mut(seen);
    let most = greatest(seen) * scale;
    for value in seen.iter_mut() {
        *value = exp(value.mul_add(scale, -most));
    }
    let sum = sum_of(seen, |v| v);
    let inverse = 1.0 / sum;
    for value in seen {
        *value *= inverse;
    }
    hidden.fill(0.0);
    most + sum.ln()
}

/// Scores to probabilities p, and their gradient dp to that of the scores: p (dp − o · do) scale.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn softmax_backward(
    scores: &mut [f32],
    dp: &mut [f32],
    seen: usize,
    scale: f32,
    log_sum: f32,
    out: &[f32],
    dout: &[f32],
) {
    let delta = dot(out, dout);
    for (score, dp) in scores[..seen].iter_mut().zip(&mut dp[..seen]) {
        let p = exp(score.mul_add(scale, -log_sum));
        *score = p;
        *dp = p * (*dp - delta) * scale;
    }
    scores[seen..].fill(0.0);
    dp[seen..].fill(0.0);
}

/// max x, and ln Σ exp(xᵢ − max x): apart, since their sum loses the digits of the second where logits are large.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn log_sum_exp(x: &[f32]) -> [f32; 2] {
    let most = greatest(x);
    [most, sum_of(x, |v| exp(v - most)).ln()]
}

/// The gradient of xₜ − ln Σ exp(xᵢ) but for the target's own 1: −g exp(xᵢ − max x − ln Σ).
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn log_prob_backward(x: &mut [f32], [most, log_sum]: [f32; 2], g: f32) {
    for x in x {
        *x = -g * exp((*x - most) - log_sum);
    }
}

/// y ← y + x
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn add(x: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// The moments of rectified normal numbers, in place of those of the numbers.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn rectified_moments(means: &mut [f32], variances: &mut [f32]) {
    for (mean, variance) in means.iter_mut().zip(variances) {
        let (x, known) = (*mean, *variance <= 0.0);
        let deviation = if known { 1.0 } else { *variance }.sqrt();
        let (erf, gauss) = erf(x / deviation * std::f32::consts::FRAC_1_SQRT_2);
        let (below, density) = (0.5 * (1.0 + erf), deviation * gauss * DENSITY_AT_0);
        let first = x * below + density;
        let second = (x * x + *variance) * below + x * density;
        let above = if x > 0.0 { x } else { 0.0 };
        // What rounding leaves below 0.
        *variance = if known { 0.0 } else { (second - first * first).max(0.0) };
        *mean = if known { above } else { first.max(0.0) };
    }
}

/// x ← max(x, 0)
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn relu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = if *x > 0.0 { *x } else { 0.0 });
}

/// dx = g where the rectified number is above 0, else 0
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn relu_backward(y: &[f32], g: &mut [f32]) {
    g.iter_mut().zip(y).for_each(|(g, &y)| *g = if y > 0.0 { *g } else { 0.0 });
}

/// Σ x²
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn square_sum(x: &[f32]) -> f32 {
    dot(x, x)
}

/// [`crate::adamw`], in place.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn adamw(weights: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], step: AdamWStep) {
    let [beta_1, beta_2] = [step.beta_1, step.beta_2].map(|beta| beta as f32);
    let [rest_1, rest_2] = [1.0 - step.beta_1, 1.0 - step.beta_2].map(|rest| rest as f32);
    let [kept, mean_factor] = [step.kept, step.mean_factor].map(|factor| factor as f32);
    let [root_factor, epsilon] = [step.root_factor, step.epsilon].map(|number| number as f32);
    let moments = mean.iter_mut().zip(square);
    for ((w, &g), (m, v)) in weights.iter_mut().zip(gradient).zip(moments) {
        *m = *m * beta_1 + g * rest_1;
        *v = *v * beta_2 + g * g * rest_2;
        *w = *w * kept - *m / (v.sqrt() * root_factor + epsilon) * mean_factor;
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
            assert_eq!(sum_of(&x, |v| v), expected);
            assert_eq!(dot(&x, &vec![2.0; length]), 2.0 * expected);
            assert_eq!(greatest(&x), if length == 0 { f32::NEG_INFINITY } else { length as f32 - 1.0 });
        }
    }
}
