//! Generalised advantages and PPO's loss on tensors of one's own.

use burn::tensor::{Device, Tensor};
use firebrick_rl::{Mask, gae, policy_loss};

fn main() {
    let device = Device::flex();
    let rewards = Tensor::<2>::from_floats([[0.0, 0.0, 1.0]], &device);
    let values = Tensor::<2>::from_floats([[0.5, 0.6, 0.7]], &device);
    let mask = Mask::from_spans(&[(0, 3)], 3, &device);
    let advantages = gae(rewards, values, &mask, 1.0, 0.95).into_data().try_to_vec::<f32>().expect("they are f32");
    for (found, expected) in advantages.into_iter().zip([0.46575, 0.385, 0.3]) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    // A ratio of e is clipped at 1.2 where the advantage is positive.
    let one = |value: f32| Tensor::<1>::from_floats([value], &device);
    let loss = policy_loss(one(-1.0), one(-2.0), one(1.0), 0.2);
    assert!((loss.loss.into_scalar::<f32>() + 1.2).abs() < 1e-6 && loss.clipped.into_scalar::<f32>() == 1.0);
}
