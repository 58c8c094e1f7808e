//! Rows of two batches, of which one each is taken.

use burn::tensor::Tensor;
use firebrick_tensor::indices;

/// Which of two lists holds the better row, as rows of both one after the other.
pub(crate) fn chosen(better: impl Fn(usize) -> bool, batch: usize) -> Vec<usize> {
    (0..batch).map(|image| if better(image) { batch + image } else { image }).collect()
}

pub(crate) fn pick<T: Clone>(a: &[T], b: &[T], rows: &[usize]) -> Vec<T> {
    rows.iter().map(|&row| if row < a.len() { a[row].clone() } else { b[row - a.len()].clone() }).collect()
}

pub(crate) fn pick_rows<const D: usize>(a: Tensor<D>, b: Tensor<D>, rows: &[usize]) -> Tensor<D> {
    let chosen = indices(rows, &a.device());
    Tensor::cat(vec![a, b], 0).select(0, chosen)
}
