//! Ragged token sequences as tensors.

use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_kernels::SequenceStarts;
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

    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        self.0.dims()
    }
}

/// Sequences of token ids one after another, none of which sees another (no attention across them, positions from 0 in each).
///
/// There is no padding: a number of each token stands in one row `[tokens]`, those of one sequence after those of another.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    ids: Vec<TokenId>,
    lengths: Vec<usize>,
    starts: SequenceStarts,
    device: Device,
}

impl TokenBatch {
    /// The batch of these sequences.
    ///
    /// # Panics
    /// If there is no sequence, or an empty one.
    pub fn of<S: AsRef<[TokenId]>>(sequences: &[S], device: &Device) -> Self {
        assert!(!sequences.is_empty(), "a batch needs at least one sequence");
        let (mut ids, mut lengths, mut first) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in sequences {
            let (sequence, start) = (sequence.as_ref(), ids.len());
            assert!(!sequence.is_empty(), "a sequence of a batch is empty");
            ids.extend_from_slice(sequence);
            lengths.push(sequence.len());
            first.resize(ids.len(), start);
        }
        let tokens = ids.len();
        Self { ids, lengths, starts: SequenceStarts::packed(first, tokens), device: device.clone() }
    }

    /// The token ids, `[tokens]`.
    pub fn ids(&self) -> Tensor<1, Int> {
        int_tensor(&self.ids, &self.device)
    }

    /// The sequences.
    pub fn sequences(&self) -> impl Iterator<Item = &[TokenId]> {
        let mut rest = self.ids.as_slice();
        self.lengths.iter().map(move |&length| rest.split_off(..length).expect("lengths are those of the sequences"))
    }

    /// The length of each sequence, in tokens.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Where each token begins to read.
    pub fn sequence_starts(&self) -> &SequenceStarts {
        &self.starts
    }

    /// The device of the tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The position of the last token of each sequence.
    pub fn last(&self) -> Vec<usize> {
        self.lengths
            .iter()
            .scan(0, |end, length| {
                Some({
                    *end += length;
                    *end - 1
                })
            })
            .collect()
    }

    /// The tokens that a model reads to predict [`targets`](Self::targets): all of each sequence but its last. Sequences of one token
    /// are left out.
    ///
    /// # Panics
    /// If no sequence has two tokens.
    pub fn inputs(&self) -> Self {
        let inputs =
            self.sequences().map(|sequence| &sequence[..sequence.len() - 1]).filter(|inputs| !inputs.is_empty());
        let inputs = inputs.collect::<Vec<_>>();
        assert!(!inputs.is_empty(), "no sequence of a batch has two tokens");
        Self::of(&inputs, &self.device)
    }

    /// The tokens to predict, `[targets]`: all of each sequence but its first.
    pub fn targets(&self) -> Tensor<1, Int> {
        let targets = self.sequences().flat_map(|sequence| &sequence[1..]).copied().collect::<Vec<_>>();
        int_tensor(&targets, &self.device)
    }
}

fn int_tensor(ids: &[TokenId], device: &Device) -> Tensor<1, Int> {
    let ids = ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>();
    let count = ids.len();
    Tensor::from_data(TensorData::new(ids, [count]), device)
}

/// Prompts with their responses, and where the response tokens are predicted; numbers of response tokens stand in one row, those of
/// one response after those of another: `[responses]`.
#[derive(Clone, Debug)]
pub struct ResponseBatch {
    /// All but the last token of each response.
    read: TokenBatch,
    positions: Vec<usize>,
    responses: Tensor<1, Int>,
    lengths: Vec<usize>,
}

