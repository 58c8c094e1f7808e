//! Sequential convolutional classifiers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_kernels::Window;
use firebrick_types::Seed;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::layers::{Projection, Source};

/// The layers of a classifier, from the image to the scores of its classes.
///
/// ```
/// use firebrick_models::CnnConfig;
///
/// // LeNet's plan with rectified units: two convolutions, each pooled, and two linear maps.
/// let config = CnnConfig::image(28, 28, 1)
///     .conv(32, 3, 1, 1)
///     .relu()
///     .max_pool(2, 2, 0)
///     .conv(64, 3, 1, 1)
///     .relu()
///     .max_pool(2, 2, 0)
///     .linear(128)
///     .relu()
///     .linear(10);
/// assert_eq!(config.shapes()?.last(), Some(&[1, 1, 10]));
/// # Ok::<(), firebrick_models::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CnnConfig {
    /// Height, width and channels of an image.
    pub image: [usize; 3],
    /// What is done, in order.
    pub layers: Vec<CnnLayer>,
}

/// One layer of a [`Cnn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CnnLayer {
    /// [`firebrick_kernels::conv2d`].
    Conv {
        /// Channels of its result.
        channels: usize,
        /// Pixels on each side of its window.
        size: usize,
        /// Pixels from one place of the window to the next.
        stride: usize,
        /// Pixels that the window may reach beyond each edge.
        padding: usize,
    },
    /// [`firebrick_kernels::relu`].
    Relu,
    /// [`firebrick_kernels::max_pool2d`].
    MaxPool {
        /// Pixels on each side of its window.
        size: usize,
        /// Pixels from one place of the window to the next.
        stride: usize,
        /// Pixels that the window may reach beyond each edge.
        padding: usize,
    },
    /// [`firebrick_kernels::linear`] of all that the layer before gives, in the order `height, width, channels`.
    Linear {
        /// Numbers of its result.
        width: usize,
    },
}

impl CnnLayer {
    /// The window that moves over the image, of layers that have one.
    fn window(self) -> Option<Window> {
        match self {
            Self::Conv { size, stride, padding, .. } | Self::MaxPool { size, stride, padding } => {
                Some(Window { size, stride, padding })
            }
            Self::Relu | Self::Linear { .. } => None,
        }
    }
}

impl CnnConfig {
    /// No layers yet.
    pub fn image(height: usize, width: usize, channels: usize) -> Self {
        Self { image: [height, width, channels], layers: Vec::new() }
    }

    /// With a convolution.
    #[must_use]
    pub fn conv(self, channels: usize, size: usize, stride: usize, padding: usize) -> Self {
        self.with(CnnLayer::Conv { channels, size, stride, padding })
    }

    /// With a rectifier.
    #[must_use]
    pub fn relu(self) -> Self {
        self.with(CnnLayer::Relu)
    }

    /// With a pooling layer.
    #[must_use]
    pub fn max_pool(self, size: usize, stride: usize, padding: usize) -> Self {
        self.with(CnnLayer::MaxPool { size, stride, padding })
    }

    /// With a linear map.
    #[must_use]
    pub fn linear(self, width: usize) -> Self {
        self.with(CnnLayer::Linear { width })
    }

