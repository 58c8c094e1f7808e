//! Tensors of the processor backend as slices.

use std::sync::Arc;

use burn::backend::DispatchDevice;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Device, Shape};

pub(crate) fn is_flex(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// The tensor with its elements in order.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

/// The tensor in memory of its own length and order, which may then be changed in place.
pub(crate) fn compact(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() && tensor.storage::<f32>().len() == tensor.layout().num_elements() {
        return tensor;
    }
    let contiguous = contiguous(tensor);
    self::tensor(elements(&contiguous).to_vec(), dims(&contiguous))
}

/// The elements of a contiguous tensor.
pub(crate) fn elements(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("a contiguous tensor of f32")
}

pub(crate) fn dims(tensor: &FlexTensor) -> Vec<usize> {
    tensor.layout().shape().iter().copied().collect()
}

pub(crate) fn tensor(values: Vec<f32>, dims: Vec<usize>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(dims)), DType::F32)
}

/// Token ids as indices.
///
/// # Panics
/// If one is not within `0..vocab`.
pub(crate) fn indices(ids: &FlexTensor, vocab: usize) -> Arc<[usize]> {
    let ids = ids.to_contiguous();
    let index = |id: i64| match usize::try_from(id) {
        Ok(index) if index < vocab => index,
        _ => panic!("the token {id} is not in the vocabulary of {vocab}"),
    };
    match ids.dtype() {
        DType::I64 => ids.as_slice::<i64>().expect("contiguous").iter().map(|&id| index(id)).collect(),
        DType::I32 => ids.as_slice::<i32>().expect("contiguous").iter().map(|&id| index(id.into())).collect(),
        other => panic!("token ids are 32 or 64 bits wide, not {other:?}"),
    }
}
