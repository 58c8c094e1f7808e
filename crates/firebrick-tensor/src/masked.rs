//! Reductions over the positions that count.

use burn::tensor::Tensor;

use crate::{Mask, assert_shape};

/// The sum over the positions that count, `[1]`.
///
/// # Panics
/// If the shapes disagree.
pub fn sum(values: Tensor<2>, mask: &Mask) -> Tensor<1> {
    assert_shape!(values, mask.dims());
    (values * mask.tensor()).sum()
}

/// The mean over the positions that count, `[1]`; 0 if none does.
///
/// ```text
/// Σ mᵢ xᵢ / Σ mᵢ
/// ```
///
/// # Panics
/// If the shapes disagree.
pub fn mean(values: Tensor<2>, mask: &Mask) -> Tensor<1> {
    sum(values, mask) / mask.tensor().sum().clamp_min(1.0)
}

/// The population variance over the positions that count, `[1]`.
///
/// # Panics
/// If the shapes disagree.
pub fn variance(values: Tensor<2>, mask: &Mask) -> Tensor<1> {
    let centred = values.clone() - mean(values, mask).reshape([1, 1]);
    mean(centred.square(), mask)
}

/// Values without their mean, scaled to variance 1 over the positions that count, and 0 where they do not: advantages.
///
/// ```text
/// (x − x̄) / √(σ² + 10⁻⁸)
/// ```
///
/// A single position gives 0, never NaN. Spec: T-14.
///
/// # Panics
/// If the shapes disagree.
pub fn whiten(values: Tensor<2>, mask: &Mask) -> Tensor<2> {
    standard(values, mask).0 * mask.tensor()
}

/// Values scaled to variance 1 about their mean over the positions that count, and 0 where they do not: rewards.
///
/// ```text
/// (x − x̄) / √(σ² + 10⁻⁸) + x̄
/// ```
///
/// A single position gives itself, never NaN. Spec: T-14.
///
/// # Panics
/// If the shapes disagree.
pub fn whiten_about_mean(values: Tensor<2>, mask: &Mask) -> Tensor<2> {
    let (whitened, mean) = standard(values, mask);
    (whitened + mean) * mask.tensor()
}

/// `(x − x̄) / √(σ² + 10⁻⁸)` and `x̄`.
fn standard(values: Tensor<2>, mask: &Mask) -> (Tensor<2>, Tensor<2>) {
    let mean = mean(values.clone(), mask).reshape([1, 1]);
    let deviation = (variance(values.clone(), mask) + 1e-8).sqrt().reshape([1, 1]);
    ((values - mean.clone()) / deviation, mean)
}
