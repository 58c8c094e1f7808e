//! Products as the accumulation orders say, element by element, for tests.

use half::bf16;

use super::isa::Element;
use super::matrix::Matrix;

/// Numbers that look random, in [−½, ½).
pub(super) fn numbers(length: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..length).map(|_| next()).collect()
}

/// A matrix with so many unused numbers between its rows or, if it is transposed, its columns.
pub(super) fn matrix<T>(data: &[T], rows: usize, columns: usize, slack: usize, transposed: bool) -> Matrix<'_, T> {
    if transposed {
        Matrix::row_major(data, columns, rows, rows + slack).transposed()
    } else {
        Matrix::row_major(data, rows, columns, columns + slack)
    }
}

/// C ← C + A B in the order of [`gemm`](super).
pub(super) fn in_order<T: Element>(c: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_, T>) {
    for row in 0..a.rows {
        for column in 0..b.columns {
            let c = &mut c[row * stride + column];
            *c = (0..a.columns).fold(*c, |c, p| {
                let a = a.data[row * a.row_stride + p * a.column_stride];
                let b = b.data[p * b.row_stride + column * b.column_stride].f32();
                a.mul_add(b, c)
            });
        }
    }
}

/// A B, whose rows begin at this one, in the order of [`bf16`](super::bf16).
pub(super) fn in_pairs(bias: &[f32], a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let mut c = Vec::new();
    for row in 0..a.rows {
        for (column, &bias) in bias.iter().enumerate() {
            let add = |c: f32, k: usize| {
                if k >= a.columns {
                    return c;
                }
                flushed(rounded(a, row, k).mul_add(rounded(b, k, column), c))
            };
            c.push((0..a.columns.div_ceil(2)).fold(bias, |c, p| add(add(c, 2 * p + 1), 2 * p)));
        }
    }
    c
}

/// A B, whose rows begin at this one, in the order of [`amx`](super::amx).
pub(super) fn in_blocks<T: Element>(bias: &[f32], a: Matrix<'_>, b: Matrix<'_, T>) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut c = Vec::new();
    for row in 0..a.rows {
        for (column, &bias) in bias.iter().enumerate() {
            let block = |c: f32, first: usize| {
                let mut sums = [0.0_f32; 2];
                for k in first..first + BLOCK {
                    let (a, b) = (rounded(a, row, k), rounded(b, k, column));
                    sums[k % 2] = flushed(a.mul_add(b, sums[k % 2]));
                }
                flushed(c + flushed(sums[0] + sums[1]))
            };
            c.push((0..a.columns).step_by(BLOCK).fold(bias, block));
        }
    }
    c
}

/// 0 below the least normal number.
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 * x } else { x }
}

/// An element rounded to BF16; 0 where there is none.
fn rounded<T: Element>(m: Matrix<'_, T>, row: usize, column: usize) -> f32 {
    if row >= m.rows || column >= m.columns {
        return 0.0;
    }
    let number = m.data[row * m.row_stride + column * m.column_stride].f32();
    flushed(bf16::from_f32(flushed(number)).to_f32())
}
