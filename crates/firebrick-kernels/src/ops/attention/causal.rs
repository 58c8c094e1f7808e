//! Attention over whole sequences.

use burn::tensor::Tensor;

use super::heads::Heads;
use super::sequence_starts::SequenceStarts;
#[cfg(feature = "flex")]
use crate::flex::is_flex;

/// What each position reads of its sequence up to itself, head by head.
///
/// ```text
/// o = softmax(q kᵀ / √d_head) v        over the positions of its sequence up to itself
/// ```
///
/// Vaswani et al. 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762), eq. 1.
///
/// # Shapes
/// - `qkv`: `[batch, seq, heads.all() d_head]`, queries, keys and values of all heads side by side
/// - returns `[batch, seq, heads.query d_head]`
///
/// # Panics
/// If the heads do not divide the width or each other, or the sequences are of another batch.
pub fn attention(qkv: Tensor<3>, heads: Heads, sequences: &SequenceStarts) -> Tensor<3> {
    let [batch, seq, width] = qkv.dims();
    assert!(width.is_multiple_of(heads.all()), "{} heads do not divide a width of {width}", heads.all());
    assert!(heads.query.is_multiple_of(heads.key_value), "{heads:?}: the second must divide the first");
    assert_eq!(sequences.dims(), [batch, seq], "the sequences of another batch");
    #[cfg(feature = "flex")]
    if is_flex(&qkv.device()) {
        return fused::attention(qkv, heads, sequences);
    }
    plain::attention(qkv, heads, sequences)
}

pub(crate) mod plain {
    use burn::tensor::{Int, Tensor, TensorData};

    use super::{Heads, SequenceStarts};

    /// What a hidden position adds to an attention score; its probability is then exactly 0.
    const HIDDEN: f32 = -1e9;

    /// [`crate::attention`].
    pub fn attention(qkv: Tensor<3>, heads: Heads, sequences: &SequenceStarts) -> Tensor<3> {
        let [batch, seq, width] = qkv.dims();
        let (tokens, d_head, device) = (batch * seq, width / heads.all(), qkv.device());
        let Heads { query, key_value } = heads;
        // Each sequence becomes a row of its own, filled at its end with what no token of it reads: many short sequences in one row
        // would ask for scores of all pairs of their tokens.
        let starts = (0..tokens).filter(|index| index % seq == sequences.starts()[*index]).collect::<Vec<_>>();
        let ends = starts.iter().copied().skip(1).chain([tokens]);
        let spans = starts.iter().copied().zip(ends).collect::<Vec<_>>();
        let (rows, longest) = (spans.len(), spans.iter().map(|(start, end)| end - start).max().unwrap_or(0));
        let filled =
            spans.iter().flat_map(|&(start, end)| (start..start + longest).map(move |place| place.min(end - 1)));
        let places =
            spans.iter().enumerate().flat_map(|(row, (start, end))| row * longest..row * longest + end - start);
        let indices = |places: Vec<usize>| {
            let places = places.into_iter().map(|place| place as i64).collect::<Vec<_>>();
            let count = places.len();
            Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &device)
        };
        // Sequences of one length are such rows already.
        let whole = rows * longest == tokens;
        let filled = |qkv: Tensor<2>| if whole { qkv } else { qkv.select(0, indices(filled.collect())) };
        let taken = |read: Tensor<2>| if whole { read } else { read.select(0, indices(places.collect())) };
        let qkv = filled(qkv.reshape([tokens, width])).reshape([rows, longest, width]);
        // [rows, query heads, longest, d_head]; heads of keys and values are repeated for the queries that share them.
        let part = |index: usize| {
            let (from, count) = [(0, query), (query, key_value), (query + key_value, key_value)][index];
            let part = qkv.clone().slice([0..rows, 0..longest, from * d_head..(from + count) * d_head]);
            let part = part.reshape([rows, longest, count, 1, d_head]).repeat_dim(3, query / count);
            part.reshape([rows, longest, query, d_head]).swap_dims(1, 2)
        };
        let hidden = Tensor::<2>::ones([longest, longest], &device).triu(1) * HIDDEN;
        let scores = (part(0) * (d_head as f64).powf(-0.5)).matmul(part(1).swap_dims(2, 3)) + hidden.unsqueeze();
        let exp = (scores.clone() - scores.detach().max_dim(3)).exp();
        let sum = exp.clone().sum_dim(3);
        let read = (exp / sum).matmul(part(2)).swap_dims(1, 2).reshape([rows * longest, query * d_head]);
        taken(read).reshape([batch, seq, query * d_head])
    }
}

