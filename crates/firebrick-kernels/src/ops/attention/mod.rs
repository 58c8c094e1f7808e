//! Causal attention, over whole sequences and through a cache.

mod cached;
mod causal;
mod chunk;
mod heads;
#[cfg(feature = "flex")]
mod host;
mod sequence_starts;
#[cfg(feature = "flex")]
mod softmax;

pub use cached::{KeyValues, attention_cached};
pub use causal::attention;
pub(crate) use causal::plain;
pub use chunk::Chunk;
pub use heads::Heads;
pub use sequence_starts::SequenceStarts;
