//! The part of a classifier whose activations are modelled, as blocks of a convolution, a rectifier and, where there is one, a pool.

use burn::tensor::{Device, Tensor, activation};
use firebrick_kernels::{Precision, Window, conv2d, conv2d_in, max_pool2d, rectified_moments};

use super::belief::{Belief, Level, Upward};
use crate::Error;
use crate::classifiers::{Cnn, CnnLayer};

/// A convolution that keeps the size of what it reads, a rectifier, and a pool of windows side by side.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// `[size, size, channels, out_channels]`
    pub(crate) weight: Tensor<4>,
    /// `[out_channels]`
    pub(crate) bias: Tensor<1>,
    pub(crate) window: Window,
    /// Pixels on each side of a window of the pool; 1 where there is none.
    pub(crate) pool: usize,
    /// Height, width and channels of what the block gives.
    pub(crate) shape: [usize; 3],
}

impl Block {
    /// What the block's rectifier gives.
    pub(crate) fn rectified(&self, x: Tensor<4>) -> Tensor<4> {
        firebrick_kernels::relu(conv2d(x, self.weight.clone(), self.bias.clone(), self.window))
    }
}

/// A classifier in blocks, and its head: the layers after the last block.
#[derive(Clone, Debug)]
pub struct Network {
    cnn: Cnn,
    pub(crate) blocks: Vec<Block>,
    /// The first layer of the head.
    head: usize,
    classes: usize,
}

impl Network {
    /// The blocks of a classifier, frozen.
    ///
    /// # Errors
    /// If a layer before the first linear map is not part of a block: a convolution with a stride or another size of its result, a
    /// rectifier without a convolution before it, a pool by means, or one whose windows overlap or leave pixels out. Its index is told.
    pub fn of(cnn: Cnn) -> Result<Self, Error> {
        let config = cnn.config();
        let shapes = config.shapes().expect("a classifier's layers fit each other");
        let layers = &config.layers;
        let head = layers.iter().position(|layer| matches!(layer, CnnLayer::Linear { .. })).unwrap_or(layers.len());
        let mut blocks = Vec::new();
        let (mut input, mut index) = (config.image, 0);
        while index < head {
            let refuse =
                |layer: usize, kind, reason: &str| Err(Error::NotModelled { layer, kind, reason: reason.to_owned() });
            match layers[index] {
                CnnLayer::Conv { channels, size, stride, .. } => {
                    if stride != 1 || shapes[index][..2] != input[..2] {
                        return refuse(index, "convolution", "it must move by 1 and keep height and width");
                    }
                    if layers.get(index + 1) != Some(&CnnLayer::Relu) {
                        return refuse(index, "convolution", "no rectifier follows it");
                    }
                    let (weight, bias) = cnn.weights(index).expect("a convolution has weights");
                    let mut block = Block {
                        weight: weight.reshape([size, size, input[2], channels]),
                        bias,
                        window: layers[index].window().expect("a convolution has one"),
                        pool: 1,
                        shape: shapes[index + 1],
                    };
                    index += 2;
                    if let Some(&CnnLayer::MaxPool { size, stride, padding }) =
                        layers.get(index).filter(|_| index < head)
                    {
                        let [height, width, _] = block.shape;
                        if stride != size || padding != 0 || !height.is_multiple_of(size) || !width.is_multiple_of(size)
                        {
                            let reason =
                                format!("windows of {size} must lie side by side and cover {height} x {width}");
                            return refuse(index, "max pool", &reason);
                        }
                        (block.pool, block.shape) = (size, shapes[index]);
                        index += 1;
                    }
                    input = block.shape;
                    blocks.push(block);
                }
                CnnLayer::Dropout { .. } => index += 1,
                CnnLayer::Relu => return refuse(index, "rectifier", "no convolution comes before it"),
                CnnLayer::MaxPool { .. } => return refuse(index, "max pool", "no convolution comes before it"),
                CnnLayer::AvgPool { .. } => {
                    return refuse(index, "mean pool", "only pools by the greatest can be undone");
                }
                CnnLayer::Linear { .. } => unreachable!("the head begins with it"),
            }
        }
        if blocks.is_empty() {
            return Err(Error::NoBlocks);
        }
        let classes = shapes.last().map_or(0, |shape| shape.iter().product());
        Ok(Self { blocks, head, classes, cnn })
    }

    /// The classifier.
    pub fn cnn(&self) -> &Cnn {
        &self.cnn
    }

    /// How many classes it tells apart.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Height, width and channels of its images.
    pub fn image(&self) -> [usize; 3] {
        self.cnn.config().image
    }

    /// Where it is computed.
    pub fn device(&self) -> Device {
        self.blocks[0].bias.device()
    }

