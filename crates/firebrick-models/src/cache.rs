//! What a decoder remembers of the tokens it has read.

use firebrick_kernels::KeyValues;

/// The keys and values of the tokens read so far, of the sequences in each slot.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<KeyValues>,
    /// The number of tokens that each slot's sequence has read.
    pub(crate) lengths: Vec<usize>,
}
