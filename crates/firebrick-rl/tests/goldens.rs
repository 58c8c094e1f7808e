//! Advantages, rewards and losses against numbers of PyTorch (firebrick-testkit/goldens/make.py).

use burn::tensor::{Device, Tensor};
use firebrick_rl::{gae, policy_loss, shaped_rewards, value_loss};
use firebrick_tensor::{Mask, masked};
use firebrick_testkit::goldens::RL;
use firebrick_testkit::{Golden, assert_close, cpu, golden, gradient};

fn mask(case: &Golden, device: &Device) -> Mask {
    let columns = case.shape("mask")[1];
    let rows = case.bools("mask").chunks(columns).map(<[bool]>::to_vec).collect::<Vec<_>>();
    Mask::from_rows(&rows, device)
}

#[test]
fn t15_gae_ends_with_the_episode() {
    for name in ["gae_t15", "gae_ragged", "gae_ragged_discounted", "gae_ragged_one", "gae_ragged_zero"] {
        let case = golden(RL, name);
        let mask = mask(&case, &cpu());
        let values = case.tensor::<2>("values", &cpu());
        let advantages =
            gae(case.tensor("rewards", &cpu()), values.clone(), &mask, case.number("gamma"), case.number("lambda"));
        assert_close((advantages.clone() + values) * mask.tensor(), case.floats("returns"), 1e-5);
        assert_close(advantages, case.floats("advantages"), 1e-5);
    }
}

/// No gradient reaches the values that advantages are made of.
#[test]
fn t16_advantages_are_constants() {
    let case = golden(RL, "gae_t15");
    let device = cpu().autodiff();
    let values = case.tensor::<2>("values", &cpu()).autodiff().require_grad();
    let rewards = case.tensor::<2>("rewards", &cpu()).autodiff();
    let advantages = gae(rewards, values.clone(), &mask(&case, &device), 1.0, 0.95);
    let gradients = (advantages * values.clone() * 0.0 + values.clone()).sum().backward();
    assert_close(values.grad(&gradients).expect("the values are read"), [1.0; 3], 1e-6);
}

/// The score stands at the last response token and nowhere else; the penalty on every one.
#[test]
fn t07_the_score_is_at_the_last_token() {
    let case = golden(RL, "shaped_rewards");
    let rewards = shaped_rewards(
        case.tensor("scores", &cpu()),
        case.tensor("log_probs", &cpu()),
        case.tensor("ref_log_probs", &cpu()),
        &mask(&case, &cpu()),
        case.number("beta"),
    );
    assert_close(rewards, case.floats("rewards"), 1e-5);
}

#[test]
fn policy_loss_and_its_gradient() {
    let case = golden(RL, "policy_loss");
    let loss = |log_probs: Tensor<2>| {
        let (device, dims) = (log_probs.device(), log_probs.dims());
        let on = |name| {
            let tensor = case.tensor::<2>(name, &cpu()).flatten(0, 1);
            if device.is_autodiff() { tensor.autodiff() } else { tensor }
        };
        let losses = policy_loss(log_probs.flatten(0, 1), on("old_log_probs"), on("advantages"), case.number("clip"));
        masked::mean(losses.loss.reshape(dims), &mask(&case, &device))
    };
    let log_probs = case.tensor::<2>("log_probs", &cpu());
    assert_close(loss(log_probs.clone()), case.number("loss"), 1e-5);
    assert_close(gradient(log_probs, loss), case.floats("grad_log_probs"), 1e-5);
}

/// The larger of the two errors, about the value at rollout.
#[test]
fn t17_value_loss_takes_the_larger_error() {
    let case = golden(RL, "value_loss");
    let loss = |values: Tensor<2>| {
        let (device, dims) = (values.device(), values.dims());
        let on = |name| {
            let tensor = case.tensor::<2>(name, &cpu()).flatten(0, 1);
            if device.is_autodiff() { tensor.autodiff() } else { tensor }
        };
        let losses = value_loss(values.flatten(0, 1), on("old_values"), on("returns"), case.number("clip"));
        masked::mean(losses.loss.reshape(dims), &mask(&case, &device))
    };
    let values = case.tensor::<2>("values", &cpu());
    assert_close(loss(values.clone()), case.number("loss"), 1e-5);
    assert_close(gradient(values, loss), case.floats("grad_values"), 1e-5);
}
