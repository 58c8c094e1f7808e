//! Weights in torchvision's layout: every activation is torchvision's.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use firebrick_testkit::cpu;
use firebrick_vision::classifiers::{CnnConfig, open_torchvision};
use serde::Deserialize;

/// What `torchvision/make.py` wrote of a network.
#[derive(Deserialize)]
struct Golden {
    config: CnnConfig,
    activations: Vec<Probe>,
}

/// Some numbers of an activation, `step` apart.
#[derive(Deserialize)]
struct Probe {
    length: usize,
    step: usize,
    values: Vec<f32>,
}

/// The plan of a network, once its activations were held against torchvision's.
fn hold(path: &Path) -> CnnConfig {
    let Golden { config, activations } = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let model = open_torchvision(&path.with_extension("safetensors"), &config, &cpu()).unwrap();
    let [height, width, channels] = config.image;
    let pixels = (0..height * width * channels).map(|index| (0.37 * index as f64 + 0.11).sin() as f32);
    let image = Tensor::<1>::from_floats(pixels.collect::<Vec<_>>().as_slice(), &cpu());
    let found = model.activations(image.reshape([1, height, width, channels]));
    assert_eq!(found.len(), activations.len(), "layers of {}", path.display());
    for (layer, (found, golden)) in found.into_iter().zip(activations).enumerate() {
        let found = found.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(found.len(), golden.length, "layer {layer} of {}", path.display());
        for (found, expected) in found.into_iter().step_by(golden.step).zip(golden.values) {
            let close = (found - expected).abs() <= 1e-4 * expected.abs().max(1.0);
            assert!(close, "layer {layer} of {}: {found}, torchvision has {expected}", path.display());
        }
    }
    config
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torchvision").join(name).with_extension("json")
}

#[test]
fn lenet_alexnet_and_vgg_with_and_without_norms_give_torchvisions_activations() {
    assert_eq!(hold(&golden("lenet")), CnnConfig::lenet());
    for name in ["alexnet", "vgg", "vgg_bn"] {
        hold(&golden(name));
    }
}

/// Those of full size take gigabytes: `make.py --full` writes them where this looks.
#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn torchvisions_own_networks_are_the_known_plans() {
    let Some(dir) = std::env::var_os("FIREBRICK_TORCHVISION").map(PathBuf::from) else {
        return eprintln!("skipped: FIREBRICK_TORCHVISION is not set");
    };
    assert_eq!(hold(&dir.join("alexnet.json")), CnnConfig::alexnet());
    for depth in [11, 13, 16, 19] {
        for name in [format!("vgg{depth}.json"), format!("vgg{depth}_bn.json")] {
            assert_eq!(Some(hold(&dir.join(name))), CnnConfig::vgg(depth));
        }
    }
}
