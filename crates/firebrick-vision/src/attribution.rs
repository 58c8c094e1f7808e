//! Which pixels a classifier's score rests on: the field's methods, by the vector-Jacobian product of each layer.
//!
//! Every function takes images `[batch, height, width, channels]` and a class of each, and returns numbers for every pixel of
//! the same shape, unless it says otherwise. Images are treated a few at a time, so that memory does not grow with the batch.

use burn::tensor::Tensor;
use firebrick_kernels::{conv2d_adjoint, linear};
use firebrick_tensor::indices;

use crate::classifiers::{Classifier, Cnn, CnnLayer};
use crate::pooling::{route, switches};

/// Images that are treated at a time.
const CHUNK: usize = 64;

/// The gradient of each image's class score, before any softmax.
///
/// ```text
/// A = ∂S_y / ∂x
/// ```
///
/// Simonyan, Vedaldi and Zisserman 2013, [arXiv:1312.6034](https://arxiv.org/abs/1312.6034).
///
/// # Panics
/// As all functions here: if the images have another size than the classifier's, or there is not one class of each.
pub fn gradient(cnn: &Cnn, images: Tensor<4>, classes: &[usize]) -> Tensor<4> {
    in_chunks(images, classes, |images, classes| Pass::of(cnn, images).back(classes, Rectifier::Forward))
}

/// The gradient times the image.
///
/// ```text
/// A = x ⊙ ∂S_y / ∂x
/// ```
///
/// Shrikumar, Greenside and Kundaje 2017, [arXiv:1704.02685](https://arxiv.org/abs/1704.02685), section 2.
///
/// # Panics
/// As [`gradient`].
pub fn gradient_times_input(cnn: &Cnn, images: Tensor<4>, classes: &[usize]) -> Tensor<4> {
    images.clone() * gradient(cnn, images, classes)
}

/// The image times the mean gradient on the way to it from an image of zeros, at the nodes of Gauss and Legendre.
///
/// ```text
/// A = x ⊙ ∫₀¹ ∂S_y/∂x (α x) dα        Σ A = S_y(x) − S_y(0), up to the error of the nodes
/// ```
///
/// Sundararajan, Taly and Yan 2017, [arXiv:1703.01365](https://arxiv.org/abs/1703.01365), eq. 1.
///
/// # Panics
/// As [`gradient`]; also if there is no node.
pub fn integrated_gradients(cnn: &Cnn, images: Tensor<4>, classes: &[usize], nodes: usize) -> Tensor<4> {
    let terms = gauss_legendre(nodes)
        .into_iter()
        .map(|(node, weight)| gradient(cnn, images.clone() * node, classes) * weight)
        .reduce(|sum, term| sum + term);
    images * terms.expect("at least one node")
}

/// What a deconvolutional network gives back: rectifiers let pass what is positive on the way back.
///
/// Zeiler and Fergus 2013, [arXiv:1311.2901](https://arxiv.org/abs/1311.2901), section 2.1.
///
/// # Panics
/// As [`gradient`].
pub fn deconvnet(cnn: &Cnn, images: Tensor<4>, classes: &[usize]) -> Tensor<4> {
    in_chunks(images, classes, |images, classes| Pass::of(cnn, images).back(classes, Rectifier::Backward))
}

/// Guided backpropagation: rectifiers let pass what was positive on the way up and is on the way back.
///
/// Springenberg et al. 2014, [arXiv:1412.6806](https://arxiv.org/abs/1412.6806), section 3.4.
///
/// # Panics
/// As [`gradient`].
pub fn guided_backprop(cnn: &Cnn, images: Tensor<4>, classes: &[usize]) -> Tensor<4> {
    in_chunks(images, classes, |images, classes| Pass::of(cnn, images).back(classes, Rectifier::Both))
}

