//! What factors of products are rounded to.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// What the factors of a product are rounded to before they are multiplied; it is accumulated in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To BF16: eight bits of a number count. Faster where the processor has a matrix unit (Intel's AMX) or, as AMD's have, AVX-512's BF16; slower elsewhere.
    Bf16,
}

impl Precision {
    /// BF16 on a processor that has instructions for it, f32 elsewhere: for numbers that are uncertain by more than is rounded off.
    pub fn fastest(device: &Device) -> Self {
        #[cfg(feature = "flex")]
        if crate::flex::is_flex(device) && crate::gemm::Kernel::has_bf16() {
            return Self::Bf16;
        }
        _ = device;
        Self::F32
    }
}
