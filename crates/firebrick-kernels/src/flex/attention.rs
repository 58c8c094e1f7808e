//! Causal attention, sequence by sequence and head by head, nothing kept but its result.

use super::product::{Matrix, add_product, place_product};
use super::vector::{softmax, softmax_backward};
use crate::{Heads, Reach};

/// Queries of one block: keys above the diagonal are computed within a block only.
const BLOCK: usize = 64;

/// The shape of the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) heads: Heads,
    pub(super) d_head: usize,
}

impl Shape {
    fn scale(&self) -> f32 {
        1.0 / (self.d_head as f32).sqrt()
    }

    /// Numbers of a token: its queries, keys and values.
    fn width(&self) -> usize {
        self.heads.all() * self.d_head
    }

    /// Numbers that a token reads.
    fn read_width(&self) -> usize {
        self.heads.query * self.d_head
    }

    /// Where in a token's numbers the queries (0), keys (1) or values (2) of a query's head begin.
    fn offset(&self, part: usize, head: usize) -> usize {
        let Heads { query, key_value } = self.heads;
        let shared = head * key_value / query;
        self.d_head * [head, query + shared, query + key_value + shared][part]
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

/// The longest sequence.
fn longest(reach: &Reach) -> usize {
    let [_, seq] = reach.dims();
    let rows = reach.first().chunks_exact(seq);
    rows.flat_map(|first| first.chunk_by(|a, b| a == b)).map(<[_]>::len).max().unwrap_or(0)
}

/// Calls `f` for every block of every head of every sequence, in order.
fn for_each_block(reach: &Reach, heads: Heads, mut f: impl FnMut(Block)) {
    let [_, seq] = reach.dims();
    for (row, first) in reach.first().chunks_exact(seq).enumerate() {
        let mut start = 0;
        for sequence in first.chunk_by(|a, b| a == b) {
            for head in 0..heads.query {
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
    let width = shape.width();
    Matrix::rows(&qkv[from * width + shape.offset(part, head)..], rows, shape.d_head, width)
}

/// What each token reads of `qkv`, and each query's logarithm of the sum of exponentials `[tokens, heads]`.
pub(super) fn forward(qkv: &[f32], shape: Shape, reach: &Reach) -> (Vec<f32>, Vec<f32>) {
    let Shape { heads, d_head, .. } = shape;
    let width = shape.read_width();
    let tokens = reach.first().len();
    let (mut out, mut log_sums) = (vec![0.0; tokens * width], vec![0.0; tokens * heads.query]);
    let mut scores = vec![0.0; BLOCK * longest(reach)];
    for_each_block(reach, heads, |block| {
        let Block { head, start, query, queries, keys } = block;
        let scores = &mut scores[..queries * keys];
        let q = part(qkv, shape, 0, head, query, queries);
        let k = part(qkv, shape, 1, head, start, keys);
        place_product(scores, keys, q, k.transposed());
        for (index, row) in scores.chunks_exact_mut(keys).enumerate() {
            log_sums[(query + index) * heads.query + head] = softmax(row, block.seen(index), shape.scale());
        }
        let p = Matrix::rows(scores, queries, keys, keys);
        let v = part(qkv, shape, 2, head, start, keys);
        place_product(&mut out[query * width + head * d_head..], width, p, v);
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
    let Shape { heads, d_head, .. } = shape;
    let (width, read_width) = (shape.width(), shape.read_width());
    let mut dqkv = vec![0.0; qkv.len()];
    let [mut scores, mut dscores] = [(); 2].map(|()| vec![0.0; BLOCK * longest(reach)]);
    for_each_block(reach, heads, |block| {
        let Block { head, start, query, queries, keys } = block;
        let (scores, dscores) = (&mut scores[..queries * keys], &mut dscores[..queries * keys]);
        let q = part(qkv, shape, 0, head, query, queries);
        let k = part(qkv, shape, 1, head, start, keys);
        let v = part(qkv, shape, 2, head, start, keys);
        let at = |token: usize| token * read_width + head * d_head;
        let g = Matrix::rows(&dout[at(query)..], queries, d_head, read_width);
        place_product(scores, keys, q, k.transposed());
        place_product(dscores, keys, g, v.transposed());
        for (index, (row, drow)) in scores.chunks_exact_mut(keys).zip(dscores.chunks_exact_mut(keys)).enumerate() {
            let token = query + index;
            let head_of = at(token)..at(token) + d_head;
            let log_sum = log_sums[token * heads.query + head];
            let (out, dout) = (&out[head_of.clone()], &dout[head_of]);
            softmax_backward(row, drow, block.seen(index), shape.scale(), log_sum, out, dout);
        }
        let p = Matrix::rows(scores, queries, keys, keys);
        let ds = Matrix::rows(dscores, queries, keys, keys);
        let place = |part: usize, token: usize| token * width + shape.offset(part, head);
        place_product(&mut dqkv[place(0, query)..], width, ds, k);
        add_product(&mut dqkv[place(1, start)..], width, ds.transposed(), q);
        add_product(&mut dqkv[place(2, start)..], width, p.transposed(), g);
    });
    dqkv
}
