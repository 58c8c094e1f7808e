//! Rows of tables.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use half::bf16;

use super::vjp::Vjp;
use super::{dims, elements, tensor, vector};

/// The tensor with rows one after another.
pub(super) fn rows_of(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

pub(super) fn embedding_forward(table: &FlexTensor, indices: &[usize]) -> FlexTensor {
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
pub(super) struct EmbeddingKept {
    pub(super) indices: Arc<[usize]>,
    pub(super) entries: usize,
    pub(super) width: usize,
}

impl Vjp<1> for EmbeddingKept {
    fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let Self { indices, entries, width } = self;
        let mut dtable = vec![0.0; entries * width];
        for (&index, g) in indices.iter().zip(elements(&g).chunks_exact(width)) {
            vector::add(g, &mut dtable[index * width..][..width]);
        }
        [Some(tensor(dtable, vec![entries, width]))]
    }
}
