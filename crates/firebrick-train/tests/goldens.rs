//! The optimiser, schedules and distillation against numbers of PyTorch (firebrick-testkit/goldens/make.py).

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use firebrick_tensor::Workers;
use firebrick_testkit::goldens::{DISTILL, OPTIM};
use firebrick_testkit::{assert_close, cpu, golden, gradient};
use firebrick_train::distill::{TeacherTop, top_k_kl};
use firebrick_train::{AdamW, AdamWConfig, EpsilonForm, Gradients, Schedule};

#[derive(Module, Debug)]
struct Vector {
    a: Param<Tensor<1>>,
}

/// One step at a time with the recorded gradients, in both forms of ε.
#[test]
fn t19_epsilon_stands_in_two_places() {
    let case = golden(OPTIM, "adam_epsilon");
    for (form, name) in [(EpsilonForm::Pytorch, "after_a_pytorch"), (EpsilonForm::Tensorflow, "after_a_tensorflow")] {
        let config = AdamWConfig {
            beta_1: case.number("beta_1"),
            beta_2: case.number("beta_2"),
            epsilon: case.number("epsilon"),
            epsilon_form: form,
            weight_decay: 0.0,
        };
        let length = case.floats("a").len();
        let steps = case.floats("gradients_a").len() / length;
        let start = case.floats("a").iter().map(|&value| value as f32).collect::<Vec<_>>();
        let device = cpu().autodiff();
        let mut module = Vector { a: Param::from_tensor(Tensor::from_floats(start.as_slice(), &device)) };
        let mut optimizer = AdamW::new(config);
        for step in 0..steps {
            let wanted = &case.floats("gradients_a")[step * length..(step + 1) * length];
            let wanted = wanted.iter().map(|&value| value as f32).collect::<Vec<_>>();
            // The gradient of ⟨a, g⟩ is g.
            let loss = (module.a.val() * Tensor::from_floats(wanted.as_slice(), &device)).sum();
            let gradients = Gradients::of(&module, &loss);
            module = optimizer.step(module, gradients, case.number("learning_rate"), &Workers::default());
            let after = &case.floats(name)[step * length..(step + 1) * length];
            assert_close(module.a.val().without_autodiff(), after, 1e-5);
        }
    }
}

#[test]
fn schedules_are_the_references() {
    let case = golden(OPTIM, "linear_to_zero");
    let total = case.number("total_samples") as u64;
    let schedule = Schedule::Linear { warmup: 0, total };
    let found = case.ints("samples").into_iter().map(|samples| case.number("peak") * schedule.factor(samples as u64));
    assert_close(found.collect::<Vec<_>>(), case.floats("learning_rates"), 1e-9);
}

/// With the whole vocabulary the rest vanishes; a tiny rest is summed without cancellation; an equal student costs nothing.
#[test]
fn t29_the_rest_is_a_category() {
    for name in ["top_3", "top_all", "equal", "teacher_rest_tiny", "student_rest_tiny"] {
        let case = golden(DISTILL, name);
        let k = *case.shape("top_ids").last().expect("k is the last axis");
        let top = TeacherTop::new(case.tensor::<3>("teacher_logits", &cpu()).flatten(0, 1), k);
        let student = case.tensor::<3>("student_logits", &cpu());
        assert_close(top_k_kl(&top, student.clone().flatten(0, 1)), case.floats("kl"), 1e-4);
        let loss = |student: Tensor<3>| {
            let top = if student.is_autodiff() { top.clone().autodiff() } else { top.clone() };
            top_k_kl(&top, student.flatten(0, 1)).mean()
        };
        assert_close(gradient(student, loss), case.floats("grad_student_logits"), 1e-4);
    }
}
