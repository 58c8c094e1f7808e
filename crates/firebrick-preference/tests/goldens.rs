//! The ranked loss against numbers of PyTorch (firebrick-testkit/goldens/make.py).

use firebrick_preference::ranked_loss;
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
