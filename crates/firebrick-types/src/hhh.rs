//! Evaluation items of helpfulness, honesty and harmlessness.

use serde::{Deserialize, Serialize};

use crate::Dialogue;

/// One choice between two answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HhhItem {
    /// `helpful`, `honest`, `harmless` or `other`.
    pub category: String,
    /// The dialogue so far; it ends with the person's turn.
    pub prompt: Dialogue,
    /// The answer that people agree on.
    pub chosen: String,
    /// The other answer.
    pub rejected: String,
}
