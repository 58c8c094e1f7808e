//! Keys and values in plain memory, and attention that reads them.

use rayon::prelude::*;

use super::chunk::Chunk;
use super::heads::Heads;
use super::softmax::softmax;
use crate::gemm::{Matrix, Panels, write_product, write_product_of_panels};

/// The keys and values of each slot's tokens.
#[derive(Debug)]
pub(super) struct HostKeyValues {
    slots: Vec<Slot>,
    capacity: usize,
    d_head: usize,
}

#[derive(Debug)]
struct Slot {
    /// Of each head, as products read them.
    keys: Vec<Panels>,
    /// Of each head, a row of each token.
    values: Vec<Vec<f32>>,
}

/// Queries that are treated at a time.
const BLOCK: usize = 64;

impl HostKeyValues {
    /// Memory is set aside here; the system provides it when it is first used.
    pub(super) fn new(slots: usize, capacity: usize, key_value_heads: usize, d_head: usize) -> Self {
        let slot = |_| Slot {
            keys: (0..key_value_heads).map(|_| Panels::new(d_head, capacity)).collect(),
            values: (0..key_value_heads).map(|_| Vec::with_capacity(capacity * d_head)).collect(),
        };
        Self { slots: (0..slots).map(slot).collect(), capacity, d_head }
    }

    pub(super) fn copy(&mut self, from: usize, to: usize, tokens: usize) {
        let [from, to] = self.slots.get_disjoint_mut([from, to]).expect("two slots of the cache");
        to.keys.iter_mut().zip(&from.keys).for_each(|(to, from)| to.copy_from(from, tokens));
        for (to, from) in to.values.iter_mut().zip(&from.values) {
            to.clear();
            to.extend_from_slice(&from[..tokens * self.d_head]);
        }
    }

    /// Keeps the keys and values of new tokens, then lets their queries read.
    pub(super) fn attention(&mut self, qkv: &[f32], heads: Heads, d_head: usize, chunks: &[Chunk]) -> Vec<f32> {
        assert!(self.slots.iter().all(|slot| slot.keys.len() == heads.key_value), "a cache of other heads");
        assert_eq!(d_head, self.d_head, "a cache of other heads");
        let mut rest = qkv;
        for &Chunk { slot, past, tokens } in chunks {
            let (new, others) = rest.split_at(tokens * heads.all() * d_head);
            rest = others;
            let capacity = self.capacity;
            assert!(past + tokens <= capacity, "{past} and {tokens} tokens in a cache of {capacity}");
            let Slot { keys, values } = &mut self.slots[slot];
            assert!(
                values.iter().all(|values| values.len() >= past * d_head),
                "slot {slot} holds fewer than {past} tokens"
            );
            keys.iter_mut().for_each(|keys| keys.truncate(past));
            values.iter_mut().for_each(|values| values.truncate(past * d_head));
            for token in new.chunks_exact(heads.all() * d_head) {
                let (k, v) = token[heads.query * d_head..].split_at(heads.key_value * d_head);
                keys.iter_mut().zip(k.chunks_exact(d_head)).for_each(|(keys, k)| keys.push(k));
                values.iter_mut().zip(v.chunks_exact(d_head)).for_each(|(values, v)| values.extend_from_slice(v));
            }
        }
        let mut out = vec![0.0; qkv.len() / heads.all() * heads.query];
        let (mut work, mut queries, mut written) = (Vec::new(), qkv, &mut *out);
        for &chunk in chunks {
            let (new, others) = queries.split_at(chunk.tokens * heads.all() * d_head);
            let (to, others_written) = written.split_at_mut(chunk.tokens * heads.query * d_head);
            (queries, written) = (others, others_written);
            work.push((chunk, new, to));
        }
        let read = |(chunk, new, to): (Chunk, &[f32], &mut [f32])| self.slots[chunk.slot].read(new, heads, chunk, to);
        if work.len() > 1 && rayon::current_num_threads() > 1 {
            work.into_par_iter().for_each(read);
        } else {
            work.into_iter().for_each(read);
        }
        out
    }
}

impl Slot {
    /// Attention of the queries of `new` tokens over this sequence.
    fn read(&self, new: &[f32], heads: Heads, chunk: Chunk, out: &mut [f32]) {
        let d_head = new.len() / chunk.tokens / heads.all();
        let (width, read_width) = (heads.all() * d_head, heads.query * d_head);
        let shared = heads.query / heads.key_value;
        let scale = 1.0 / (d_head as f32).sqrt();
        let mut scores = Vec::new();
        for kv in 0..heads.key_value {
            for block in (0..chunk.tokens).step_by(BLOCK) {
                let queries = BLOCK.min(chunk.tokens - block);
                let whole = chunk.past + block + queries;
                let v = Matrix::row_major(&self.values[kv], whole, d_head, d_head);
                // The queries of one token that share a head lie side by side; of several tokens, those of a head do.
                let groups: &[_] = if queries == 1 { &[(shared, d_head)] } else { &vec![(queries, width); shared] };
                for (group, &(rows, stride)) in groups.iter().enumerate() {
                    let head = kv * shared + group;
                    let q = Matrix::row_major(&new[block * width + head * d_head..], rows, d_head, stride);
                    scores.resize(rows * whole, 0.0);
                    write_product_of_panels(&mut scores, whole, q, &self.keys[kv], whole);
                    for (index, row) in scores.chunks_exact_mut(whole).enumerate() {
                        softmax(row, if queries == 1 { whole } else { chunk.past + block + index + 1 }, scale);
                    }
                    let p = Matrix::row_major(&scores, rows, whole, whole);
                    let to = &mut out[block * read_width + head * d_head..];
                    write_product(to, if queries == 1 { d_head } else { read_width }, p, v);
                }
            }
        }
    }
}
