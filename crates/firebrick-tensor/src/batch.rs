//! Ragged token sequences as rectangular tensors.

use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_kernels::Reach;
use firebrick_types::TokenId;

/// Which positions count: 1 where they do, 0 where they do not.
///
/// There is no other polarity anywhere (T-14).
///
/// Shape `[batch, seq]`.
#[derive(Clone, Debug)]
pub struct Mask(Tensor<2>);

impl Mask {
    /// A mask of rows of claims that a position counts; shorter rows are filled with positions that do not.
    ///
    /// # Panics
    /// If there is no row.
    pub fn from_rows(rows: &[Vec<bool>], device: &Device) -> Self {
        assert!(!rows.is_empty(), "a mask needs at least one row");
        let seq = rows.iter().map(Vec::len).max().unwrap_or(0);
        let flags = rows
            .iter()
            .flat_map(|row| (0..seq).map(|index| f32::from(u8::from(row.get(index).copied().unwrap_or(false)))))
            .collect::<Vec<f32>>();
        Self(Tensor::from_data(TensorData::new(flags, [rows.len(), seq]), device))
    }

    /// A mask whose row `i` counts positions `spans[i].0..spans[i].1` of `seq`.
    pub fn from_spans(spans: &[(usize, usize)], seq: usize, device: &Device) -> Self {
        let rows = spans
            .iter()
            .map(|&(start, end)| (0..seq).map(|index| (start..end).contains(&index)).collect())
            .collect::<Vec<Vec<bool>>>();
        Self::from_rows(&rows, device)
    }

    /// The mask as numbers, 0 or 1.
    pub fn tensor(&self) -> Tensor<2> {
        self.0.clone()
    }

    /// How many positions count in each row.
    pub fn sums(&self) -> Vec<f32> {
        self.0.clone().sum_dim(1).into_data().try_to_vec().expect("masks are f32")
    }

    /// How many positions count in all.
    pub fn total(&self) -> f32 {
        self.0.clone().sum().into_scalar::<f32>()
    }

    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        self.0.dims()
    }
}

/// Sequences of token ids, filled at the right to a rectangle; the mask counts the real ones.
///
/// What is filled in is token 0, which no computation sees: attention is causal, and every reduction takes the mask.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    ids: Tensor<2, Int>,
    mask: Mask,
    lengths: Vec<usize>,
}

impl TokenBatch {
    /// The batch of these sequences.
    ///
    /// # Panics
    /// If there is no sequence, or an empty one.
    pub fn from_ragged<S: AsRef<[TokenId]>>(sequences: &[S], device: &Device) -> Self {
        assert!(!sequences.is_empty(), "a batch needs at least one sequence");
        let lengths = sequences.iter().map(|sequence| sequence.as_ref().len()).collect::<Vec<_>>();
        assert!(lengths.iter().all(|&length| length > 0), "a sequence of a batch is empty");
        let seq = lengths.iter().copied().max().unwrap_or(0);
        let mut ids = vec![0_i64; sequences.len() * seq];
        for (row, sequence) in sequences.iter().enumerate() {
            for (column, &id) in sequence.as_ref().iter().enumerate() {
                ids[row * seq + column] = i64::from(id);
            }
        }
        let spans = lengths.iter().map(|&length| (0, length)).collect::<Vec<_>>();
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [sequences.len(), seq]), device),
            mask: Mask::from_spans(&spans, seq, device),
            lengths,
        }
    }

    /// The token ids, `[batch, seq]`.
    pub fn ids(&self) -> &Tensor<2, Int> {
        &self.ids
    }

    /// Which ids are real, `[batch, seq]`.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The length of each sequence, in tokens.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// `[batch, seq]`.
    pub fn dims(&self) -> [usize; 2] {
        self.ids.dims()
    }

    /// The device of the tensors.
    pub fn device(&self) -> Device {
        self.ids.device()
    }

    /// The ids that a model reads to predict [`targets`](Self::targets): all but the last column, `[batch, seq - 1]`.
    pub fn inputs(&self) -> Tensor<2, Int> {
        let [batch, seq] = self.dims();
        self.ids.clone().slice([0..batch, 0..seq - 1])
    }

    /// The ids to predict: all but the first column, `[batch, seq - 1]`.
    pub fn targets(&self) -> Tensor<2, Int> {
        let [batch, seq] = self.dims();
        self.ids.clone().slice([0..batch, 1..seq])
    }

    /// Which of the [`targets`](Self::targets) are real, `[batch, seq - 1]`.
    pub fn target_mask(&self) -> Mask {
        let [batch, seq] = self.dims();
        Mask(self.mask.tensor().slice([0..batch, 1..seq]))
    }
}