/// Excitation backprop: the probability that a winner-take-all walk from the class down the positive weights ends at each pixel.
///
/// ```text
/// P(j) = Σᵢ aⱼ wᵢⱼ⁺ P(i) / Σₖ aₖ wᵢₖ⁺        0/0 = 0
/// ```
///
/// The sums of a layer are those of the layer above as long as every unit that passes something on has a positive input.
///
/// Zhang et al. 2016, [arXiv:1608.00507](https://arxiv.org/abs/1608.00507), eq. 5.
///
/// # Panics
/// As [`gradient`].
pub fn excitation_backprop(cnn: &Cnn, images: Tensor<4>, classes: &[usize]) -> Tensor<4> {
    in_chunks(images, classes, |images, classes| {
        let pass = Pass::of(cnn, images);
        let top = pass.seed(classes);
        pass.excite(top, 0..cnn.config().layers.len(), false)
    })
}

/// Contrastive excitation backprop: the walk of the class less that of its opposite, the last map with its weights negated; they
/// are subtracted before the last map, and what is positive goes on.
///
/// Zhang et al. 2016, [arXiv:1608.00507](https://arxiv.org/abs/1608.00507), section 3.3.
///
/// # Panics
/// As [`gradient`].
pub fn contrastive_excitation_backprop(cnn: &Cnn, images: Tensor<4>, classes: &[usize]) -> Tensor<4> {
    let layers = &cnn.config().layers;
    let last = layers.iter().rposition(|layer| layer.is_map()).unwrap_or(0);
    in_chunks(images, classes, |images, classes| {
        let pass = Pass::of(cnn, images);
        let walk = |opposite| pass.excite(pass.seed(classes), last..layers.len(), opposite);
        let contrast = (walk(false) - walk(true)).clamp_min(0.0);
        pass.excite(contrast, 0..last, false)
    })
}

/// Grad-CAM of what a layer gives, `[batch, height, width, 1]` of that layer.
///
/// ```text
/// A = relu(Σ_c w_c a_c)        w_c = mean over the places of ∂S_y/∂a_c
/// ```
///
/// Selvaraju et al. 2016, [arXiv:1610.02391](https://arxiv.org/abs/1610.02391), eq. 1 and 2.
///
/// # Panics
/// As [`gradient`]; also if there is no such layer.
pub fn grad_cam(cnn: &Cnn, images: Tensor<4>, classes: &[usize], layer: usize) -> Tensor<4> {
    in_chunks(images, classes, |images, classes| {
        let pass = Pass::of(cnn, images);
        let gradient = pass.back_to(pass.seed(classes), layer + 1, Rectifier::Forward);
        let weights = gradient.mean_dim(1).mean_dim(2);
        (pass.outputs[layer].clone() * weights).sum_dim(3).clamp_min(0.0)
    })
}

/// How much the class score falls when a square of pixels is 0: the mean over the squares that cover a pixel, `[batch, height, width,
/// 1]`.
///
/// Zeiler and Fergus 2013, [arXiv:1311.2901](https://arxiv.org/abs/1311.2901), section 4.2.
///
/// # Panics
/// As [`gradient`]; also if the square is larger than the image or does not move.
pub fn occlusion(cnn: &Cnn, images: Tensor<4>, classes: &[usize], size: usize, stride: usize) -> Tensor<4> {
    let [height, width, _] = cnn.config().image;
    assert!(size > 0 && stride > 0 && size <= height.min(width), "a square of {size} that moves by {stride}");
    // The last square ends at the edge, wherever the stride would have left it.
    let places = |length: usize| {
        let mut places = (0..=length - size).step_by(stride).collect::<Vec<_>>();
        if places.last() != Some(&(length - size)) {
            places.push(length - size);
        }
        places
    };
    in_chunks(images, classes, |images, classes| {
        let device = images.device();
        let [batch, ..] = images.dims();
        let score = |images: Tensor<4>| chosen(cnn.logits(images), classes);
        let whole = score(images.clone());
        let mut falls = Tensor::<4>::zeros([batch, height, width, 1], &device);
        let mut covered = Tensor::<4>::zeros([1, height, width, 1], &device);
        for row in places(height) {
            for column in places(width) {
                let square = [0..1, row..row + size, column..column + size, 0..1];
                let inside = Tensor::<4>::zeros([1, height, width, 1], &device)
                    .slice_assign(square, Tensor::ones([1, size, size, 1], &device));
                let fall = whole.clone() - score(images.clone() * (inside.clone().neg() + 1.0));
                falls = falls + inside.clone() * fall.reshape([batch, 1, 1, 1]);
                covered = covered + inside;
            }
        }
        falls / covered
    })
}

