//! Tokens that are read next through a cache.

/// Some tokens that a sequence reads next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The sequence's place in the cache.
    pub slot: usize,
    /// The tokens it has read before.
    pub past: usize,
    /// The tokens it reads now.
    pub tokens: usize,
}
