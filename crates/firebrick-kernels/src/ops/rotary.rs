//! Rotary positions: queries and keys rotated by angles that grow with the position.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::attention::Heads;
#[cfg(feature = "flex")]
use crate::flex::is_flex;

/// Angles by position: the first `2 half` numbers of a head are rotated in pairs `(i, half + i)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// `[positions, half]`
    cos: Arc<[f32]>,
    /// `[positions, half]`
    sin: Arc<[f32]>,
    half: usize,
}

impl Rotary {
    /// The angles of this many positions.
    ///
    /// ```text
    /// angle(position, i) = position · frequencyᵢ
    /// ```
    ///
    /// Su et al. 2021, [arXiv:2104.09864](https://arxiv.org/abs/2104.09864), eq. 15.
    ///
    /// # Panics
    /// If there is no frequency.
    pub fn new(frequencies: &[f64], positions: usize) -> Self {
        assert!(!frequencies.is_empty(), "rotary positions need at least one frequency");
        let angles = (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        let table = |f: fn(f64) -> f64| angles.clone().map(|angle| f(angle) as f32).collect();
        Self { cos: table(f64::cos), sin: table(f64::sin), half: frequencies.len() }
    }

    /// Pairs that are rotated.
    pub fn half(&self) -> usize {
        self.half
    }

    fn cos(&self, position: usize) -> &[f32] {
        &self.cos[position * self.half..][..self.half]
    }

    fn sin(&self, position: usize) -> &[f32] {
        &self.sin[position * self.half..][..self.half]
    }
}

/// Queries and keys rotated by the angles of their positions; values as they are.
///
/// ```text
/// (a, b) → (a cos θ − b sin θ, b cos θ + a sin θ)
/// ```
///
/// Su et al. 2021, [arXiv:2104.09864](https://arxiv.org/abs/2104.09864), eq. 34.
///
/// # Shapes
/// - `qkv`: `[batch, seq, width]`, queries, keys and values of all heads side by side
/// - `positions`: one of each token, row after row
/// - returns `[batch, seq, width]`
///
/// # Panics
/// If the heads do not divide the width, a head is narrower than what is rotated, or a position is not in the table.
pub fn rotary(qkv: Tensor<3>, heads: Heads, rotary: &Rotary, positions: &[usize]) -> Tensor<3> {
    let [batch, seq, width] = qkv.dims();
    assert!(width.is_multiple_of(heads.all()), "{} heads do not divide a width of {width}", heads.all());
    assert!(
        2 * rotary.half <= width / heads.all(),
        "heads of {} are narrower than what is rotated",
        width / heads.all()
    );
    assert_eq!(positions.len(), batch * seq, "one position of each token");
    #[cfg(feature = "flex")]
    if is_flex(&qkv.device()) {
        return fused::rotary(qkv, heads, rotary, positions);
    }
    plain::rotary(qkv, heads, rotary, positions)
}

pub(crate) mod plain {
    use burn::tensor::{Tensor, TensorData};

    use super::{Heads, Rotary};

    /// [`crate::rotary`].
    pub fn rotary(qkv: Tensor<3>, heads: Heads, rotary: &Rotary, positions: &[usize]) -> Tensor<3> {
        let [batch, seq, width] = qkv.dims();
        let (half, d_head) = (rotary.half(), width / heads.all());
        let rotated = heads.query + heads.key_value;
        let x = qkv.clone().reshape([batch * seq, heads.all(), d_head]);
        let part = |heads: std::ops::Range<usize>, numbers: std::ops::Range<usize>| {
            x.clone().slice([0..batch * seq, heads, numbers])
        };
        let table = |of: fn(&Rotary, usize) -> &[f32]| {
            let rows = positions.iter().flat_map(|&position| of(rotary, position)).copied().collect::<Vec<_>>();
            let table = Tensor::<3>::from_data(TensorData::new(rows, [batch * seq, 1, half]), &qkv.device());
            if qkv.is_autodiff() { table.autodiff() } else { table }
        };
        let (cos, sin) = (table(Rotary::cos), table(Rotary::sin));
        let (a, b) = (part(0..rotated, 0..half), part(0..rotated, half..2 * half));
        let mut numbers = vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin];
        if 2 * half < d_head {
            numbers.push(part(0..rotated, 2 * half..d_head));
        }
        let whole = Tensor::cat(vec![Tensor::cat(numbers, 2), part(rotated..heads.all(), 0..d_head)], 1);
        whole.reshape([batch, seq, width])
    }
}

#[cfg(feature = "flex")]
mod fused {
    use std::sync::Arc;

    use burn::backend::autodiff::Autodiff;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::Tensor;
    use multiversion::multiversion;

    use super::{Heads, Rotary};
    use crate::flex::{Vjp, contiguous, dims, elements, tensor, tracked};

    /// Rotary positions, with their backward pass.
    #[backend_extension(Flex, Autodiff)]
    trait FusedRotary: Backend {
        fn fused_rotary(qkv: FloatTensor<Self>, rotation: Rotation) -> FloatTensor<Self>;
    }

    pub(super) fn rotary(qkv: Tensor<3>, heads: Heads, rotary: &Rotary, positions: &[usize]) -> Tensor<3> {
        let rotation = Rotation { heads, rotary: rotary.clone(), positions: positions.into() };
        Tensor::from_dispatch(<Dispatch as FusedRotary>::fused_rotary(qkv.into_dispatch(), rotation))
    }

    /// How queries and keys are rotated.
    #[derive(Clone, Debug)]
    struct Rotation {
        heads: Heads,
        rotary: Rotary,
        positions: Arc<[usize]>,
    }

    impl Rotation {
        /// Rotated by the angles of the tokens' positions, or back.
        fn of(&self, qkv: &FlexTensor, back: bool) -> FlexTensor {
            let mut values = elements(qkv).to_vec();
            let (heads, half) = (self.heads, self.rotary.half());
            let width = dims(qkv)[2];
            let d_head = width / heads.all();
            let mut backwards = vec![0.0; half];
            for (token, &position) in values.chunks_exact_mut(width).zip(&*self.positions) {
                let (cos, mut sin) = (self.rotary.cos(position), self.rotary.sin(position));
                if back {
                    backwards.iter_mut().zip(sin).for_each(|(back, sin)| *back = -sin);
                    sin = &backwards;
                }
                for head in token[..(heads.query + heads.key_value) * d_head].chunks_exact_mut(d_head) {
                    let (a, b) = head[..2 * half].split_at_mut(half);
                    rotate(a, b, cos, sin);
                }
            }
            tensor(values, dims(qkv))
        }
    }

    /// A rotation is undone by the opposite one.
    impl Vjp<1> for Rotation {
        fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            [Some(self.of(&g, true))]
        }
    }

    impl FusedRotary for Flex {
        fn fused_rotary(qkv: FlexTensor, rotation: Rotation) -> FlexTensor {
            rotation.of(&contiguous(qkv), false)
        }
    }

    impl<C: CheckpointStrategy> FusedRotary for Autodiff<Flex, C> {
        fn fused_rotary(qkv: FloatTensor<Self>, rotation: Rotation) -> FloatTensor<Self> {
            let node = qkv.node();
            let rotated = rotation.of(&contiguous(qkv.into_primitive()), false);
            tracked::<C, _, _>([node], rotated, rotation)
        }
    }

    /// The pairs (x, y) rotated by their angles.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn rotate(x: &mut [f32], y: &mut [f32], cos: &[f32], sin: &[f32]) {
        for (((x, y), &cos), &sin) in x.iter_mut().zip(y).zip(cos).zip(sin) {
            (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
        }
    }
}
