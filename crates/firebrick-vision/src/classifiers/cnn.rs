//! Sequential convolutional classifiers.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use firebrick_kernels::{Precision, Window};
use firebrick_types::Seed;
use rand::RngExt;

use super::classifier::Classifier;
use super::config::{CnnConfig, CnnLayer};
use crate::Error;

/// The weights of a convolution or a linear map.
#[derive(Module, Debug)]
struct Map {
    /// Of a convolution `[size · size · channels, out_channels]`, of a linear map `[inputs, outputs]`.
    weight: Param<Tensor<2>>,
    /// As many as there are columns.
    bias: Param<Tensor<1>>,
    #[module(skip)]
    precision: Precision,
}

impl Map {
    /// Of these weights; its bias is 0.
    fn new(weight: Tensor<2>) -> Self {
        let ([_, outputs], device) = (weight.dims(), weight.device());
        let bias = Param::from_tensor(Tensor::zeros([outputs], &device));
        Self { weight: Param::from_tensor(weight), bias, precision: Precision::F32 }
    }

    /// The map of every place of a window, `[batch, height, width, channels]` to the same with `out_channels`.
    fn convolve(&self, x: Tensor<4>, window: Window) -> Tensor<4> {
        let ([.., channels], [_, outputs]) = (x.dims(), self.weight.dims());
        let weight = self.weight.val().reshape([window.size, window.size, channels, outputs]);
        firebrick_kernels::conv2d_in(self.precision, x, weight, self.bias.val(), window)
    }

    /// `[batch, inputs]` to `[batch, outputs]`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        firebrick_kernels::linear_in(self.precision, x, self.weight.val(), Some(self.bias.val()))
    }
}

/// A sequential convolutional network: a classifier, or a denoiser.
#[derive(Module, Debug)]
pub struct Cnn {
    /// Of each layer that has weights, in order.
    maps: Vec<Map>,
    #[module(skip)]
    config: CnnConfig,
}

impl Cnn {
    /// Its layers.
    pub fn config(&self) -> &CnnConfig {
        &self.config
    }

    /// What every layer gives, `[batch, height, width, channels]` each; what follows a linear map is one pixel.
    ///
    /// # Panics
    /// If the images have another size.
    pub fn activations(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut seen = Vec::with_capacity(self.config.layers.len());
        self.pass(self.checked(images), 0, None, |x| seen.push(x.clone()));
        seen
    }

    /// The weights `[size · size · channels, out_channels]` or `[inputs, outputs]` of a layer, and its bias; of layers that have some.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn weights(&self, layer: usize) -> Option<(Tensor<2>, Tensor<1>)> {
        let before = self.config.layers[..layer].iter().filter(|layer| layer.is_map()).count();
        self.config.layers[layer].is_map().then(|| (self.maps[before].weight.val(), self.maps[before].bias.val()))
    }

    /// What the last layer gives, `[batch, outputs]`: of a classifier the logits of its classes, of a denoiser pixels.
    ///
    /// # Panics
    /// If the images have another size.
    pub fn outputs(&self, images: Tensor<4>) -> Tensor<2> {
        self.pass(self.checked(images), 0, None, |_| {})
    }

    /// The same in training: dropout leaves numbers out, as the seed of each image has it.
    ///
    /// # Panics
    /// If the images have another size, or there is not one seed of each.
    pub fn training_outputs(&self, images: Tensor<4>, seeds: &[Seed]) -> Tensor<2> {
        assert_eq!(images.dims()[0], seeds.len(), "one seed of each image");
        self.pass(self.checked(images), 0, Some(seeds), |_| {})
    }

    /// The scores of each image's classes, of what `layer` reads.
    ///
    /// # Panics
    /// If that is of another size.
    pub fn logits_from(&self, layer: usize, x: Tensor<4>) -> Tensor<2> {
        self.pass(x, layer, None, |_| {})
    }

    /// The same classifier, whose convolutions and linear maps round their factors to this, and those of their gradients.
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { maps: self.maps.into_iter().map(|map| Map { precision, ..map }).collect(), ..self }
    }

    fn checked(&self, images: Tensor<4>) -> Tensor<4> {
        let [_, height, width, channels] = images.dims();
        assert_eq!([height, width, channels], self.config.image, "height, width and channels of the images");
        images
    }

    /// The layers from the first on.
    fn pass(&self, x: Tensor<4>, first: usize, seeds: Option<&[Seed]>, mut see: impl FnMut(&Tensor<4>)) -> Tensor<2> {
        let [batch, ..] = x.dims();
        let skipped = self.config.layers[..first].iter().filter(|layer| layer.is_map()).count();
        let mut maps = self.maps[skipped..].iter();
        let mut next = || maps.next().expect("a map for every layer that has weights");
        let mut x = x;
        for (index, layer) in self.config.layers.iter().enumerate().skip(first) {
            let window = || layer.window().expect("a layer that has one");
            x = match *layer {
                CnnLayer::Conv { .. } => next().convolve(x, window()),
                CnnLayer::Relu => firebrick_kernels::relu(x),
                CnnLayer::MaxPool { .. } => firebrick_kernels::max_pool2d(x, window()),
                CnnLayer::AvgPool { .. } => firebrick_kernels::avg_pool2d(x, window()),
                CnnLayer::Dropout { probability } => match seeds {
                    Some(seeds) => dropped(x, probability, seeds, index),
                    None => x,
                },
                CnnLayer::Linear { width } => {
                    let inputs = x.shape().num_elements() / batch;
                    next().forward(x.reshape([batch, inputs])).reshape([batch, 1, 1, width])
                }
            };
            see(&x);
        }
        let scores = x.shape().num_elements() / batch;
        x.reshape([batch, scores])
    }
}

