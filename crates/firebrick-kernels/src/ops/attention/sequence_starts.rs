//! The mask of attention.

use std::sync::Arc;

/// The first position of each position's own sequence: a block-diagonal causal mask.
///
/// Position `p` of a row attends to positions `starts[p] ..= p` of that row. In a row that holds one sequence the start is 0
/// everywhere; in a packed row it is where the position's own sequence starts, so that none sees another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceStarts {
    starts: Arc<[usize]>,
    seq: usize,
}

impl SequenceStarts {
    /// One sequence in each of `batch` rows of `seq` positions.
    pub fn causal(batch: usize, seq: usize) -> Self {
        Self { starts: vec![0; batch * seq].into(), seq }
    }

    /// Rows of several sequences; `starts` holds `seq` positions of each row.
    ///
    /// # Panics
    /// If the rows are not whole, or a row's starts are not those of consecutive sequences.
    pub fn packed(starts: Vec<usize>, seq: usize) -> Self {
        assert!(seq > 0 && starts.len().is_multiple_of(seq), "{} positions are not rows of {seq}", starts.len());
        for row in starts.chunks_exact(seq) {
            for (position, &start) in row.iter().enumerate() {
                let begins = start == position;
                assert!(begins || position > 0 && start == row[position - 1], "position {position} reads from {start}");
            }
        }
        Self { starts: starts.into(), seq }
    }

    /// Rows and positions of each.
    pub fn dims(&self) -> [usize; 2] {
        [self.starts.len() / self.seq, self.seq]
    }

    /// Each position's place in its own sequence, row after row.
    pub fn positions(&self) -> Vec<usize> {
        self.starts.iter().enumerate().map(|(index, start)| index % self.seq - start).collect()
    }

    /// The first position of each position's sequence, row after row.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }
}
