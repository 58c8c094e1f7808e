//! Losses and estimators against numbers of PyTorch (firebrick-testkit/goldens/make.py).

use burn::tensor::Tensor;
use firebrick_tensor::{Mask, entropy, k1, k2, k3, kl, masked, token_log_probs};
use firebrick_testkit::goldens::{LM, RL};
use firebrick_testkit::{Golden, assert_close, cpu, golden, gradient};

fn mask(case: &Golden) -> Mask {
    let columns = case.shape("mask")[1];
    let rows = case.bools("mask").chunks(columns).map(<[bool]>::to_vec).collect::<Vec<_>>();
    Mask::from_rows(&rows, &cpu())
}

/// The same mask on the device of `like`.
fn mask_on(case: &Golden, like: &Tensor<2>) -> Mask {
    let columns = case.shape("mask")[1];
    let rows = case.bools("mask").chunks(columns).map(<[bool]>::to_vec).collect::<Vec<_>>();
    Mask::from_rows(&rows, &like.device())
}

#[test]
fn token_log_probs_and_their_gradient() {
    for name in ["cross_entropy", "cross_entropy_extreme"] {
        let case = golden(LM, name);
        let targets = case.int_tensor::<2>("targets", &cpu());
        let dims = targets.dims();
        let targets = targets.flatten::<1>(0, 1);
        let loss = |logits: Tensor<3>| {
            let targets = if logits.is_autodiff() { targets.clone().autodiff() } else { targets.clone() };
            let losses = token_log_probs(logits.flatten(0, 1), targets).neg().reshape(dims);
            let mask = mask_on(&case, &losses);
            masked::mean(losses, &mask)
        };
        let logits = case.tensor::<3>("logits", &cpu());
        let log_probs = token_log_probs(logits.clone().flatten(0, 1), targets.clone());
        assert_close(log_probs, case.floats("log_probs"), 1e-5);
        assert_close(loss(logits.clone()), case.number("loss"), 1e-5);
        assert_close(gradient(logits, loss), case.floats("grad_logits"), 1e-5);
    }
}

#[test]
fn entropy_and_exact_kl() {
    let case = golden(LM, "entropy");
    let found = entropy(case.tensor::<3>("logits", &cpu()).flatten(0, 1));
    assert_close(found, case.floats("entropy"), 1e-5);
    let case = golden(LM, "kl");
    let tokens = |name| case.tensor::<3>(name, &cpu()).flatten(0, 1);
    let found = kl(tokens("p_logits"), tokens("q_logits"));
    assert_close(found, case.floats("kl"), 1e-5);
}

#[test]
fn kl_estimators_per_token() {
    let case = golden(LM, "kl_estimators");
    let p = || case.tensor::<2>("log_probs", &cpu());
    let q = || case.tensor::<2>("ref_log_probs", &cpu());
    assert_close(k1(p(), q()), case.floats("k1"), 1e-5);
    assert_close(k2(p(), q()), case.floats("k2"), 1e-5);
    assert_close(k3(p(), q()), case.floats("k3"), 1e-5);
}

/// p = (.5, .5), q = (.9, .1): expectations under p; the inverted third estimator would give 1.267.
#[test]
fn t05_expectations_of_the_estimators() {
    let case = golden(LM, "kl_t05");
    let log = |name| {
        Tensor::<1>::from_floats(case.floats(name).iter().map(|p| p.ln() as f32).collect::<Vec<_>>().as_slice(), &cpu())
    };
    let mean = |estimates: Tensor<1>| estimates.mean();
    assert_close(mean(k1(log("p"), log("q"))), case.number("k1"), 1e-5);
    assert_close(mean(k2(log("p"), log("q"))), case.number("k2"), 1e-5);
    assert_close(mean(k3(log("p"), log("q"))), case.number("k3"), 1e-5);
    assert_close(case.number("k3"), case.number("kl"), 1e-12);
}

/// Masked entries change nothing, the mean goes or stays, and a single entry gives no NaN.
#[test]
fn t14_whitening_counts_valid_entries_alone() {
    let whiten: fn(_, &Mask) -> Tensor<2> = masked::whiten;
    for (name, whiten) in
        [("whiten", whiten), ("whiten_keep_mean", masked::whiten_about_mean), ("whiten_single", whiten)]
    {
        let case = golden(RL, name);
        let whitened = whiten(case.tensor("x", &cpu()), &mask(&case));
        assert_close(whitened, case.floats("whitened"), 1e-4);
    }
}
