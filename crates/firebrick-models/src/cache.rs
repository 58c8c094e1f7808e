//! What a decoder remembers of the tokens it has read.

use burn::tensor::{Int, Tensor, TensorData};

/// The keys and values of the tokens read so far, of a batch of sequences.
///
/// Prompts are filled at the right to a rectangle and read in one pass; every new token then gets a column of its own after
/// them, the same for all sequences. Columns between a prompt's end and the first new one are masked and hold no position, so
/// a sequence never sees the padding of its neighbours.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(crate) keys: Vec<Tensor<4>>,
    pub(crate) values: Vec<Tensor<4>>,
    /// Added to the attention scores: 0 where a column is real, −∞ (a large negative number) elsewhere.
    pub(crate) bias: Tensor<4>,
    /// The next column to fill.
    pub(crate) column: usize,
    /// The number of tokens each sequence has read.
    pub(crate) lengths: Vec<usize>,
}

impl KvCache {
    pub(crate) fn keep(&mut self, rows: &[usize]) {
        let device = self.bias.device();
        let index = rows.iter().map(|&row| row as i64).collect::<Vec<_>>();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &device);
        for tensor in self.keys.iter_mut().chain(&mut self.values) {
            *tensor = tensor.clone().select(0, index.clone());
        }
        self.bias = self.bias.clone().select(0, index);
        self.lengths = rows.iter().map(|&row| self.lengths[row]).collect();
    }
}