/// Several short sequences in each row, none of which sees another (no attention across them, positions from 0 in each).
#[derive(Clone, Debug)]
pub struct PackedBatch {
    ids: Tensor<2, Int>,
    positions: Tensor<2, Int>,
    reach: Reach,
    target_mask: Mask,
    tokens: usize,
}

impl PackedBatch {
    /// The batch of these rows of sequences, filled at the right to `seq` columns.
    ///
    /// # Panics
    /// If there is no row or a row is longer than `seq`.
    pub fn from_rows(rows: &[Vec<&[TokenId]>], seq: usize, device: &Device) -> Self {
        assert!(!rows.is_empty(), "a batch needs at least one row");
        let cells = rows.len() * seq;
        let (mut ids, mut positions) = (vec![0_i64; cells], vec![0_i64; cells]);
        let mut first = vec![0; cells];
        let mut targets = vec![vec![false; seq - 1]; rows.len()];
        let mut tokens = 0;
        for (row, sequences) in rows.iter().enumerate() {
            let mut start = 0;
            for sequence in sequences {
                assert!(start + sequence.len() <= seq, "row {row} is longer than {seq} tokens");
                for (position, &id) in sequence.iter().enumerate() {
                    let cell = row * seq + start + position;
                    ids[cell] = i64::from(id);
                    positions[cell] = position as i64;
                    first[cell] = start;
                    if position > 0 {
                        targets[row][start + position - 1] = true;
                    }
                }
                start += sequence.len();
            }
            tokens += start;
            // What is filled in sees itself alone, so that no row of the attention is empty.
            (start..seq).for_each(|column| first[row * seq + column] = column);
        }
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [rows.len(), seq]), device),
            positions: Tensor::from_data(TensorData::new(positions, [rows.len(), seq]), device),
            reach: Reach::packed(first, seq),
            target_mask: Mask::from_rows(&targets, device),
            tokens,
        }
    }

    /// The token ids, `[batch, seq]`.
    pub fn ids(&self) -> &Tensor<2, Int> {
        &self.ids
    }

    /// Each token's place in its own sequence, `[batch, seq]`.
    pub fn positions(&self) -> &Tensor<2, Int> {
        &self.positions
    }

    /// Where each position begins to read.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Which positions have a next token in their own sequence, `[batch, seq - 1]`.
    pub fn target_mask(&self) -> &Mask {
        &self.target_mask
    }

    /// The ids to predict: all but the first column, `[batch, seq - 1]`.
    pub fn targets(&self) -> Tensor<2, Int> {
        let [batch, seq] = self.ids.dims();
        self.ids.clone().slice([0..batch, 1..seq])
    }

    /// Real tokens in all.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ragged_rows_are_filled_at_the_right() {
        let batch = TokenBatch::from_ragged(&[vec![5, 6, 7], vec![8]], &Device::flex());
        assert_eq!(batch.ids().to_data().iter::<i64>().collect::<Vec<_>>(), [5, 6, 7, 8, 0, 0]);
        assert_eq!(batch.mask().tensor().to_data().try_to_vec::<f32>().unwrap(), [1., 1., 1., 1., 0., 0.]);
        assert_eq!(batch.target_mask().sums(), [2.0, 0.0]);
    }

    #[test]
    fn spans_count_their_own_positions_only() {
        let mask = Mask::from_spans(&[(1, 3), (0, 0)], 4, &Device::flex());
        assert_eq!(mask.tensor().to_data().try_to_vec::<f32>().unwrap(), [0., 1., 1., 0., 0., 0., 0., 0.]);
    }

    #[test]
    #[should_panic(expected = "a sequence of a batch is empty")]
    fn an_empty_sequence_is_a_bug_of_the_caller() {
        TokenBatch::from_ragged(&[vec![1], vec![]], &Device::flex());
    }
}
