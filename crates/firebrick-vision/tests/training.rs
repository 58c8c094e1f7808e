//! Classification, through the whole training of a small network.

use std::time::Duration;

use burn::module::Module;
use firebrick_tensor::{Parameters, Workers};
use firebrick_testkit::{assert_close, cpu};
use firebrick_train::{Checkpoints, Error, Event, FitConfig, Observer, ObserverError, Run};
use firebrick_types::Seed;
use firebrick_vision::classifiers::{self, Classifier, ClassifierConfig, Cnn, CnnConfig, accuracy, losses};
use firebrick_vision::images::{Images, pixels};
use rand::RngExt;

const SIZE: [usize; 3] = [8, 8, 1];

/// Bars that stand or lie, somewhere, with noise.
fn bars(count: u64) -> Images {
    let mut images = Images::new(SIZE);
    for index in 0..count {
        let mut rng = Seed::new(5).at(&[index]).rng();
        let (label, place) = (rng.random_range(0..2_u8), rng.random_range(1..7));
        let bar = |row: usize, column: usize| if label == 0 { row == place } else { column == place };
        let image = (0..64).map(|pixel| if bar(pixel / 8, pixel % 8) { 220 } else { 0 } + rng.random_range(0..30_u8));
        images.push(&image.collect::<Vec<_>>(), label);
    }
    images
}

fn model() -> Cnn {
    let plan = CnnConfig::image(8, 8, 1).conv(4, 3, 1, 1).relu().max_pool(2, 2, 0).dropout(0.1).linear(2);
    plan.init(Seed::new(1), &cpu().autodiff()).unwrap()
}

fn config() -> ClassifierConfig {
    let fit = FitConfig { learning_rate: 1e-2, ..FitConfig::default() };
    ClassifierConfig { epochs: 4, batch_size: 20, micro_batch_size: 7, shift: 1, fit }
}

/// The accuracies that were told, and the step at which the run is killed.
#[derive(Default)]
struct Told {
    unit: &'static str,
    accuracies: Vec<f64>,
    kill_at: Option<u64>,
}

impl Observer for Told {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Begin { unit, .. } => self.unit = unit,
            Event::Step { done, values, .. } => {
                let (_, accuracy) = values.iter().find(|(name, _)| name == "accuracy").unwrap();
                self.accuracies.push(*accuracy);
                if self.kill_at == Some(done) {
                    return Err("killed".into());
                }
            }
        }
        Ok(())
    }
}

#[test]
fn bars_are_told_apart_after_some_passes() {
    let mut told = Told::default();
    let model =
        classifiers::fit(model(), &bars(330), &config(), Run::new(Seed::new(2)).observer(&mut told)).unwrap().valid();
    assert_eq!((told.unit, told.accuracies.len()), ("images", 66));
    let mean = |accuracies: &[f64]| accuracies.iter().sum::<f64>() / accuracies.len() as f64;
    assert!(mean(&told.accuracies[..5]) < 0.85 && mean(&told.accuracies[60..]) > 0.95, "{:?}", told.accuracies);
    let found = accuracy(&model, &bars(200), 64, &Workers::default());
    assert!(found > 0.98, "{found}");
    assert_eq!(found, accuracy(&model, &bars(200), 9, &Workers::new(3)));
}

#[test]
fn micro_batches_change_a_step_by_rounding_alone() {
    let trained = |micro_batch_size| {
        let config = ClassifierConfig { epochs: 1, micro_batch_size, ..config() };
        let model = classifiers::fit(model(), &bars(20), &config, Run::new(Seed::new(2))).unwrap().valid();
        model.logits(pixels(bars(3).image(2), SIZE, &cpu()))
    };
    assert_close(trained(20), trained(3), 1e-4);
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_bits() {
    let train = |run: Run<'_, _>, kill_at| {
        let mut told = Told { kill_at, ..Told::default() };
        classifiers::fit(model(), &bars(50), &config(), run.observer(&mut told))
    };
    let run = || Run::new(Seed::new(2));
    let whole = train(run(), None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = || Checkpoints::new(dir.path(), Duration::ZERO);
    assert!(train(run().checkpoints(checkpoints()), Some(4)).is_err());
    let resumed = train(run().checkpoints(checkpoints()), None).unwrap();
    assert_eq!(Parameters::of(&resumed), Parameters::of(&whole));
}

#[test]
fn losses_are_those_of_softmax_and_no_images_are_an_error() {
    let logits = burn::tensor::Tensor::<2>::from_floats([[0.0, 0.0], [1.0, 3.0]], &cpu());
    let expected = burn::tensor::Tensor::<1>::from_floats([2.0_f32.ln(), (1.0 + 2.0_f32.exp()).ln()], &cpu());
    assert_close(losses(logits, &[1, 0]), expected, 1e-6);
    let none = classifiers::fit(model(), &Images::new(SIZE), &config(), Run::new(Seed::new(2)));
    assert!(matches!(none, Err(Error::Empty { .. })));
}
