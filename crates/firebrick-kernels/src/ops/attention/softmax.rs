//! Softmax of rows of attention scores, and its backward pass.

use multiversion::multiversion;

use crate::vector::{dot, exp, max, sum};

/// Scores to probabilities in place, those beyond `seen` to 0; returns the logarithm of the sum of exponentials.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn softmax(row: &mut [f32], seen: usize, scale: f32) -> f32 {
    let (seen, hidden) = row.split_at_mut(seen);
    let max = max(seen) * scale;
    for value in seen.iter_mut() {
        *value = exp(value.mul_add(scale, -max));
    }
    let sum = sum(seen, |v| v);
    let inverse = 1.0 / sum;
    for value in seen {
        *value *= inverse;
    }
    hidden.fill(0.0);
    max + sum.ln()
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