/// What rectifiers let pass on the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rectifier {
    /// What was positive on the way up: the gradient.
    Forward,
    /// What is positive on the way back.
    Backward,
    /// What is both.
    Both,
}

/// The way up of some images, which the ways back go along.
struct Pass<'a> {
    cnn: &'a Cnn,
    images: Tensor<4>,
    /// Of every layer.
    outputs: Vec<Tensor<4>>,
}

impl<'a> Pass<'a> {
    fn of(cnn: &'a Cnn, images: Tensor<4>) -> Self {
        Self { cnn, outputs: cnn.activations(images.clone()), images }
    }

    /// What a layer reads.
    fn input(&self, layer: usize) -> Tensor<4> {
        if layer == 0 { self.images.clone() } else { self.outputs[layer - 1].clone() }
    }

    /// 1 at each image's class, in the shape of the last layer.
    fn seed(&self, classes: &[usize]) -> Tensor<4> {
        let last = self.outputs.last().unwrap_or(&self.images);
        let [batch, count] = [classes.len(), last.shape().num_elements() / classes.len()];
        assert!(classes.iter().all(|class| *class < count), "a class that is none of {count}");
        let ones = Tensor::<2>::eye(count, &last.device()).select(0, indices(classes, &last.device()));
        debug_assert_eq!(ones.dims(), [batch, count]);
        ones.reshape(last.dims())
    }

    fn back(&self, classes: &[usize], rectifier: Rectifier) -> Tensor<4> {
        self.back_to(self.seed(classes), 0, rectifier)
    }

    /// What comes back to the input of this layer.
    fn back_to(&self, top: Tensor<4>, layer: usize, rectifier: Rectifier) -> Tensor<4> {
        (layer..self.outputs.len()).rev().fold(top, |g, layer| {
            if self.cnn.config().layers[layer] != CnnLayer::Relu {
                return self.vjp(layer, g, |weight| weight);
            }
            let passed = self.outputs[layer].clone().greater_elem(0.0);
            let forward = |g: Tensor<4>| g.mask_fill(passed.bool_not(), 0.0);
            match rectifier {
                Rectifier::Forward => forward(g),
                Rectifier::Backward => g.clamp_min(0.0),
                Rectifier::Both => forward(g.clamp_min(0.0)),
            }
        })
    }

    /// The vector-Jacobian product of a layer that is no rectifier, its weights turned into others first.
    fn vjp(&self, layer: usize, g: Tensor<4>, weights: impl Fn(Tensor<2>) -> Tensor<2>) -> Tensor<4> {
        let input = self.input(layer);
        let [batch, height, width, channels] = input.dims();
        let plan = self.cnn.config().layers[layer];
        let map = || weights(self.cnn.weights(layer).expect("a layer that has weights").0);
        match plan {
            CnnLayer::Conv { channels: out, size, .. } => {
                let window = plan.window().expect("a convolution has one");
                conv2d_adjoint(g, map().reshape([size, size, channels, out]), window, [height, width])
            }
            CnnLayer::Linear { width: out } => {
                linear(g.reshape([batch, out]), map().transpose(), None).reshape([batch, height, width, channels])
            }
            CnnLayer::MaxPool { .. } => {
                let window = plan.window().expect("a pool has one");
                route(g, switches(input, window), [height, width])
            }
            CnnLayer::AvgPool { size, .. } => {
                let window = plan.window().expect("a pool has one");
                let each = 1.0 / (size * size) as f64;
                let mean = Tensor::<2>::eye(channels, &g.device()).reshape([1, 1, channels, channels]) * each;
                conv2d_adjoint(g, mean.repeat(&[size, size, 1, 1]), window, [height, width])
            }
            CnnLayer::Relu | CnnLayer::Dropout { .. } => g,
        }
    }

