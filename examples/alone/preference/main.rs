//! The loss of direct preference optimisation on tensors of one's own.

use burn::tensor::{Device, Tensor};
use firebrick_preference::{dpo_loss, ranked_loss};

fn main() {
    let device = Device::flex().autodiff();
    let scores = Tensor::<1>::from_floats([2.0], &device).require_grad();
    let loss = ranked_loss(scores.clone(), Tensor::from_floats([0.5], &device));
    let slope = scores.grad(&loss.backward()).expect("it was asked for").into_scalar::<f32>();
    // d/dx ln(1 + exp(0.5 − x)) at 2 is −σ(−1.5).
    assert!((slope + 1.0 / (1.0 + 1.5_f32.exp())).abs() < 1e-6, "{slope}");

    // Log-ratios 2 and −1 at β = 0.1: ln(1 + exp(−0.3)).
    let one = |value: f32| Tensor::<1>::from_floats([value], &Device::flex());
    let loss = dpo_loss(one(2.0), one(-1.0), 0.1).into_scalar::<f32>();
    assert!((loss - 0.554_355).abs() < 1e-5, "{loss}");
}
