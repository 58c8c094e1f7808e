//! Rows of tables.

use burn::tensor::{Int, Tensor};

#[cfg(feature = "flex")]
use crate::flex::is_flex;

/// The rows of a table at these indices.
///
/// # Shapes
/// - `table`: `[entries, width]`
/// - `indices`: `[tokens]`
/// - returns `[tokens, width]`
///
/// # Panics
/// If an index is not in the table.
pub fn embedding(table: Tensor<2>, indices: Tensor<1, Int>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if is_flex(&table.device()) {
        return fused::embedding(table, indices);
    }
    plain::embedding(table, indices)
}

pub(crate) mod plain {
    use burn::tensor::{Int, Tensor};

    /// [`crate::embedding`].
    pub fn embedding(table: Tensor<2>, indices: Tensor<1, Int>) -> Tensor<2> {
        table.select(0, indices)
    }
}

#[cfg(feature = "flex")]
mod fused {
    use std::sync::Arc;

    use burn::backend::autodiff::Autodiff;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::backend::{Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::{DType, Int, Tensor};
    use half::bf16;
    use multiversion::multiversion;

    use crate::flex::{Vjp, dims, elements, indices, tensor, tracked};

    /// Rows of tables, with their backward pass.
    #[backend_extension(Flex, Autodiff)]
    trait FusedEmbedding: Backend {
        fn fused_embedding(table: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self>;
    }

    pub(super) fn embedding(table: Tensor<2>, indices: Tensor<1, Int>) -> Tensor<2> {
        let (table, indices) = (table.into_dispatch(), indices.into_dispatch());
        Tensor::from_dispatch(<Dispatch as FusedEmbedding>::fused_embedding(table, indices))
    }

    /// The tensor with rows one after another.
    fn rows_of(tensor: FlexTensor) -> FlexTensor {
        if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
    }

    fn embedding_forward(table: &FlexTensor, indices: &[usize]) -> FlexTensor {
        let width = dims(table)[1];
        let begin = table.layout().start_offset();
        let row = |&index: &usize| begin + index * width..begin + (index + 1) * width;
        let rows = match table.dtype() {
            DType::BF16 => {
                indices.iter().map(row).flat_map(|row| &table.storage::<bf16>()[row]).map(|v| v.to_f32()).collect()
            }
            _ => indices.iter().map(row).map(|row| &table.storage::<f32>()[row]).collect::<Vec<_>>().concat(),
        };
        tensor(rows, vec![indices.len(), width])
    }

    /// Each entry's gradient is the sum over the tokens that read it, in their order.
    #[derive(Clone, Debug)]
    struct EmbeddingState {
        indices: Arc<[usize]>,
        entries: usize,
        width: usize,
    }

    impl Vjp<1> for EmbeddingState {
        fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            let Self { indices, entries, width } = self;
            let mut dtable = vec![0.0; entries * width];
            for (&index, g) in indices.iter().zip(elements(&g).chunks_exact(width)) {
                add(g, &mut dtable[index * width..][..width]);
            }
            [Some(tensor(dtable, vec![entries, width]))]
        }
    }

    impl FusedEmbedding for Flex {
        fn fused_embedding(table: FlexTensor, ids: FlexTensor) -> FlexTensor {
            let indices = indices(&ids, dims(&table)[0]);
            embedding_forward(&rows_of(table), &indices)
        }
    }

    impl<C: CheckpointStrategy> FusedEmbedding for Autodiff<Flex, C> {
        fn fused_embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
            let node = table.node();
            let table = rows_of(table.into_primitive());
            let [entries, width] = [0, 1].map(|axis| dims(&table)[axis]);
            let indices = indices(&ids, entries);
            let rows = embedding_forward(&table, &indices);
            tracked::<C, _, _>([node], rows, EmbeddingState { indices, entries, width })
        }
    }

    /// y ← y + x
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn add(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
    }
}