impl CnnConfig {
    /// The classifier with drawn weights: of standard deviation √(2 / inputs), so that rectified units keep the size of what they
    /// read; of the last map 1 / √inputs.
    ///
    /// He et al. 2015, [arXiv:1502.01852](https://arxiv.org/abs/1502.01852), eq. 10.
    ///
    /// # Errors
    /// As [`shapes`](Self::shapes).
    pub fn init(&self, seed: Seed, device: &Device) -> Result<Cnn, Error> {
        self.build(|index, [inputs, outputs], gain| {
            let seed = seed.derive(&format!("maps.{index}"));
            let weights = seed.normals(inputs * outputs, gain / (inputs as f64).sqrt());
            Tensor::from_data(TensorData::new(weights, [inputs, outputs]), device)
        })
    }

    /// The classifier with weights of 0, for those of a file.
    pub(super) fn blank(&self, device: &Device) -> Result<Cnn, Error> {
        // They take no memory yet.
        self.build(|_, shape, _| Tensor::<2>::zeros([1, 1], device).expand(shape))
    }

    fn build(&self, weights: impl Fn(usize, [usize; 2], f64) -> Tensor<2>) -> Result<Cnn, Error> {
        let shapes = self.shapes()?;
        let before = std::iter::once(self.image).chain(shapes.iter().copied());
        let sizes = self.layers.iter().zip(before).filter_map(|(layer, [height, width, channels])| match *layer {
            CnnLayer::Conv { channels: out, size, .. } => Some([size * size * channels, out]),
            CnnLayer::Linear { width: out } => Some([height * width * channels, out]),
            _ => None,
        });
        let sizes = sizes.collect::<Vec<_>>();
        let map = |(index, &size): (usize, &[usize; 2])| {
            let gain = if index + 1 == sizes.len() { 1.0 } else { std::f64::consts::SQRT_2 };
            Map::new(weights(index, size, gain))
        };
        Ok(Cnn { maps: sizes.iter().enumerate().map(map).collect(), config: self.clone() })
    }
}

impl Classifier for Cnn {
    /// # Panics
    /// As [`outputs`](Cnn::outputs).
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.outputs(images)
    }

    /// # Panics
    /// As [`training_outputs`](Cnn::training_outputs).
    fn training_logits(&self, images: Tensor<4>, seeds: &[Seed]) -> Tensor<2> {
        self.training_outputs(images, seeds)
    }
}