#[cfg(feature = "flex")]
mod fused {
    //! Sequence by sequence and head by head, nothing kept but the result.

    use burn::backend::autodiff::Autodiff;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::Tensor;

    use super::super::softmax::{softmax, softmax_backward};
    use super::{Heads, SequenceStarts};
    use crate::flex::{Vjp, contiguous, dims, elements, tensor, tracked};
    use crate::gemm::{Matrix, accumulate_product, write_product};

    /// Causal attention, with its backward pass.
    #[backend_extension(Flex, Autodiff)]
    trait FusedAttention: Backend {
        fn fused_attention(qkv: FloatTensor<Self>, heads: Heads, sequences: SequenceStarts) -> FloatTensor<Self>;
    }

    pub(super) fn attention(qkv: Tensor<3>, heads: Heads, sequences: &SequenceStarts) -> Tensor<3> {
        Tensor::from_dispatch(<Dispatch as FusedAttention>::fused_attention(
            qkv.into_dispatch(),
            heads,
            sequences.clone(),
        ))
    }

    fn attention_forward(qkv: &FlexTensor, heads: Heads, sequences: &SequenceStarts) -> (FlexTensor, Shape, Vec<f32>) {
        let [batch, seq] = sequences.dims();
        let d_head = dims(qkv)[2] / heads.all();
        let shape = Shape { heads, d_head };
        let (out, log_sums) = forward(elements(qkv), shape, sequences);
        (tensor(out, vec![batch, seq, heads.query * d_head]), shape, log_sums)
    }

    #[derive(Clone, Debug)]
    struct AttentionState {
        qkv: FlexTensor,
        out: FlexTensor,
        log_sums: Vec<f32>,
        shape: Shape,
        sequences: SequenceStarts,
    }

