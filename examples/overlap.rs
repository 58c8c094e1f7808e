//! Two shapes recovered from one picture in which they lie over each other.
//!
//! A classifier learns single shapes and has never seen two at once. A generative model of its activations then explains the
//! picture by two instances together: what one of them accounts for, the other need not.
//!
//! `cargo run --example overlap`, or with a folder of IDX files, `cargo run --example overlap -- ../shared/data/mnist`
#![allow(clippy::print_stdout)]

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use firebrick_tensor::Workers;
use firebrick_train::{FitConfig, Run};
use firebrick_types::Seed;
use firebrick_vision::classifiers::{self, Classifier, ClassifierConfig, CnnConfig, accuracy};
use firebrick_vision::generative::{
    Composition, Evidence, GenerativeConfig, GenerativeModel, MapConfig, SweepConfig, separate,
};
use firebrick_vision::images::glyphs::glyphs;
use firebrick_vision::images::{Images, TrainTest, pixels, read_folder};

fn main() -> anyhow::Result<()> {
    let seed = Seed::new(17);
    let TrainTest { train, test } = match std::env::args().nth(1) {
        Some(folder) => {
            let TrainTest { train, test } = read_folder(Path::new(&folder))?.images;
            TrainTest { train: train.chosen(0..train.len().min(12_000)), test }
        }
        None => TrainTest { train: glyphs(8000, seed.derive("train")), test: glyphs(1000, seed.derive("test")) },
    };
    let [height, width, channels] = train.size();
    let plan = CnnConfig::image(height, width, channels).conv(16, 5, 1, 2).relu().max_pool(2, 2, 0);
    let plan = plan.conv(32, 5, 1, 2).relu().max_pool(2, 2, 0).linear(128).relu().linear(train.classes());
    let fit = FitConfig { learning_rate: 2e-3, ..FitConfig::default() };
    let config = ClassifierConfig { epochs: 2, batch_size: 64, micro_batch_size: 32, shift: 2, fit };
    let cnn = plan.init(seed.derive("cnn"), &Device::flex().autodiff())?;
    let cnn = classifiers::fit(cnn, &train, &config, Run::new(seed))?.valid();
    let right = accuracy(&cnn, &test, 100, &Workers::default());
    println!("the classifier is right on {right:.3} of single shapes");
    assert!(right > 0.9, "the classifier did not learn single shapes");
    let model =
        GenerativeModel::fit(cnn, &train, &GenerativeConfig { images: 4000, ..GenerativeConfig::default() }, seed)?;

    // The first pictures of two classes that differ.
    let first = test.labels()[0];
    let second = (0..test.len()).find(|&index| test.labels()[index] != first).expect("there are two classes");
    let [a, b] = [0, second].map(|index| picture(&test, index));
    let both = Evidence { images: a.max_pair(b), visible: Tensor::ones([1, height, width, 1], &Device::flex()) };
    println!("\n{} over {}:\n{}", first, test.labels()[second], drawing(&both.images, width));
    println!("the classifier's first two: {:?}", best(&model, &both.images));

    let config = MapConfig { steps: 100, ..MapConfig::default() };
    let found = separate(&model, &both, None, 5, Composition::Max, &SweepConfig::default(), &config)?;
    for (labels, rendered) in found.labels.iter().zip(&found.rendered) {
        println!("\nan instance of {}:\n{}", labels[0], drawing(rendered, width));
        println!("the classifier's first two: {:?}", best(&model, rendered));
    }
    Ok(())
}

fn picture(images: &Images, index: usize) -> Tensor<4> {
    pixels(images.image(index), images.size(), &Device::flex())
}

/// The two likeliest labels with their probabilities.
fn best(model: &GenerativeModel, picture: &Tensor<4>) -> Vec<(usize, f32)> {
    let probabilities = activation::softmax(model.network().cnn().logits(picture.clone()), 1).into_data();
    let mut labels = probabilities.iter::<f32>().enumerate().collect::<Vec<_>>();
    labels.sort_by(|a, b| b.1.total_cmp(&a.1));
    labels.truncate(2);
    labels
}

/// A picture in characters, every second row.
fn drawing(picture: &Tensor<4>, width: usize) -> String {
    let pixels = picture.clone().mean_dim(3).into_data().iter::<f32>().collect::<Vec<_>>();
    let character = |pixel: &f32| [' ', '.', ':', '+', '#'][(pixel.clamp(0.0, 0.99) * 5.0) as usize];
    let rows = pixels.chunks_exact(width).step_by(2).map(|row| row.iter().map(character).collect::<String>());
    rows.collect::<Vec<_>>().join("\n")
}
