//! Gradients by autodiff, and by finite differences to hold them against.

use burn::tensor::{Tensor, TensorData};

use crate::{Numbers, close::assert_within};

/// The gradient of a scalar function at `x`, by autodiff: `∂f/∂x`.
///
/// It is zero where `f` does not depend on `x`, also where it uses `x` only detached. Tensors that `f` captures from a
/// device without autodiff are constants.
///
/// # Panics
/// If `f` gives more than one element.
#[track_caller]
pub fn gradient<const D: usize>(x: Tensor<D>, f: impl Fn(Tensor<D>) -> Tensor<1>) -> Tensor<D> {
    let x = x.without_autodiff().autodiff().require_grad();
    let y = f(x.clone());
    assert_eq!(y.dims(), [1], "the function must be scalar");
    let gradient = if y.is_tracked() { x.grad(&y.backward()) } else { None };
    gradient.unwrap_or_else(|| x.zeros_like().without_autodiff())
}

/// Asserts that the autodiff gradient of a scalar function at `x` is the one that finite differences give.
///
/// ```text
/// gᵢ ≈ (f(x + h eᵢ) − f(x − h eᵢ)) / 2h,   h = 2⁻⁷
/// ```
/// All elements are tried, at two evaluations of `f` each: keep `x` small. In `f32` the central difference is off by
/// about `h² f‴/6` (10⁻⁵ `f‴`) plus rounding, `2⁻²⁴ |f| / h` for each rounding of the size of `f` (8 · 10⁻⁶ `|f|`). An
/// element may therefore differ by 1 % of the greatest element of the gradient plus four such roundings. Where `f` has a
/// kink (a clip, a maximum), `x` must be farther than `h` from it.
///
/// # Panics
/// If an element differs, with the worst one in the message; or if `f` gives more than one element.
#[track_caller]
pub fn grad_check<const D: usize>(x: Tensor<D>, f: impl Fn(Tensor<D>) -> Tensor<1>) {
    const STEP: f64 = 1.0 / 128.0;
    let (x, by_autodiff) = (x.clone().without_autodiff(), gradient(x, &f).numbers());
    let (shape, device) = (x.dims(), x.device());
    let value = f(x.clone()).numbers()[0];
    let values = x.numbers();
    let moved = |i: usize, step: f64| {
        let mut values = values.clone();
        values[i] += step;
        // As stored in f32: the step taken is not quite the step asked for.
        let at = f64::from(values[i] as f32);
        (at, f(Tensor::from_data(TensorData::new(values, shape), &device)).numbers()[0])
    };
    let by_differences: Vec<f64> = (0..values.len())
        .map(|i| {
            let ((above, f_above), (below, f_below)) = (moved(i, STEP), moved(i, -STEP));
            (f_above - f_below) / (above - below)
        })
        .collect();

    let greatest = by_autodiff.iter().chain(&by_differences).fold(0.0, |max: f64, g| max.max(g.abs()));
    let rounding = f64::from(f32::EPSILON) / 2.0 * value.abs() / STEP;
    let allowed = 0.01 * greatest + 4.0 * rounding;
    assert_within(by_autodiff, by_differences, |_| allowed);
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::{log_softmax, sigmoid};

    use super::*;
    use crate::{assert_close, cpu};

    fn x() -> Tensor<2> {
        Tensor::from_floats([[0.5, -1.5, 2.0], [1.0, 0.25, -0.75]], &cpu())
    }

    #[test]
    fn gradient_of_a_polynomial() {
        // d(x² + 3x)/dx = 2x + 3
        let by_autodiff = gradient(x(), |x| (x.clone() * x.clone() + x * 3.0).sum());
        assert_close(by_autodiff, [4.0, 0.0, 7.0, 5.0, 3.5, 1.5], 1e-6);
    }

    #[test]
    fn gradient_is_zero_of_a_constant_and_through_detach() {
        assert_close(gradient(x(), |x| x.detach().exp().sum()), x().zeros_like(), 0.0);
        assert_close(gradient(x(), |_| Tensor::ones([1], &cpu())), x().zeros_like(), 0.0);
    }

    #[test]
    fn smooth_functions_pass_at_every_scale() {
        grad_check(x(), |x| x.exp().sum());
        grad_check(x() * 4.0, |x| sigmoid(x).mean() * 1e-3);
        grad_check(x(), |x| (log_softmax(x.clone(), 1) * x).sum() * 1e3);
        grad_check(x(), |x| x.sum() * 0.0 + 5.0);
    }

    #[test]
    #[should_panic(expected = "6 of 6 elements differ; the worst is [2]: actual 2, expected 4,")]
    fn a_detached_factor_is_found() {
        // d(x²)/dx = 2x, but x alone when one of the two factors is detached; the greatest |x| is 2.
        grad_check(x(), |x| (x.clone().detach() * x).sum());
    }

    #[test]
    #[should_panic(expected = "1 of 6 elements differ")]
    fn one_wrong_element_is_found() {
        // Only where x > 1.5 the gradient is cut, and only there it is wrong.
        grad_check(x(), |x| {
            let cut = x.clone().greater_elem(1.5);
            x.clone().mask_where(cut, x.detach()).sum()
        });
    }

    #[test]
    #[should_panic(expected = "the function must be scalar")]
    fn the_function_must_be_scalar() {
        gradient(x(), |x| x.sum_dim(1).squeeze_dim(1));
    }
}
