//! The layers of a classifier, and what they give.

use firebrick_kernels::Window;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The layers of a classifier, from the image to the scores of its classes.
///
/// ```
/// use firebrick_vision::classifiers::CnnConfig;
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
/// # Ok::<(), firebrick_vision::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CnnConfig {
    /// Height, width and channels of an image.
    pub image: [usize; 3],
    /// What is done, in order.
    pub layers: Vec<CnnLayer>,
}

/// One layer of a [`Cnn`](super::Cnn).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
    /// [`firebrick_kernels::avg_pool2d`].
    AvgPool {
        /// Pixels on each side of its window.
        size: usize,
        /// Pixels from one place of the window to the next.
        stride: usize,
        /// Pixels that the window may reach beyond each edge; they count as 0.
        padding: usize,
    },
    /// In training each number is 0 with this probability, and divided by 1 less it otherwise; nothing at other times.
    Dropout {
        /// At least 0 and below 1.
        probability: f64,
    },
    /// [`firebrick_kernels::linear`] of all that the layer before gives, in the order `height, width, channels`.
    Linear {
        /// Numbers of its result.
        width: usize,
    },
}

impl CnnLayer {
    /// The window that moves over the image, of layers that have one.
    pub fn window(self) -> Option<Window> {
        match self {
            Self::Conv { size, stride, padding, .. }
            | Self::MaxPool { size, stride, padding }
            | Self::AvgPool { size, stride, padding } => Some(Window { size, stride, padding }),
            Self::Relu | Self::Dropout { .. } | Self::Linear { .. } => None,
        }
    }

    /// Whether it has weights.
    pub fn is_map(self) -> bool {
        matches!(self, Self::Conv { .. } | Self::Linear { .. })
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

    /// With a layer that pools by means.
    #[must_use]
    pub fn avg_pool(self, size: usize, stride: usize, padding: usize) -> Self {
        self.with(CnnLayer::AvgPool { size, stride, padding })
    }

    /// With dropout.
    #[must_use]
    pub fn dropout(self, probability: f64) -> Self {
        self.with(CnnLayer::Dropout { probability })
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
                if !layer.is_map() && 2 * padding > size {
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
                CnnLayer::Dropout { probability } if !(0.0..1.0).contains(&probability) => {
                    return wrong(index, format!("a probability of {probability}; it must be at least 0 and below 1"));
                }
                CnnLayer::Relu | CnnLayer::Dropout { .. } | CnnLayer::MaxPool { .. } | CnnLayer::AvgPool { .. } => {}
            }
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// The plan of LeNet-5 with rectified units, for images of 28 x 28 with one channel: two convolutions of 5 x 5, each pooled by
    /// means, and linear maps of 120, 84 and 10.
    ///
    /// LeCun et al. 1998, figure 2.
    pub fn lenet() -> Self {
        let features = Self::image(28, 28, 1).conv(6, 5, 1, 2).relu().avg_pool(2, 2, 0).conv(16, 5, 1, 0).relu();
        features.avg_pool(2, 2, 0).linear(120).relu().linear(84).relu().linear(10)
    }

    /// AlexNet as torchvision has it, for images of 224 x 224 with three channels and a thousand classes.
    ///
    /// Krizhevsky 2014, [arXiv:1404.5997](https://arxiv.org/abs/1404.5997).
    pub fn alexnet() -> Self {
        let features = Self::image(224, 224, 3).conv(64, 11, 4, 2).relu().max_pool(3, 2, 0);
        let features = features.conv(192, 5, 1, 2).relu().max_pool(3, 2, 0).conv(384, 3, 1, 1).relu();
        let features = features.conv(256, 3, 1, 1).relu().conv(256, 3, 1, 1).relu().max_pool(3, 2, 0);
        features.dropout(0.5).linear(4096).relu().dropout(0.5).linear(4096).relu().linear(1000)
    }

    /// VGG of this many layers with weights (11, 13, 16 or 19), for images of 224 x 224 with three channels and a thousand classes; none
    /// of another depth. One with batch norm has the same layers once its norms are [folded](super::open_torchvision).
    ///
    /// Simonyan and Zisserman 2014, [arXiv:1409.1556](https://arxiv.org/abs/1409.1556), table 1, columns A, B, D and E.
    pub fn vgg(depth: usize) -> Option<Self> {
        let convolutions = match depth {
            11 => [1, 1, 2, 2, 2],
            13 => [2, 2, 2, 2, 2],
            16 => [2, 2, 3, 3, 3],
            19 => [2, 2, 4, 4, 4],
            _ => return None,
        };
        let blocks = [64, 128, 256, 512, 512].into_iter().zip(convolutions);
        let features = blocks.fold(Self::image(224, 224, 3), |plan, (channels, count)| {
            (0..count).fold(plan, |plan, _| plan.conv(channels, 3, 1, 1).relu()).max_pool(2, 2, 0)
        });
        let hidden = features.linear(4096).relu().dropout(0.5).linear(4096).relu().dropout(0.5);
        Some(hidden.linear(1000))
    }
}
