//! The ranked loss against numbers of PyTorch (firebrick-testkit/goldens/make.py).

use burn::tensor::Tensor;
use firebrick_preference::{dpo_loss, ranked_loss};
use firebrick_testkit::goldens::PREFERENCE;
use firebrick_testkit::{assert_close, cpu, golden, grad_check, gradient};

#[test]
fn ranked_loss_and_its_gradients() {
    for name in ["ranked", "ranked_tie", "ranked_extreme"] {
        let case = golden(PREFERENCE, name);
        let chosen = case.tensor::<1>("chosen", &cpu());
        let rejected = case.tensor::<1>("rejected", &cpu());
        assert_close(ranked_loss(chosen.clone(), rejected.clone()), case.floats("losses"), 1e-5);
        let other = rejected.clone();
        let by_chosen = gradient(chosen.clone(), |chosen| ranked_loss(chosen, other.clone().autodiff()).mean());
        assert_close(by_chosen, case.floats("grad_chosen"), 1e-5);
        let by_rejected = gradient(rejected, |rejected| ranked_loss(chosen.clone().autodiff(), rejected).mean());
        assert_close(by_rejected, case.floats("grad_rejected"), 1e-5);
    }
}

#[test]
fn ranked_loss_follows_finite_differences() {
    let case = golden(PREFERENCE, "ranked");
    let rejected = case.tensor::<1>("rejected", &cpu());
    grad_check(case.tensor::<1>("chosen", &cpu()), |chosen| {
        let rejected = if chosen.is_autodiff() { rejected.clone().autodiff() } else { rejected.clone() };
        ranked_loss(chosen, rejected).mean()
    });
}

/// Only differences matter (B-19, T-25).
#[test]
fn t25_a_constant_on_all_scores_changes_nothing() {
    let case = golden(PREFERENCE, "ranked");
    let (chosen, rejected) = (case.tensor::<1>("chosen", &cpu()), case.tensor::<1>("rejected", &cpu()));
    assert_close(ranked_loss(chosen + 5.0, rejected + 5.0), case.floats("losses"), 1e-5);
}

/// β = 0.1 and log-ratios 2 and −1: −ln σ(0.1 · 3) = ln(1 + e^−0.3) = 0.554355.
#[test]
fn dpo_loss_in_closed_form_and_its_gradient() {
    let one = |value: f32| Tensor::<1>::from_floats([value], &cpu());
    assert_close(dpo_loss(one(2.0), one(-1.0), 0.1), [(-0.3_f64).exp().ln_1p()], 1e-6);
    assert_close(dpo_loss(one(-500.0), one(500.0), 1.0), [1000.0], 1e-3);
    // dL/da = −β σ(−βδ)
    let slope = -0.1 / (1.0 + 0.3_f64.exp());
    assert_close(gradient(one(2.0), |chosen| dpo_loss(chosen, one(-1.0).autodiff(), 0.1).sum()), [slope], 1e-6);
    assert_close(gradient(one(-1.0), |rejected| dpo_loss(one(2.0).autodiff(), rejected, 0.1).sum()), [-slope], 1e-6);
}
