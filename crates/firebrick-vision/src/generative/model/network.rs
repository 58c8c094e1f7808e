//! The part of a classifier whose activations are modelled, as blocks of a convolution, a rectifier and, where there is one, a pool.

use burn::tensor::{Device, Tensor, activation};
use firebrick_kernels::{Window, conv2d};
use firebrick_tensor::indices;

use crate::Error;
use crate::classifiers::{Classifier, Cnn, CnnLayer};

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

    /// log p(y | picture), of each picture's label.
    pub(crate) fn label_log_probs(&self, pictures: &Tensor<4>, labels: &[usize]) -> Vec<f64> {
        let log_probs = activation::log_softmax(self.cnn.logits(pictures.clone()), 1);
        let chosen = indices(labels, &log_probs.device()).reshape([labels.len(), 1]);
        log_probs.gather(1, chosen).into_data().iter::<f64>().collect()
    }

    /// The scores of the classes, of what the last block gives.
    pub(crate) fn head(&self, top: Tensor<4>) -> Tensor<2> {
        self.cnn.logits_from(self.head, top)
    }
}
