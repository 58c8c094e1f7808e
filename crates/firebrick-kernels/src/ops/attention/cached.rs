//! Attention through a cache of keys and values.

use burn::tensor::{Device, Tensor, TensorData, activation};

use super::chunk::Chunk;
use super::heads::Heads;
#[cfg(feature = "flex")]
use super::host::HostKeyValues;
#[cfg(feature = "flex")]
use crate::flex::is_flex;

/// What new tokens read of their sequences up to themselves, head by head; the cache keeps their keys and values.
///
/// The same numbers as [`attention`](crate::attention) over the whole sequences gives them; with the feature `flex`, the same bits.
///
/// # Shapes
/// - `qkv`: `[tokens, heads.all() d_head]`, the new tokens of one chunk after another
/// - returns `[tokens, heads.query d_head]`
///
/// # Panics
/// If the heads do not divide the width or each other, the chunks are of other tokens, a chunk is empty, or the cache has no
/// such slot or no room.
pub fn attention_cached(qkv: Tensor<2>, heads: Heads, cache: &mut KeyValues, chunks: &[Chunk]) -> Tensor<2> {
    let [tokens, width] = qkv.dims();
    assert!(width.is_multiple_of(heads.all()), "{} heads do not divide a width of {width}", heads.all());
    assert!(heads.query.is_multiple_of(heads.key_value), "{heads:?}: the second must divide the first");
    assert_eq!(chunks.iter().map(|chunk| chunk.tokens).sum::<usize>(), tokens, "tokens of the chunks");
    assert!(chunks.iter().all(|chunk| chunk.tokens > 0), "a chunk is empty");
    cache.attention(qkv, heads, chunks)
}

/// The keys and values of one layer, of as many sequences as there are slots.
///
/// Sequences are independent: each has its own length, and may be dropped or copied while others go on.
#[derive(Debug)]
pub struct KeyValues(Store);

#[derive(Debug)]
enum Store {
    #[cfg(feature = "flex")]
    Host(HostKeyValues),
    Device(Box<OnDevice>),
}

impl KeyValues {
    /// Room for this many sequences of up to `capacity` tokens, each with the keys and values of so many heads of `d_head` numbers.
    pub fn new(slots: usize, capacity: usize, key_value_heads: usize, d_head: usize, device: &Device) -> Self {
        #[cfg(feature = "flex")]
        if is_flex(device) {
            return Self(Store::Host(HostKeyValues::new(slots, capacity, key_value_heads, d_head)));
        }
        let room = || Tensor::zeros([slots, capacity, key_value_heads * d_head], device);
        Self(Store::Device(Box::new(OnDevice { keys: room(), values: room() })))
    }

    /// Copies the keys and values of the first `tokens` tokens of slot `from` to slot `to`.
    ///
    /// # Panics
    /// If there are no such slots.
    pub fn copy(&mut self, from: usize, to: usize, tokens: usize) {
        match &mut self.0 {
            #[cfg(feature = "flex")]
            Store::Host(host) => host.copy(from, to, tokens),
            Store::Device(device) => device.copy(from, to, tokens),
        }
    }

    fn attention(&mut self, qkv: Tensor<2>, heads: Heads, chunks: &[Chunk]) -> Tensor<2> {
        match &mut self.0 {
            #[cfg(feature = "flex")]
            Store::Host(host) => {
                let ([tokens, width], device) = (qkv.dims(), qkv.device());
                let d_head = width / heads.all();
                let qkv = qkv.into_data().try_to_vec::<f32>().expect("queries, keys and values are f32");
                let read = host.attention(&qkv, heads, d_head, chunks);
                Tensor::from_data(TensorData::new(read, [tokens, heads.query * d_head]), &device)
            }
            Store::Device(device) => device.attention(&qkv, heads, chunks),
        }
    }
}

/// Tensors `[slots, capacity, width]`.
#[derive(Debug)]
struct OnDevice {
    keys: Tensor<3>,
    values: Tensor<3>,
}

impl OnDevice {
    fn copy(&mut self, from: usize, to: usize, tokens: usize) {
        for tensor in [&mut self.keys, &mut self.values] {
            let [_, _, width] = tensor.dims();
            let copied = tensor.clone().slice([from..from + 1, 0..tokens, 0..width]);
            *tensor = tensor.clone().slice_assign([to..to + 1, 0..tokens, 0..width], copied);
        }
    }