    fn with(mut self, layer: CnnLayer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Height, width and channels of what every layer gives; what follows a linear map is one pixel.
    ///
    /// # Errors
    /// Where a layer's window fits nowhere or does not move, a number is 0, or an image follows a linear map; the layer's index
    /// is told.
    pub fn shapes(&self) -> Result<Vec<[usize; 3]>, Error> {
        let wrong = |layer, what| Err(Error::Layer { layer, what });
        if self.image.contains(&0) {
            return Err(Error::NoPixels { image: self.image });
        }
        let mut shape = self.image;
        let mut flat = false;
        let mut shapes = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let [height, width, channels] = shape;
            if let Some(window) = layer.window() {
                let Window { size, stride, padding } = window;
                let least = height.min(width) + 2 * padding;
                if flat {
                    return wrong(index, "a window cannot move over what a linear map gives".to_owned());
                }
                if size == 0 || stride == 0 || size > least {
                    let what = format!("a window of {size} that moves by {stride} on {height} x {width} and {padding}");
                    return wrong(index, what);
                }
                if matches!(layer, CnnLayer::MaxPool { .. }) && 2 * padding > size {
                    return wrong(index, format!("a window of {size} may lie in a padding of {padding} altogether"));
                }
                shape = [window.places(height), window.places(width), channels];
            }
            match *layer {
                CnnLayer::Conv { channels: 0, .. } | CnnLayer::Linear { width: 0 } => {
                    return wrong(index, "it gives nothing".to_owned());
                }
                CnnLayer::Conv { channels, .. } => shape[2] = channels,
                CnnLayer::Linear { width } => (shape, flat) = ([1, 1, width], true),
                CnnLayer::Relu | CnnLayer::MaxPool { .. } => {}
            }
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// The classifier with drawn weights: of standard deviation √(2 / inputs), so that rectified units keep the size of what they
    /// read; of the last map 1 / √inputs.
    ///
    /// He et al. 2015, [arXiv:1502.01852](https://arxiv.org/abs/1502.01852), eq. 10.
    ///
    /// # Errors
    /// As [`shapes`](Self::shapes).
    pub fn init(&self, seed: Seed, device: &Device) -> Result<Cnn, Error> {
        self.build(Source::Drawn(seed), device)
    }

    /// The classifier with weights of 0, for those of a file.
    pub(crate) fn blank(&self, device: &Device) -> Result<Cnn, Error> {
        self.build(Source::Zero, device)
    }

    fn build(&self, source: Source, device: &Device) -> Result<Cnn, Error> {
        let shapes = self.shapes()?;
        let before = std::iter::once(self.image).chain(shapes.iter().copied());
        let sizes = self.layers.iter().zip(before).filter_map(|(layer, [height, width, channels])| match *layer {
            CnnLayer::Conv { channels: out, size, .. } => Some([size * size * channels, out]),
            CnnLayer::Linear { width: out } => Some([height * width * channels, out]),
            CnnLayer::Relu | CnnLayer::MaxPool { .. } => None,
        });
        let sizes = sizes.collect::<Vec<_>>();
        let map = |(index, &size): (usize, &[usize; 2])| {
            let gain = if index + 1 == sizes.len() { 1.0 } else { std::f64::consts::SQRT_2 };
            Projection::new(size, true, gain, source.derive(&format!("maps.{index}")), device)
        };
        Ok(Cnn { maps: sizes.iter().enumerate().map(map).collect(), config: self.clone() })
    }
}

/// A convolutional classifier.
#[derive(Module, Debug)]
pub struct Cnn {
    /// Of each convolution `[size · size · channels, out_channels]`, of each linear map `[inputs, outputs]`; in order.
    maps: Vec<Projection>,
    #[module(skip)]
    config: CnnConfig,
}

impl Cnn {
    /// Its layers.
    pub fn config(&self) -> &CnnConfig {
        &self.config
    }

    /// The scores of each image's classes, before any softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, height, width, channels]`
    /// - returns `[batch, classes]`
    ///
    /// # Panics
    /// If the images have another size.
    pub fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let [batch, height, width, channels] = images.dims();
        assert_eq!([height, width, channels], self.config.image, "height, width and channels of the images");
        let mut maps = self.maps.iter();
        let mut next = || maps.next().expect("a map for every layer that has weights");
        let mut x = images;
        for layer in &self.config.layers {
            let window = || layer.window().expect("a layer that has one");
            x = match *layer {
                CnnLayer::Conv { .. } => next().convolve(x, window()),
                CnnLayer::Relu => firebrick_kernels::relu(x),
                CnnLayer::MaxPool { .. } => firebrick_kernels::max_pool2d(x, window()),
                CnnLayer::Linear { width } => {
                    let inputs = x.shape().num_elements() / batch;
                    next().forward(x.reshape([batch, inputs])).reshape([batch, 1, 1, width])
                }
            };
        }
        let scores = x.shape().num_elements() / batch;
        x.reshape([batch, scores])
    }
}

#[cfg(test)]
mod tests {
    use firebrick_kernels::plain;
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
        assert!(told(CnnConfig::image(4, 0, 1)).contains("no pixels"));
    }
}
