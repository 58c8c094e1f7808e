//! The ranked loss and generalised advantages on tensors of your own.
#![allow(clippy::print_stdout)]

use burn::tensor::{Device, Tensor};
use firebrick_preference::ranked_loss;
use firebrick_rl::gae;
use firebrick_tensor::Mask;

fn main() {
    let device = Device::flex().autodiff();
    let chosen = Tensor::<1>::from_floats([2.0, 0.1], &device).require_grad();
    let rejected = Tensor::<1>::from_floats([0.5, 0.4], &device);
    let loss = ranked_loss(chosen.clone(), rejected).mean();
    let gradients = loss.backward();
    let gradient = chosen.grad(&gradients).expect("it was asked for");
    println!("ranked loss {loss}");
    println!("its gradient with respect to the chosen scores {gradient}");
    // Of the mean of ln(1 + exp(−d)) with d = 1.5 and −0.3.
    assert!((loss.into_scalar::<f32>() - 0.527_884).abs() < 1e-5);

    let device = Device::flex();
    let rewards = Tensor::<2>::from_floats([[0.0, 0.0, 1.0]], &device);
    let values = Tensor::<2>::from_floats([[0.5, 0.6, 0.7]], &device);
    let mask = Mask::from_spans(&[(0, 3)], 3, &device);
    let advantages = gae(rewards, values, &mask, 1.0, 0.95);
    println!("advantages {advantages}");
    // δ = 0.1, 0.1, 0.3, discounted by 0.95 a step.
    assert!((advantages.sum().into_scalar::<f32>() - 1.15075).abs() < 1e-5);
}