    fn attention(&mut self, qkv: &Tensor<2>, heads: Heads, chunks: &[Chunk]) -> Tensor<2> {
        let [_, width] = qkv.dims();
        let d_head = width / heads.all();
        let shared = heads.query / heads.key_value;
        let kept = heads.key_value * d_head;
        let mut row = 0;
        let read = chunks.iter().map(|&Chunk { slot, past, tokens }| {
            let new = qkv.clone().slice([row..row + tokens, 0..width]);
            row += tokens;
            let whole = past + tokens;
            let part =
                |from: usize, heads: usize| new.clone().slice([0..tokens, from * d_head..(from + heads) * d_head]);
            let [k, v] = [(heads.query, &mut self.keys), (heads.query + heads.key_value, &mut self.values)].map(
                |(from, cache)| {
                    let new = part(from, heads.key_value).unsqueeze::<3>();
                    *cache = cache.clone().slice_assign([slot..slot + 1, past..whole, 0..kept], new);
                    let read = cache.clone().slice([slot..slot + 1, 0..whole, 0..kept]);
                    // [key_value heads, 1, tokens, d_head], one for all queries that share it.
                    read.reshape([whole, heads.key_value, 1, d_head]).permute([1, 2, 0, 3])
                },
            );
            let q = part(0, heads.query).reshape([tokens, heads.key_value, shared, d_head]).permute([1, 2, 0, 3]);
            let scores = (q * (d_head as f64).powf(-0.5)).matmul(k.swap_dims(2, 3));
            // The token at `past + i` does not read what comes after it.
            let hidden = Tensor::<2>::ones([tokens, whole], &qkv.device()).triu(past as i64 + 1) * -1e9;
            let read = activation::softmax(scores + hidden.unsqueeze::<4>(), 3).matmul(v);
            read.permute([2, 0, 1, 3]).reshape([tokens, heads.query * d_head])
        });
        Tensor::cat(read.collect(), 0)
    }
}

#[cfg(test)]
mod tests {
    use firebrick_testkit::assert_close;

    use super::super::causal::plain;
    use super::super::sequence_starts::SequenceStarts;
    use super::*;

    #[test]
    fn a_cache_of_tensors_gives_what_attention_over_whole_rows_does() {
        for (heads, d_head) in [(Heads::same(2), 4), (Heads { query: 6, key_value: 2 }, 3)] {
            let width = heads.all() * d_head;
            let numbers = (0..2 * 6 * width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0).collect::<Vec<_>>();
            let rows = Tensor::<3>::from_data(TensorData::new(numbers, [2, 6, width]), &Device::flex());
            let whole = plain::attention(rows.clone(), heads, &SequenceStarts::causal(2, 6));
            let room = || Tensor::zeros([3, 6, heads.key_value * d_head], &Device::flex());
            let mut cache = KeyValues(Store::Device(Box::new(OnDevice { keys: room(), values: room() })));
            let part = |tensor: &Tensor<3>, row: usize, from: usize, to: usize| {
                let [_, _, width] = tensor.dims();
                tensor.clone().slice([row..row + 1, from..to, 0..width]).reshape([to - from, width])
            };
            // Two sequences side by side, one of them copied half-way.
            for (pieces, copy) in
                [([(0, 2, 0, 3), (1, 0, 0, 2)], Some((0, 1, 2))), ([(0, 2, 3, 6), (1, 1, 2, 6)], None)]
            {
                let new = pieces.iter().map(|&(row, _, from, to)| part(&rows, row, from, to)).collect();
                let chunks = pieces.map(|(_, slot, from, to)| Chunk { slot, past: from, tokens: to - from });
                let read = cache.attention(Tensor::cat(new, 0), heads, &chunks);
                let expected = pieces.iter().map(|&(row, _, from, to)| part(&whole, row, from, to)).collect();
                assert_close(read, Tensor::cat(expected, 0), 1e-5);
                if let Some((from, to, tokens)) = copy {
                    cache.copy(from, to, tokens);
                }
            }
        }
    }
}
