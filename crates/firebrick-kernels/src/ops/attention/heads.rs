//! Heads of queries, keys and values.

/// How many heads ask, and how many answer: with fewer keys and values than queries, neighbouring queries share them.
///
/// Ainslie et al. 2023, [arXiv:2305.13245](https://arxiv.org/abs/2305.13245).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads of queries.
    pub query: usize,
    /// Heads of keys, and as many of values; they divide those of queries.
    pub key_value: usize,
}

impl Heads {
    /// As many heads of keys and values as of queries.
    pub fn same(heads: usize) -> Self {
        Self { query: heads, key_value: heads }
    }

    /// Heads of queries, keys and values together.
    pub fn all(&self) -> usize {
        self.query + 2 * self.key_value
    }
}