impl ResponseBatch {
    /// The batch of these prompts and responses.
    ///
    /// # Panics
    /// If there is none, or an empty prompt.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a [TokenId], &'a [TokenId])>, device: &Device) -> Self {
        let pairs = pairs.into_iter().collect::<Vec<_>>();
        let (mut read, mut positions, mut tokens) = (Vec::new(), Vec::new(), 0);
        for (prompt, response) in &pairs {
            assert!(!prompt.is_empty(), "a prompt is empty");
            let first = tokens + prompt.len() - 1;
            positions.extend(first..first + response.len());
            read.push([prompt, &response[..response.len().saturating_sub(1)]].concat());
            tokens += read.last().map_or(0, Vec::len);
        }
        let responses = pairs.iter().flat_map(|(_, response)| *response).copied().collect::<Vec<_>>();
        let responses = int_tensor(&responses, device);
        let lengths = pairs.iter().map(|(_, response)| response.len()).collect();
        Self { read: TokenBatch::of(&read, device), positions, responses, lengths }
    }

    /// The logits that response tokens are drawn from, `[responses, vocab]`.
    pub fn logits<M: CausalLm>(&self, model: &M, temperature: f64) -> Tensor<2> {
        let logits = model.logits_at(&self.read, &self.positions);
        if temperature == 1.0 { logits } else { logits / temperature }
    }

    /// The values before response tokens, `[responses]`.
    pub fn values<V: TokenValues>(&self, critic: &V) -> Tensor<1> {
        let values = critic.values(&self.read);
        let positions = indices(&self.positions, &values.device());
        values.select(0, positions)
    }

    /// The response tokens, `[responses]`.
    pub fn responses(&self) -> Tensor<1, Int> {
        self.responses.clone()
    }

    /// The length of each response, in tokens.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// A number of each response token as a tensor, `[responses]`.
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn from_rows<'a>(&self, rows: impl Iterator<Item = &'a [f32]>) -> Tensor<1> {
        let numbers = rows.flatten().copied().collect::<Vec<_>>();
        Tensor::from_data(TensorData::new(numbers, [self.positions.len()]), self.read.device())
    }

    /// The inverse of [`from_rows`](Self::from_rows).
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn split_by_response(&self, tensor: Tensor<1>) -> Vec<Vec<f32>> {
        let numbers = tensor.without_autodiff().into_data().try_to_vec::<f32>().expect("tensors are f32");
        let mut rest = numbers.as_slice();
        let row = |&length: &usize| rest.split_off(..length).expect("a number of each response token").to_vec();
        let rows = self.lengths.iter().map(row).collect();
        assert!(rest.is_empty(), "{} numbers of no response token", rest.len());
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(ids: Tensor<1, Int>) -> Vec<i64> {
        ids.to_data().iter::<i64>().collect()
    }

    #[test]
    fn sequences_stand_one_after_another_and_none_sees_another() {
        let batch = TokenBatch::of(&[vec![5, 6, 7], vec![8], vec![9, 4]], &Device::flex());
        assert_eq!(numbers(batch.ids()), [5, 6, 7, 8, 9, 4]);
        assert_eq!((batch.lengths(), batch.tokens(), batch.last()), (&[3, 1, 2][..], 6, vec![2, 3, 5]));
        assert_eq!(
            (batch.sequence_starts().starts(), batch.sequence_starts().positions()),
            (&[0, 0, 0, 3, 4, 4][..], vec![0, 1, 2, 0, 0, 1])
        );
    }

    /// A sequence of one token predicts nothing and is predicted by nothing.
    #[test]
    fn every_token_but_the_first_of_a_sequence_is_predicted() {
        let batch = TokenBatch::of(&[vec![5, 6, 7], vec![8], vec![9, 4]], &Device::flex());
        assert_eq!((numbers(batch.inputs().ids()), batch.inputs().lengths()), (vec![5, 6, 9], &[2, 1][..]));
        assert_eq!(numbers(batch.targets()), [6, 7, 4]);
    }

    #[test]
    fn spans_count_their_own_positions_only() {
        let mask = Mask::from_spans(&[(1, 3), (0, 0)], 4, &Device::flex());
        assert_eq!(mask.tensor().to_data().try_to_vec::<f32>().unwrap(), [0., 1., 1., 0., 0., 0., 0., 0.]);
    }

    #[test]
    #[should_panic(expected = "a sequence of a batch is empty")]
    fn an_empty_sequence_is_a_bug_of_the_caller() {
        TokenBatch::of(&[vec![1], vec![]], &Device::flex());
    }

    #[test]
    fn numbers_of_responses_make_one_row_and_are_split_again() {
        let (long, short): (&[TokenId], &[TokenId]) = (&[5, 6, 7], &[8]);
        let batch = ResponseBatch::of([(short, long), (long, short)], &Device::flex());
        // 8 5 6 and 5 6 7 are read; the second response is predicted by the last of them.
        assert_eq!((numbers(batch.read.ids()), &batch.positions[..]), (vec![8, 5, 6, 5, 6, 7], &[0, 1, 2, 5][..]));
        assert_eq!(batch.responses().to_data().iter::<i64>().collect::<Vec<_>>(), [5, 6, 7, 8]);
        let rows = [vec![0.5, 1.5, 2.5], vec![3.5]];
        assert_eq!(batch.split_by_response(batch.from_rows(rows.iter().map(Vec::as_slice))), rows);
    }
}
