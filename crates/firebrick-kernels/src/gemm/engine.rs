//! What multiplies.

use super::amx::{self, Amx};
use super::microkernel::Kernel;

#[derive(Clone, Copy)]
pub(super) enum Engine {
    /// A vector unit, of f32 or of pairs of BF16.
    Simd(&'static Kernel),
    /// A matrix unit, which rounds to BF16.
    Amx(Amx),
}

impl Engine {
    /// MR and NR: the rows and columns of a tile of C.
    pub(super) fn tile(self) -> [usize; 2] {
        match self {
            Self::Simd(kernel) => [kernel.mr, kernel.nr],
            Self::Amx(_) => [amx::PANEL; 2],
        }
    }

    /// The length of a packed panel of B.
    pub(super) fn panel_length(self, k: usize) -> usize {
        match self {
            Self::Simd(kernel) => kernel.nr * k,
            Self::Amx(_) => amx::panel_length(k),
        }
    }
}