    impl Vjp<1> for AttentionState {
        fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            let Self { qkv, out, log_sums, shape, sequences } = self;
            let dqkv = backward(elements(&qkv), shape, &sequences, elements(&out), &log_sums, elements(&g));
            [Some(tensor(dqkv, dims(&qkv)))]
        }
    }

    impl FusedAttention for Flex {
        fn fused_attention(qkv: FlexTensor, heads: Heads, sequences: SequenceStarts) -> FlexTensor {
            attention_forward(&contiguous(qkv), heads, &sequences).0
        }
    }

    impl<C: CheckpointStrategy> FusedAttention for Autodiff<Flex, C> {
        fn fused_attention(qkv: FloatTensor<Self>, heads: Heads, sequences: SequenceStarts) -> FloatTensor<Self> {
            let node = qkv.node();
            let qkv = contiguous(qkv.into_primitive());
            let (out, shape, log_sums) = attention_forward(&qkv, heads, &sequences);
            tracked::<C, _, _>([node], out.clone(), AttentionState { qkv, out, log_sums, shape, sequences })
        }
    }

    /// Queries of one block: keys above the diagonal are computed within a block only.
    const BLOCK: usize = 64;

    /// The shape of the input.
    #[derive(Clone, Copy, Debug)]
    struct Shape {
        heads: Heads,
        d_head: usize,
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

    /// A block of the queries of one head and the keys that some of them read; tokens are counted over the whole batch.
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
    fn longest(sequences: &SequenceStarts) -> usize {
        let [_, seq] = sequences.dims();
        let rows = sequences.starts().chunks_exact(seq);
        rows.flat_map(|row| row.chunk_by(|a, b| a == b)).map(<[_]>::len).max().unwrap_or(0)
    }

    /// Calls `f` for every block of every head of every sequence, in order.
    fn for_each_block(sequences: &SequenceStarts, heads: Heads, mut f: impl FnMut(Block)) {
        let [_, seq] = sequences.dims();
        for (row, starts) in sequences.starts().chunks_exact(seq).enumerate() {
            let mut start = 0;
            for sequence in starts.chunk_by(|a, b| a == b) {
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
        Matrix::row_major(&qkv[from * width + shape.offset(part, head)..], rows, shape.d_head, width)
    }

    /// What each token reads of `qkv`, and each query's logarithm of the sum of exponentials `[tokens, heads]`.
    fn forward(qkv: &[f32], shape: Shape, sequences: &SequenceStarts) -> (Vec<f32>, Vec<f32>) {
        let Shape { heads, d_head, .. } = shape;
        let width = shape.read_width();
        let tokens = sequences.starts().len();
        let (mut out, mut log_sums) = (vec![0.0; tokens * width], vec![0.0; tokens * heads.query]);
        let mut scores = vec![0.0; BLOCK * longest(sequences)];
        for_each_block(sequences, heads, |block| {
            let Block { head, start, query, queries, keys } = block;
            let scores = &mut scores[..queries * keys];
            let q = part(qkv, shape, 0, head, query, queries);
            let k = part(qkv, shape, 1, head, start, keys);
            write_product(scores, keys, q, k.transposed());
            for (index, row) in scores.chunks_exact_mut(keys).enumerate() {
                log_sums[(query + index) * heads.query + head] = softmax(row, block.seen(index), shape.scale());
            }
            let p = Matrix::row_major(scores, queries, keys, keys);
            let v = part(qkv, shape, 2, head, start, keys);
            write_product(&mut out[query * width + head * d_head..], width, p, v);
        });
        (out, log_sums)
    }

    /// The gradient of `qkv`; the probabilities are computed again.
    fn backward(
        qkv: &[f32],
        shape: Shape,
        sequences: &SequenceStarts,
        out: &[f32],
        log_sums: &[f32],
        dout: &[f32],
    ) -> Vec<f32> {
        let Shape { heads, d_head, .. } = shape;
        let (width, read_width) = (shape.width(), shape.read_width());
        let mut dqkv = vec![0.0; qkv.len()];
        let [mut scores, mut dscores] = [(); 2].map(|()| vec![0.0; BLOCK * longest(sequences)]);
        for_each_block(sequences, heads, |block| {
            let Block { head, start, query, queries, keys } = block;
            let (scores, dscores) = (&mut scores[..queries * keys], &mut dscores[..queries * keys]);
            let q = part(qkv, shape, 0, head, query, queries);
            let k = part(qkv, shape, 1, head, start, keys);
            let v = part(qkv, shape, 2, head, start, keys);
            let at = |token: usize| token * read_width + head * d_head;
            let g = Matrix::row_major(&dout[at(query)..], queries, d_head, read_width);
            write_product(scores, keys, q, k.transposed());
            write_product(dscores, keys, g, v.transposed());
            for (index, (row, drow)) in scores.chunks_exact_mut(keys).zip(dscores.chunks_exact_mut(keys)).enumerate() {
                let token = query + index;
                let head_of = at(token)..at(token) + d_head;
                let log_sum = log_sums[token * heads.query + head];
                let (out, dout) = (&out[head_of.clone()], &dout[head_of]);
                softmax_backward(row, drow, block.seen(index), shape.scale(), log_sum, out, dout);
            }
            let p = Matrix::row_major(scores, queries, keys, keys);
            let ds = Matrix::row_major(dscores, queries, keys, keys);
            let place = |part: usize, token: usize| token * width + shape.offset(part, head);
            write_product(&mut dqkv[place(0, query)..], width, ds, k);
            accumulate_product(&mut dqkv[place(1, start)..], width, ds.transposed(), q);
            accumulate_product(&mut dqkv[place(2, start)..], width, p.transposed(), g);
        });
        dqkv
    }
}
