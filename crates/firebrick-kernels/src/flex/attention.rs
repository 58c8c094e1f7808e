//! Causal attention, sequence by sequence and head by head, nothing kept but its result.

use super::matrix::{Into, Matrix, product};
use super::vector::{softmax, softmax_backward};
use crate::Reach;

/// Queries of one block: keys above the diagonal are computed within a block only.
const BLOCK: usize = 64;

/// The shape of the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) seq: usize,
    pub(super) heads: usize,
    pub(super) d_model: usize,
}

impl Shape {
    fn d_head(&self) -> usize {
        self.d_model / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.d_head() as f32).sqrt()
    }
}

/// A block of the queries of one head and the keys that some of them read; places count tokens of the whole batch.
struct Block {
    head: usize,
    /// Where the sequence, and with it the keys, begins.
    start: usize,
    /// Where the queries begin.
    query: usize,
    /// Queries.
    queries: usize,
    /// Keys.
    keys: usize,
}

impl Block {
    /// How many keys this query of the block reads.
    fn seen(&self, query: usize) -> usize {
        self.query - self.start + query + 1
    }
}

/// Calls `f` for every block of every head of every sequence, in order.
fn for_each_block(reach: &Reach, heads: usize, mut f: impl FnMut(Block)) {
    let [_, seq] = reach.dims();
    for (row, first) in reach.first().chunks_exact(seq).enumerate() {
        let mut start = 0;
        for sequence in first.chunk_by(|a, b| a == b) {
            for head in 0..heads {
                for offset in (0..sequence.len()).step_by(BLOCK) {
                    let queries = BLOCK.min(sequence.len() - offset);
                    let start = row * seq + start;
                    f(Block { head, start, query: start + offset, queries, keys: offset + queries });
                }
            }
            start += sequence.len();
        }
    }
}

/// `rows` of a head's part (0 queries, 1 keys, 2 values) from token `from` on.
fn part(qkv: &[f32], shape: Shape, part: usize, head: usize, from: usize, rows: usize) -> Matrix<'_> {
    let (width, d_head) = (3 * shape.d_model, shape.d_head());
    Matrix::rows(&qkv[from * width + part * shape.d_model + head * d_head..], rows, d_head, width)
}

/// `o` `[tokens, d_model]` of `qkv` `[tokens, 3 d_model]`, and each query's logarithm of the sum of exponentials
/// `[tokens, heads]`.
pub(super) fn forward(qkv: &[f32], shape: Shape, reach: &Reach) -> (Vec<f32>, Vec<f32>) {
    let Shape { heads, d_model, .. } = shape;
    let d_head = shape.d_head();
    let tokens = reach.first().len();
    let (mut out, mut log_sums) = (vec![0.0; tokens * d_model], vec![0.0; tokens * heads]);
    let mut scores = vec![0.0; BLOCK * shape.seq];
    for_each_block(reach, heads, |block| {
        let Block { head, start, query, queries, keys } = block;
        let scores = &mut scores[..queries * keys];
        let q = part(qkv, shape, 0, head, query, queries);
        let k = part(qkv, shape, 1, head, start, keys);
        product(scores, keys, Into::Place, q, k.transposed());
        for (index, row) in scores.chunks_exact_mut(keys).enumerate() {
            log_sums[(query + index) * heads + head] = softmax(row, block.seen(index), shape.scale());
        }
        let p = Matrix::rows(scores, queries, keys, keys);
        let v = part(qkv, shape, 2, head, start, keys);
        product(&mut out[query * d_model + head * d_head..], d_model, Into::Place, p, v);
    });
    (out, log_sums)
}

/// The gradient of `qkv`; the probabilities are computed again.
pub(super) fn backward(
    qkv: &[f32],
    shape: Shape,
    reach: &Reach,
    out: &[f32],
    log_sums: &[f32],
    dout: &[f32],
) -> Vec<f32> {
    let Shape { heads, d_model, .. } = shape;
    let (d_head, width) = (shape.d_head(), 3 * d_model);
    let mut dqkv = vec![0.0; qkv.len()];
    let (mut scores, mut dscores) = (vec![0.0; BLOCK * shape.seq], vec![0.0; BLOCK * shape.seq]);
    for_each_block(reach, heads, |block| {
        let Block { head, start, query, queries, keys } = block;
        let (scores, dscores) = (&mut scores[..queries * keys], &mut dscores[..queries * keys]);
        let q = part(qkv, shape, 0, head, query, queries);
        let k = part(qkv, shape, 1, head, start, keys);
        let v = part(qkv, shape, 2, head, start, keys);
        let at = |token: usize| token * d_model + head * d_head;
        let g = Matrix::rows(&dout[at(query)..], queries, d_head, d_model);
        product(scores, keys, Into::Place, q, k.transposed());
        product(dscores, keys, Into::Place, g, v.transposed());
        for (index, (row, drow)) in scores.chunks_exact_mut(keys).zip(dscores.chunks_exact_mut(keys)).enumerate() {
            let token = query + index;
            let head_of = at(token)..at(token) + d_head;
            let log_sum = log_sums[token * heads + head];
            let (out, dout) = (&out[head_of.clone()], &dout[head_of]);
            softmax_backward(row, drow, block.seen(index), shape.scale(), log_sum, out, dout);
        }
        let p = Matrix::rows(scores, queries, keys, keys);
        let ds = Matrix::rows(dscores, queries, keys, keys);
        let place = |part: usize, token: usize| token * width + part * d_model + head * d_head;
        product(&mut dqkv[place(0, query)..], width, Into::Place, ds, k);
        product(&mut dqkv[place(1, start)..], width, Into::Sum, ds.transposed(), q);
        product(&mut dqkv[place(2, start)..], width, Into::Sum, p.transposed(), g);
    });
    dqkv
}