/// Each number left out with this probability, as its image's seed and the layer tell.
fn dropped(x: Tensor<4>, probability: f64, seeds: &[Seed], layer: usize) -> Tensor<4> {
    let dims = x.dims();
    let each = dims[1..].iter().product::<usize>();
    let mut kept = Vec::with_capacity(each * seeds.len());
    for seed in seeds {
        let mut rng = seed.derive("dropout").at(&[layer as u64]).rng();
        let factor = (1.0 / (1.0 - probability)) as f32;
        kept.extend((0..each).map(|_| if rng.random_bool(probability) { 0.0 } else { factor }));
    }
    let kept = Tensor::from_data(TensorData::new(kept, dims), &x.device());
    x * kept
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use firebrick_kernels::{Window, plain};
    use firebrick_tensor::Parameters;
    use firebrick_testkit::assert_close;

    use super::*;

    fn small() -> CnnConfig {
        CnnConfig::image(6, 7, 2).conv(4, 3, 1, 1).relu().max_pool(2, 2, 0).linear(5).relu().linear(3)
    }

    #[test]
    fn logits_are_the_layers_one_after_another() {
        let device = Device::flex();
        let model = small().init(Seed::new(1), &device).unwrap();
        let weights = Parameters::of(&model);
        let tensor = |name: &str| {
            let (_, _, values) = weights.iter().find(|(found, _, _)| *found == name).expect("a parameter of that name");
            Tensor::<1>::from_floats(values, &device)
        };
        let pixels = (0..2 * 84).map(|pixel| (pixel as f32).sin()).collect::<Vec<_>>();
        let images = Tensor::<1>::from_floats(pixels.as_slice(), &device).reshape([2, 6, 7, 2]);
        let weight = tensor("maps.0.weight").reshape([3, 3, 2, 4]);
        let x = plain::conv2d(images.clone(), weight, tensor("maps.0.bias"), Window { size: 3, stride: 1, padding: 1 });
        let x = plain::max_pool2d(plain::relu(x), Window { size: 2, stride: 2, padding: 0 }).reshape([2, 36]);
        let x = plain::linear(x, tensor("maps.1.weight").reshape([36, 5]), Some(tensor("maps.1.bias")));
        let x = plain::linear(plain::relu(x), tensor("maps.2.weight").reshape([5, 3]), Some(tensor("maps.2.bias")));
        assert_close(model.logits(images), x, 1e-5);
    }

    #[test]
    fn layers_that_fit_nothing_are_named() {
        let told = |config: CnnConfig| config.shapes().unwrap_err().to_string();
        assert!(told(small().conv(3, 3, 1, 1)).contains("layer 6: a window cannot move"));
        assert!(told(CnnConfig::image(4, 4, 1).conv(3, 7, 1, 1)).contains("layer 0: a window of 7"));
        assert!(told(CnnConfig::image(4, 4, 1).max_pool(2, 0, 0)).contains("moves by 0"));
        assert!(told(CnnConfig::image(4, 4, 1).max_pool(2, 1, 2)).contains("altogether"));
        assert!(told(CnnConfig::image(4, 4, 1).relu().linear(0)).contains("layer 1: it gives nothing"));
        assert!(told(CnnConfig::image(4, 4, 1).avg_pool(2, 1, 2)).contains("altogether"));
        assert!(told(CnnConfig::image(4, 4, 1).dropout(1.0)).contains("layer 0: a probability of 1"));
        assert!(told(CnnConfig::image(4, 0, 1)).contains("no pixels"));
    }

    #[test]
    fn every_layer_can_be_seen_and_dropout_acts_in_training_alone() {
        let device = Device::flex();
        let config = CnnConfig::image(4, 4, 1).conv(8, 3, 1, 1).relu().avg_pool(2, 2, 0).dropout(0.5).linear(3);
        let model = config.init(Seed::new(1), &device).unwrap();
        let images = Tensor::<1>::from_floats([0.5; 32], &device).reshape([2, 4, 4, 1]);
        let seen = model.activations(images.clone());
        let shapes = seen.iter().map(|x| x.dims()).collect::<Vec<_>>();
        assert_eq!(shapes, [[2, 4, 4, 8], [2, 4, 4, 8], [2, 2, 2, 8], [2, 2, 2, 8], [2, 1, 1, 3]]);
        let logits = model.logits(images.clone());
        assert_close(seen[4].clone().reshape([2, 3]), logits.clone(), 0.0);
        assert_close(seen[3].clone(), seen[2].clone(), 0.0);

        let seeds = [Seed::new(2), Seed::new(3)];
        let dropped = model.training_logits(images.clone(), &seeds);
        let alone = model.training_logits(images.clone().slice([1..2, 0..4, 0..4, 0..1]), &seeds[1..]);
        assert_close(dropped.clone().slice([1..2, 0..3]), alone, 0.0);
        assert!((dropped - logits.clone()).abs().max().into_scalar::<f32>() > 1e-3);
        // On the average dropout changes nothing before the next map.
        let many = 4000;
        let seeds = (0..many).map(|index| Seed::new(9).at(&[index])).collect::<Vec<_>>();
        let repeated = images.slice([0..1, 0..4, 0..4, 0..1]).repeat_dim(0, many as usize);
        let mean = model.training_logits(repeated, &seeds).mean_dim(0);
        assert_close(mean, logits.slice([0..1, 0..3]), 0.05);
    }

    #[test]
    fn the_known_plans_end_in_their_classes() {
        for (plan, maps, classes) in [
            (CnnConfig::lenet(), 5, 10),
            (CnnConfig::alexnet(), 8, 1000),
            (CnnConfig::vgg(11).unwrap(), 11, 1000),
            (CnnConfig::vgg(13).unwrap(), 13, 1000),
            (CnnConfig::vgg(16).unwrap(), 16, 1000),
            (CnnConfig::vgg(19).unwrap(), 19, 1000),
        ] {
            assert_eq!(plan.shapes().unwrap().last(), Some(&[1, 1, classes]));
            assert_eq!(plan.layers.iter().filter(|layer| layer.is_map()).count(), maps);
        }
        assert_eq!(CnnConfig::vgg(12), None);
    }
}