    /// # Errors
    /// If the head is anything but linear maps with rectifiers between them, and dropout; the index of the layer is told.
    pub(crate) fn head_of_rectified_maps(&self) -> Result<(), Error> {
        let refuse = |layer, kind, reason: &str| Err(Error::NotModelled { layer, kind, reason: reason.to_owned() });
        let mut before = None;
        for (layer, one) in self.cnn.config().layers.iter().enumerate().skip(self.head) {
            before = match (one, before) {
                (CnnLayer::Dropout { .. }, before) => before,
                (CnnLayer::Linear { .. }, None | Some("rectifier")) => Some("linear map"),
                (CnnLayer::Relu, Some("linear map")) => Some("rectifier"),
                (CnnLayer::Linear { .. }, _) => return refuse(layer, "linear map", "no rectifier comes before it"),
                _ => return refuse(layer, "layer of the head", "it must be linear maps with rectifiers between them"),
            };
        }
        Ok(())
    }

    /// The scores of the classes, of what the last block gives.
    pub(crate) fn head(&self, top: Tensor<4>) -> Tensor<2> {
        self.cnn.logits_from(self.head, top)
    }

    /// The mean and the variance of every activation, of those of the pixels.
    ///
    /// ```text
    /// conv:  m ← W * m + b        v ← W² * v
    /// ReLU:  the moments of a rectified normal number
    /// pool:  m ← the greatest mean of the window        v ← its greatest variance
    /// ```
    ///
    /// Variances are taken as independent, which overlapping windows are not. Where they are 0 the means are the activations of the plain
    /// pass to the bit. Variances are multiplied in BF16 where the processor is faster in it: that they are taken as independent is the greater
    /// error.
    pub fn upward(&self, image: Belief) -> Upward {
        let precision = Precision::fastest(&image.variance.device());
        self.upward_in(precision, image)
    }

    fn upward_in(&self, precision: Precision, image: Belief) -> Upward {
        let mut x = image;
        let mut levels = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let mean = conv2d(x.mean, block.weight.clone(), block.bias.clone(), block.window);
            let squared = block.weight.clone().square();
            // One channel makes no pairs.
            let precision = if block.weight.dims()[2] == 1 { Precision::F32 } else { precision };
            let variance = conv2d_in(precision, x.variance, squared, block.bias.zeros_like(), block.window);
            let (mean, variance) = rectified_moments(mean, variance);
            let before = Belief { mean, variance };
            let after = if block.pool == 1 {
                before.clone()
            } else {
                let pool = Window { size: block.pool, stride: block.pool, padding: 0 };
                let greatest = |x: &Tensor<4>| max_pool2d(x.clone(), pool);
                Belief { mean: greatest(&before.mean), variance: greatest(&before.variance) }
            };
            x = after.clone();
            levels.push(Level { before, after });
        }
        Upward { logits: activation::log_softmax(self.head(x.mean), 1), levels }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use firebrick_types::Seed;

    use super::*;
    use crate::classifiers::CnnConfig;

    /// A number is rounded by at most 2⁻⁸ of itself, and a variance is a sum of products of two.
    #[test]
    fn variances_in_bf16_are_those_in_f32_but_for_what_is_rounded_off() {
        let plan = CnnConfig::image(8, 8, 1).conv(6, 3, 1, 1).relu().max_pool(2, 2, 0);
        let plan = plan.conv(5, 3, 1, 1).relu().max_pool(2, 2, 0).linear(3);
        let network = Network::of(plan.init(Seed::new(5), &Device::flex()).unwrap()).unwrap();
        let numbers = |salt: usize| {
            let numbers = (0..128).map(|index| ((index * 37 + salt) % 101) as f32 / 101.0).collect::<Vec<_>>();
            Tensor::<4>::from_data(TensorData::new(numbers, [2, 8, 8, 1]), &Device::flex())
        };
        // Half of the first image's pixels are known.
        let belief = || Belief { mean: numbers(11), variance: (numbers(5) - 0.5).clamp_min(0.0) };
        let [exact, rounded] =
            [Precision::F32, Precision::Bf16].map(|precision| network.upward_in(precision, belief()));
        let of = |x: &Tensor<4>| x.to_data().try_to_vec::<f32>().unwrap();
        assert_eq!(of(&exact.levels[0].after.variance), of(&rounded.levels[0].after.variance));
        let (exact, rounded) = (&exact.levels[1].before, &rounded.levels[1].before);
        let most = of(&exact.variance).into_iter().fold(0.0, f32::max);
        let mut differ = false;
        for (exact, rounded) in [(&exact.variance, &rounded.variance), (&exact.mean, &rounded.mean)] {
            for (exact, rounded) in of(exact).into_iter().zip(of(rounded)) {
                assert!((exact - rounded).abs() < 1e-2 * most.max(exact.abs()), "{rounded} for {exact}");
                differ |= exact != rounded;
            }
        }
        assert!(differ, "nothing is rounded");
    }
}
