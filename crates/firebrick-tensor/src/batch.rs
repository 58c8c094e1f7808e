//! Ragged token sequences as rectangular tensors.

use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_kernels::Reach;
use firebrick_types::TokenId;

use crate::{CausalLm, TokenValues, indices};

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

/// Sequences one after another, none of which sees another (no attention across them, positions from 0 in each).
///
/// There is no padding: what a model reads are the tokens that predict one, all of each sequence but its last.
#[derive(Clone, Debug)]
pub struct PackedBatch {
    inputs: Tensor<2, Int>,
    targets: Tensor<1, Int>,
    reach: Reach,
    tokens: usize,
}

impl PackedBatch {
    /// The batch of these sequences.
    ///
    /// # Panics
    /// If no sequence has two tokens.
    pub fn of<S: AsRef<[TokenId]>>(sequences: &[S], device: &Device) -> Self {
        let (mut inputs, mut targets, mut first) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in sequences {
            let sequence = sequence.as_ref();
            let start = inputs.len();
            inputs.extend(sequence.iter().take(sequence.len().saturating_sub(1)).map(|&id| i64::from(id)));
            targets.extend(sequence.iter().skip(1).map(|&id| i64::from(id)));
            first.resize(inputs.len(), start);
        }
        let count = inputs.len();
        assert!(count > 0, "no sequence of a batch has two tokens");
        Self {
            inputs: Tensor::from_data(TensorData::new(inputs, [1, count]), device),
            targets: Tensor::from_data(TensorData::new(targets, [count]), device),
            reach: Reach::packed(first, count),
            tokens: sequences.iter().map(|sequence| sequence.as_ref().len()).sum(),
        }
    }

    /// The token ids that a model reads, in one row: `[1, targets]`.
    pub fn inputs(&self) -> &Tensor<2, Int> {
        &self.inputs
    }

    /// The token that follows each of the inputs, `[targets]`.
    pub fn targets(&self) -> &Tensor<1, Int> {
        &self.targets
    }

    /// Where each of the inputs begins to read.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The tokens of all sequences, the last ones too.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Prompts with their responses, and where the response tokens are predicted; numbers of response tokens stand in one row, those of
/// one response after those of another: `[1, responses]`.
#[derive(Clone, Debug)]
pub struct ResponseBatch {
    tokens: TokenBatch,
    places: Vec<usize>,
    responses: Tensor<2, Int>,
    lengths: Vec<usize>,
}

impl ResponseBatch {
    /// The batch of these prompts and responses.
    ///
    /// # Panics
    /// If there is none, or an empty prompt.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a [TokenId], &'a [TokenId])>, device: &Device) -> Self {
        let pairs = pairs.into_iter().collect::<Vec<_>>();
        assert!(pairs.iter().all(|(prompt, _)| !prompt.is_empty()), "a prompt is empty");
        let sequences = pairs.iter().map(|(prompt, response)| [*prompt, response].concat()).collect::<Vec<_>>();
        let tokens = TokenBatch::from_ragged(&sequences, device);
        let [_, seq] = tokens.dims();
        let places = pairs.iter().enumerate().flat_map(|(row, (prompt, response))| {
            let first = row * (seq - 1) + prompt.len() - 1;
            first..first + response.len()
        });
        let places = places.collect::<Vec<_>>();
        let responses = pairs.iter().flat_map(|(_, response)| *response).map(|&id| i64::from(id)).collect::<Vec<_>>();
        let responses = Tensor::from_data(TensorData::new(responses, [1, places.len()]), device);
        let lengths = pairs.iter().map(|(_, response)| response.len()).collect();
        Self { tokens, places, responses, lengths }
    }

    /// The logits that response tokens are drawn from, `[1, responses, vocab]`.
    pub fn logits<M: CausalLm>(&self, model: &M, temperature: f64) -> Tensor<3> {
        let logits = model.logits_at(self.tokens.inputs(), &self.places);
        if temperature == 1.0 { logits.unsqueeze() } else { (logits / temperature).unsqueeze() }
    }

    /// The values before response tokens.
    pub fn values<V: TokenValues>(&self, critic: &V) -> Tensor<2> {
        let values = critic.values(self.tokens.inputs());
        let places = indices(&self.places, &values.device());
        values.flatten::<1>(0, 1).select(0, places).unsqueeze()
    }

    /// The response tokens.
    pub fn responses(&self) -> Tensor<2, Int> {
        self.responses.clone()
    }

    /// A number of each response token as a tensor.
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn joined<'a>(&self, rows: impl Iterator<Item = &'a [f32]>) -> Tensor<2> {
        let numbers = rows.flatten().copied().collect::<Vec<_>>();
        Tensor::from_data(TensorData::new(numbers, [1, self.places.len()]), &self.tokens.device())
    }

    /// The inverse of [`joined`](Self::joined).
    pub fn apart(&self, tensor: Tensor<2>) -> Vec<Vec<f32>> {
        let numbers = tensor.without_autodiff().into_data().try_to_vec::<f32>().expect("tensors are f32");
        let mut rest = numbers.as_slice();
        let row = |&length: &usize| rest.split_off(..length).expect("a number of each response token").to_vec();
        self.lengths.iter().map(row).collect()
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

    #[test]
    fn numbers_of_responses_are_joined_and_come_apart() {
        let (long, short): (&[TokenId], &[TokenId]) = (&[5, 6, 7], &[8]);
        let batch = ResponseBatch::of([(short, long), (long, short)], &Device::flex());
        // Rows of three inputs: 8 5 6 and 5 6 7; the second response is predicted by the last of its row.
        assert_eq!(batch.places, [0, 1, 2, 5]);
        assert_eq!(batch.responses().to_data().iter::<i64>().collect::<Vec<_>>(), [5, 6, 7, 8]);
        let rows = [vec![0.5, 1.5, 2.5], vec![3.5]];
        assert_eq!(batch.apart(batch.joined(rows.iter().map(Vec::as_slice))), rows);
    }
}