    /// The walk from the output of these layers to the input of the first.
    fn excite(&self, top: Tensor<4>, layers: std::ops::Range<usize>, opposite: bool) -> Tensor<4> {
        layers.rev().fold(top, |p, layer| {
            let plan = self.cnn.config().layers[layer];
            if !plan.is_map() {
                return match plan {
                    CnnLayer::AvgPool { .. } => self.share(layer, p, |weight| weight),
                    CnnLayer::Relu => p,
                    _ => self.vjp(layer, p, |weight| weight),
                };
            }
            self.share(layer, p, |weight| if opposite { weight.neg() } else { weight }.clamp_min(0.0))
        })
    }

    /// Each unit's share of what the units above pass on.
    fn share(&self, layer: usize, p: Tensor<4>, weights: impl Fn(Tensor<2>) -> Tensor<2> + Copy) -> Tensor<4> {
        let input = self.input(layer).clamp_min(0.0);
        let sums = self.linear(layer, input.clone(), weights);
        let none = sums.clone().lower_equal_elem(0.0);
        let shares = (p / sums.mask_fill(none.clone(), 1.0)).mask_fill(none, 0.0);
        input * self.vjp(layer, shares, weights)
    }

    /// A linear layer without its bias, its weights turned into others first.
    fn linear(&self, layer: usize, input: Tensor<4>, weights: impl Fn(Tensor<2>) -> Tensor<2>) -> Tensor<4> {
        let [batch, height, width, channels] = input.dims();
        let plan = self.cnn.config().layers[layer];
        let map = || weights(self.cnn.weights(layer).expect("a layer that has weights").0);
        match plan {
            CnnLayer::Conv { channels: out, size, .. } => {
                let bias = Tensor::zeros([out], &input.device());
                let window = plan.window().expect("a convolution has one");
                firebrick_kernels::conv2d(input, map().reshape([size, size, channels, out]), bias, window)
            }
            CnnLayer::Linear { width: out } => {
                linear(input.reshape([batch, height * width * channels]), map(), None).reshape([batch, 1, 1, out])
            }
            _ => firebrick_kernels::avg_pool2d(input, plan.window().expect("a pool has one")),
        }
    }
}

/// The score of each row's class, `[batch]`.
fn chosen(logits: Tensor<2>, classes: &[usize]) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let classes = indices(classes, &logits.device()).reshape([batch, 1]);
    logits.gather(1, classes).reshape([batch])
}

/// The results of `f` on a few images at a time.
fn in_chunks(images: Tensor<4>, classes: &[usize], f: impl Fn(Tensor<4>, &[usize]) -> Tensor<4>) -> Tensor<4> {
    let [batch, ..] = images.dims();
    assert_eq!(batch, classes.len(), "one class of each image");
    let chunks = classes.chunks(CHUNK).enumerate().map(|(index, classes)| {
        let start = index * CHUNK;
        f(images.clone().slice_dim(0, start..start + classes.len()), classes)
    });
    Tensor::cat(chunks.collect(), 0)
}

/// The nodes and weights that integrate polynomials of degree `2 count − 1` over `0 ..= 1` exactly.
///
/// # Panics
/// If there is no node.
fn gauss_legendre(count: usize) -> Vec<(f64, f64)> {
    assert!(count > 0, "at least one node");
    let node = |index: usize| {
        let mut x = (std::f64::consts::PI * (index as f64 + 0.75) / (count as f64 + 0.5)).cos();
        let mut slope = 0.0;
        for _ in 0..100 {
            // Legendre's polynomial of this degree and the one before.
            let (mut before, mut value) = (1.0, x);
            for degree in 2..=count {
                let degree = degree as f64;
                (before, value) = (value, ((2.0 * degree - 1.0) * x * value - (degree - 1.0) * before) / degree);
            }
            slope = count as f64 * (x * value - before) / (x * x - 1.0);
            let step = value / slope;
            x -= step;
            if step.abs() < 1e-15 {
                break;
            }
        }
        (0.5 * (1.0 - x), 1.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..count).map(node).collect()
}
