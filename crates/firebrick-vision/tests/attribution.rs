//! Attribution beside Captum, and what it keeps.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use firebrick_testkit::{assert_close, cpu};
use firebrick_types::Seed;
use firebrick_vision::attribution::{self, *};
use firebrick_vision::classifiers::{Classifier, Cnn, CnnConfig, open_torchvision};

const CLASSES: [usize; 2] = [3, 0];

/// The network of `attribution/make.py`.
fn network() -> Cnn {
    let plan = CnnConfig::image(12, 12, 2).conv(6, 3, 1, 1).relu().max_pool(3, 2, 0);
    let plan = plan.conv(8, 3, 2, 1).relu().avg_pool(2, 1, 0).linear(9).relu().linear(4);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attribution/model.safetensors");
    open_torchvision(&path, &plan, &cpu()).unwrap()
}

fn images() -> Tensor<4> {
    let pixels = (0..2 * 12 * 12 * 2).map(|index| ((0.37 * f64::from(index) + 0.11).sin() as f32).abs());
    Tensor::from_data(TensorData::new(pixels.collect::<Vec<_>>(), [2, 12, 12, 2]), &cpu())
}

#[test]
fn attributions_are_captums() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attribution/goldens.json");
    let goldens: BTreeMap<String, Vec<f32>> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (network, images, mut held) = (network(), images(), 0);
    let mut hold = |name: &str, found: Tensor<4>| {
        let found = found.into_data().try_to_vec::<f32>().unwrap();
        let expected = &goldens[name];
        assert_eq!(found.len(), expected.len(), "{name}");
        let most = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= 1e-4 * most, "{name}, number {index}: {found}, Captum has {expected}");
        }
        held += 1;
    };
    hold("gradient", gradient(&network, images.clone(), &CLASSES));
    hold("gradient_times_input", gradient_times_input(&network, images.clone(), &CLASSES));
    hold("integrated_gradients", integrated_gradients(&network, images.clone(), &CLASSES, 20));
    hold("deconvnet", deconvnet(&network, images.clone(), &CLASSES));
    hold("guided_backprop", guided_backprop(&network, images.clone(), &CLASSES));
    hold("grad_cam", grad_cam(&network, images.clone(), &CLASSES, 4));
    hold("occlusion", occlusion(&network, images, &CLASSES, 4, 2));
    assert_eq!(held, goldens.len());
}

/// Completeness: attributions add up to what the image adds to the score of an image of zeros.
#[test]
fn integrated_gradients_are_complete() {
    let (network, images) = (network(), images());
    let sums = integrated_gradients(&network, images.clone(), &CLASSES, 200).sum_dim(3).sum_dim(2).sum_dim(1);
    let scores = |images: Tensor<4>| network.logits(images).into_data().try_to_vec::<f32>().unwrap();
    let (with, without) = (scores(images.clone()), scores(images.zeros_like()));
    let expected = [with[3] - without[3], with[4] - without[4]];
    assert_close(sums.reshape([2]), Tensor::<1>::from_floats(expected, &cpu()), 2e-3);
}

/// O7: what a winner-take-all walk passes on is neither lost nor made, where every denominator is positive.
#[test]
fn o7_excitation_backprop_conserves_probability() {
    // All weights positive, so that every unit has a positive input.
    let plan =
        CnnConfig::image(6, 6, 1).conv(3, 3, 1, 1).relu().max_pool(2, 2, 0).avg_pool(3, 1, 1).linear(4).linear(3);
    let mut weights = firebrick_tensor::Parameters::default();
    let drawn = plan.init(Seed::new(1), &cpu()).unwrap();
    for (name, shape, values) in firebrick_tensor::Parameters::of(&drawn).iter() {
        weights.insert(name, shape.to_vec(), values.iter().map(|value| value.abs() + 0.01).collect());
    }
    let network = weights.load(drawn).unwrap();
    let image = images().slice([0..2, 0..6, 0..6, 0..1]);
    let sums = excitation_backprop(&network, image, &[2, 1]).sum_dim(3).sum_dim(2).sum_dim(1);
    assert_close(sums.reshape([2]), Tensor::<1>::ones([2], &cpu()), 1e-4);
}

/// O7: the gradient is that of automatic differentiation, and deconvnets are guided backprop where every unit is on.
#[test]
fn o7_the_gradient_is_that_of_automatic_differentiation() {
    let plan = CnnConfig::image(7, 7, 2)
        .conv(3, 3, 2, 1)
        .relu()
        .max_pool(2, 1, 1)
        .avg_pool(2, 2, 0)
        .linear(5)
        .relu()
        .linear(3);
    let network = plan.init(Seed::new(2), &cpu()).unwrap();
    let images = images().slice([0..2, 0..7, 0..7, 0..2]);
    let tracked = plan.init(Seed::new(2), &cpu().autodiff()).unwrap();
    let x = images.clone().autodiff().require_grad();
    let scores = tracked.logits(x.clone());
    let total = scores.clone().slice([0..1, 2..3]).sum() + scores.slice([1..2, 0..1]).sum();
    let expected = x.grad(&total.backward()).unwrap();
    assert_close(gradient(&network, images, &[2, 0]), expected, 1e-5);
}

#[test]
fn o7_deconvnets_are_guided_where_every_unit_is_on() {
    let plan = CnnConfig::image(5, 5, 1).conv(3, 3, 1, 1).relu().linear(3);
    let mut weights = firebrick_tensor::Parameters::default();
    let drawn = plan.init(Seed::new(1), &cpu()).unwrap();
    for (name, shape, values) in firebrick_tensor::Parameters::of(&drawn).iter() {
        // A bias that no weight outweighs.
        let bias = if name == "maps.0.bias" { 100.0 } else { 0.0 };
        weights.insert(name, shape.to_vec(), values.iter().map(|value| value + bias).collect());
    }
    let network = weights.load(drawn).unwrap();
    let images = images().slice([0..1, 0..5, 0..5, 0..1]);
    assert_close(deconvnet(&network, images.clone(), &[1]), guided_backprop(&network, images, &[1]), 0.0);
}

#[test]
fn attributions_of_a_batch_are_those_of_its_images() {
    let (network, images) = (network(), images());
    let many = images.clone().repeat_dim(0, 40);
    let classes = [CLASSES; 40].concat();
    for method in [gradient, attribution::contrastive_excitation_backprop] {
        let expected = method(&network, images.clone(), &CLASSES).repeat_dim(0, 40);
        assert_close(method(&network, many.clone(), &classes), expected, 0.0);
    }
}
