//! Hierarchical rectified Gaussians: a classifier's own weights both ways.

use burn::tensor::{Tensor, TensorData};
use firebrick_kernels::{Window, conv2d, conv2d_adjoint, linear, relu};

use super::activation_model::{ActivationModel, Inpainting};
use crate::Error;
use crate::classifiers::CnnLayer;
use crate::generative::{Evidence, Network, Query, filled, labels};
use crate::pooling::{greatest, unpool, windows};

/// A classifier read as a rectified Gaussian.
///
/// ```text
/// E = Σₗ ½ |zₗ|² − Σₗ zₗᵀ (Wₗ zₗ₋₁ + bₗ)          zₗ ≥ 0
/// zₗ ← ReLU(Wₗ zₗ₋₁ + bₗ + Wₗ₊₁ᵀ zₗ₊₁)          a pool's switches: the greatest of each window
/// ```
///
/// After Hu and Ramanan 2016, *Bottom-up and top-down reasoning with hierarchical rectified Gaussians*. Spec: C-13. One pass up is
/// the classifier; every pass after it hears the layer above too. A pass that goes up and down updates each layer exactly with the others
/// held, so that the energy never rises, and as weights are scaled to a norm of at most ½ it has a least one. Hidden pixels are
/// latent as well, held to [0, 1].
#[derive(Clone, Debug)]
pub struct RectifiedGaussian {
    maps: Vec<Map>,
    /// The last linear map, `[hidden, classes]` and `[classes]`: a clamped label speaks to the layer below through its column.
    output: (Tensor<2>, Tensor<1>),
    /// What a pixel is without any word from above, `[1, height, width, channels]`.
    pixels: Tensor<4>,
    image: [usize; 3],
    passes: usize,
}

/// From one layer to the next.
#[derive(Clone, Debug)]
enum Map {
    Conv { weight: Tensor<4>, bias: Tensor<1>, window: Window, pool: usize },
    Linear { weight: Tensor<2>, bias: Tensor<1> },
}

/// What comes from below.
enum Input {
    Windows(Tensor<5>),
    Units(Tensor<2>),
}

/// The layers of some pictures: what is pooled, flat after the last block, and the switches of each pool.
struct State {
    image: Tensor<4>,
    blocks: Vec<(Tensor<4>, Tensor<5>)>,
    hidden: Vec<Tensor<2>>,
}

impl RectifiedGaussian {
    /// A frozen classifier, whose pixels are `mean` where nothing is known, asked by so many passes up and down.
    ///
    /// # Errors
    /// If a layer is not part of a block or of the linear maps after them; its index is told.
    ///
    /// # Panics
    /// If the mean is of another size.
    pub fn of(network: &Network, mean: &Tensor<4>, passes: usize) -> Result<Self, Error> {
        let [height, width, channels] = network.image();
        assert_eq!(mean.dims(), [1, height, width, channels], "the mean of the pixels");
        let mut maps = Vec::new();
        // What activations are multiplied by, as weights below are: biases keep their part.
        let mut scale = 1.0;
        let mut input = network.image();
        for block in &network.blocks {
            let size = [input[0], input[1]];
            let up = |x: Tensor<4>| conv2d(x, block.weight.clone(), block.bias.zeros_like(), block.window);
            let down = |y: Tensor<4>| conv2d_adjoint(y, block.weight.clone(), block.window, size);
            let factor =
                shrunk(norm(Tensor::ones([1, input[0], input[1], input[2]], &network.device()), |x| down(up(x))));
            scale *= factor;
            let (weight, bias) = (block.weight.clone() * factor, block.bias.clone() * scale);
            maps.push(Map::Conv { weight, bias, window: block.window, pool: block.pool });
            input = block.shape;
        }
        let layers = &network.cnn().config().layers;
        network.head_of_rectified_maps()?;
        let linears =
            (0..layers.len()).filter(|&index| matches!(layers[index], CnnLayer::Linear { .. })).collect::<Vec<_>>();
        let (&last, before) = linears.split_last().ok_or(Error::NoBlocks)?;
        for &index in before {
            let (weight, bias) = network.cnn().weights(index).expect("a linear map has weights");
            let [rows, _] = weight.dims();
            let gram = |x: Tensor<2>| linear(linear(x, weight.clone(), None), weight.clone().transpose(), None);
            let factor = shrunk(norm(Tensor::ones([1, rows], &network.device()), gram));
            scale *= factor;
            maps.push(Map::Linear { weight: weight * factor, bias: bias * scale });
        }
        let (weight, bias) = network.cnn().weights(last).expect("a linear map has weights");
        // A label speaks as loudly as the layer that hears it: louder, it would drown what comes from below.
        let output = (weight * scale, bias * (scale * scale));
        Ok(Self { maps, output, pixels: mean.clone(), image: network.image(), passes })
    }

    /// How many of the maps are convolutions.
    fn blocks(&self) -> usize {
        self.maps.iter().filter(|map| matches!(map, Map::Conv { .. })).count()
    }

    /// What a layer hears from below: of each window of a convolution's pool, or of each unit.
    fn heard(&self, state: &State, index: usize) -> Input {
        let blocks = self.blocks();
        match &self.maps[index] {
            Map::Conv { weight, bias, window, pool } => {
                let below = if index == 0 { state.image.clone() } else { state.blocks[index - 1].0.clone() };
                Input::Windows(windows(conv2d(below, weight.clone(), bias.clone(), *window), *pool))
            }
            Map::Linear { weight, bias } => {
                let below = if index == blocks {
                    flat(&state.blocks[index - 1].0)
                } else {
                    state.hidden[index - blocks - 1].clone()
                };
                Input::Units(linear(below, weight.clone(), Some(bias.clone())))
            }
        }
    }

    fn up(&self, evidence: &Evidence) -> State {
        let image = filled(evidence, self.pixels.clone().expand(evidence.images.dims()));
        let mut state = State { image, blocks: Vec::new(), hidden: Vec::new() };
        (0..self.maps.len()).for_each(|index| self.update(&mut state, index, None));
        state
    }

    /// A layer's answer to those beside it.
    fn update(&self, state: &mut State, index: usize, label: Option<&Tensor<2>>) {
        let above = self.above(state, index, label);
        match self.heard(state, index) {
            Input::Windows(parts) => {
                // Above 0 or not: what is above may raise it.
                let switches = greatest(parts.clone());
                let mut z = (parts * switches.clone()).sum_dim(4).squeeze_dim::<4>(4);
                if let Some(above) = above {
                    z = z.clone() + above.reshape(z.dims());
                }
                set(&mut state.blocks, index, (relu(z), switches));
            }
            Input::Units(mut z) => {
                if let Some(above) = above {
                    z = z + above;
                }
                set(&mut state.hidden, index - self.blocks(), relu(z));
            }
        }
    }

    /// What the layer above a layer says to it, flat; nothing on the first way up.
    fn above(&self, state: &State, index: usize, label: Option<&Tensor<2>>) -> Option<Tensor<2>> {
        let blocks = self.blocks();
        match self.maps.get(index + 1) {
            None => label.cloned(),
            Some(Map::Conv { weight, window, pool, .. }) => {
                let (z, switches) = state.blocks.get(index + 1)?;
                let [_, height, width, _] = state.blocks[index].0.dims();
                let spread = unpool(z.clone(), switches.clone(), *pool);
                Some(flat(&conv2d_adjoint(spread, weight.clone(), *window, [height, width])))
            }
            Some(Map::Linear { weight, .. }) => {
                let z = state.hidden.get(index + 1 - blocks)?;
                Some(linear(z.clone(), weight.clone().transpose(), None))
            }
        }
    }

    /// The energy of each picture, but for what its seen pixels have by themselves.
    fn energy(&self, evidence: &Evidence, state: &State, label: &Tensor<2>, bias: f64) -> Vec<f64> {
        let [batch, ..] = state.image.dims();
        let rows = |x: Tensor<2>| x.sum_dim(1).into_data().iter::<f64>().collect::<Vec<_>>();
        let hidden = (evidence.visible.clone().neg() + 1.0).expand(state.image.dims());
        let own = (state.image.clone().square() * 0.5 - state.image.clone() * self.pixels.clone()) * hidden;
        let mut energy = rows(flat(&own));
        for index in 0..self.maps.len() {
            let (z, heard) = match self.heard(state, index) {
                Input::Windows(parts) => {
                    let (z, switches) = &state.blocks[index];
                    (flat(z), flat(&(parts * switches.clone()).sum_dim(4).squeeze_dim::<4>(4)))
                }
                Input::Units(heard) => (state.hidden[index - self.blocks()].clone(), heard),
            };
            let last = index + 1 == self.maps.len();
            let said = if last { z.clone() * label.clone() } else { z.zeros_like() };
            let own = rows(z.clone().square() * 0.5 - z * heard - said);
            (0..batch).for_each(|image| energy[image] += own[image]);
        }
        energy.into_iter().map(|energy| energy - bias).collect()
    }

    /// Passes down and up with a label clamped; the energy after the last.
    fn settle(&self, evidence: &Evidence, class: usize) -> (State, Vec<f64>) {
        let [batch, ..] = evidence.images.dims();
        let (weight, bias) = &self.output;
        let [rows, _] = weight.dims();
        let label = weight.clone().slice([0..rows, class..class + 1]).transpose().expand([batch, rows]);
        let bias = bias.clone().into_data().iter::<f64>().nth(class).expect("a bias of every class");
        let mut state = self.up(evidence);
        for _ in 0..self.passes {
            for index in (0..self.maps.len()).rev() {
                self.update(&mut state, index, Some(&label));
            }
            let Map::Conv { weight, window, pool, .. } = &self.maps[0] else {
                unreachable!("the first map is a convolution")
            };
            let (z, switches) = &state.blocks[0];
            let [height, width, _] = self.image;
            let said =
                conv2d_adjoint(unpool(z.clone(), switches.clone(), *pool), weight.clone(), *window, [height, width]);
            state.image = filled(evidence, (said + self.pixels.clone()).clamp(0.0, 1.0));
            for index in 0..self.maps.len() {
                self.update(&mut state, index, Some(&label));
            }
        }
        let energy = self.energy(evidence, &state, &label, bias);
        (state, energy)
    }
}

impl ActivationModel for RectifiedGaussian {
    /// The label of least energy. A score is −E.
    fn inpaint(&self, evidence: &Evidence, query: &Query) -> Result<Inpainting, Error> {
        let [batch, height, width, channels] = evidence.images.dims();
        evidence.checked(self.image)?;
        let [_, classes] = self.output.0.dims();
        let settled = (0..classes).map(|class| self.settle(evidence, class)).collect::<Vec<_>>();
        let score = |image: usize, class: usize| -settled[class].1[image] as f32;
        let scores = (0..batch).flat_map(|image| (0..classes).map(move |class| (image, class)));
        let scores = scores.map(|(image, class)| score(image, class)).collect::<Vec<_>>();
        let scores = Tensor::from_data(TensorData::new(scores, [batch, classes]), &evidence.images.device());
        let labels = labels(&scores, query)?;
        let rows = labels.iter().enumerate().map(|(image, &label)| {
            settled[label].0.image.clone().slice([image..image + 1, 0..height, 0..width, 0..channels])
        });
        Ok(Inpainting { images: Tensor::cat(rows.collect(), 0), labels, scores })
    }
}

fn set<T>(list: &mut Vec<T>, index: usize, value: T) {
    match list.get_mut(index) {
        Some(place) => *place = value,
        None => list.push(value),
    }
}

fn flat(x: &Tensor<4>) -> Tensor<2> {
    let [batch, height, width, channels] = x.dims();
    x.clone().reshape([batch, height * width * channels])
}

/// What takes a map of this norm to at most ½.
fn shrunk(norm: f64) -> f64 {
    (0.5 / norm.max(1e-12)).min(1.0)
}

/// The greatest singular value of a map, of its product with its adjoint, by the power method; a little more, as it comes from below.
fn norm<const D: usize>(mut x: Tensor<D>, gram: impl Fn(Tensor<D>) -> Tensor<D>) -> f64 {
    const ROUNDS: usize = 30;
    const MARGIN: f64 = 1.05;
    let mut square = 0.0;
    for _ in 0..ROUNDS {
        let next = gram(x);
        square = f64::from(next.clone().square().sum().into_scalar::<f32>()).sqrt();
        x = next / square.max(1e-30);
    }
    square.sqrt() * MARGIN
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use firebrick_testkit::assert_close;
    use firebrick_types::Seed;

    use super::*;
    use crate::classifiers::{Classifier, CnnConfig};

    fn numbers<const D: usize>(dims: [usize; D], salt: usize) -> Tensor<D> {
        let count = dims.iter().product::<usize>();
        let number = |index: usize| ((index * 37 + salt * 101) % 97) as f32 / 96.0;
        Tensor::from_data(TensorData::new((0..count).map(number).collect::<Vec<_>>(), dims), &Device::flex())
    }

    fn network() -> Network {
        let plan = CnnConfig::image(8, 8, 1).conv(4, 3, 1, 1).relu().max_pool(2, 2, 0);
        let plan = plan.conv(6, 3, 1, 1).relu().max_pool(2, 2, 0).linear(12).relu().linear(3);
        Network::of(plan.init(Seed::new(5), &Device::flex()).unwrap()).unwrap()
    }

    fn evidence() -> Evidence {
        let visible = numbers([5, 8, 8, 1], 2).greater_elem(0.4).float();
        Evidence { images: numbers([5, 8, 8, 1], 1), visible }
    }

    #[test]
    fn one_pass_up_is_the_classifier() {
        let network = network();
        let model = RectifiedGaussian::of(&network, &numbers([1, 8, 8, 1], 3), 0).unwrap();
        let evidence = evidence();
        let state = model.up(&evidence);
        let (weight, bias) = model.output.clone();
        let found = linear(state.hidden[0].clone(), weight, Some(bias));
        let logits = network.cnn().logits(state.image);
        // Every layer is as many times smaller.
        let ratio = found.clone().abs().sum() / logits.clone().abs().sum();
        assert_close(found, logits * ratio.reshape([1, 1]), 1e-5);
    }

    #[test]
    fn the_energy_never_rises_and_weights_are_at_most_a_half() {
        let network = network();
        let model = RectifiedGaussian::of(&network, &numbers([1, 8, 8, 1], 3), 8).unwrap();
        let sides = [8, 4];
        for (index, map) in model.maps.iter().enumerate() {
            let norm = match map {
                Map::Linear { weight, .. } => norm(Tensor::ones([1, weight.dims()[0]], &Device::flex()), |x| {
                    linear(linear(x, weight.clone(), None), weight.clone().transpose(), None)
                }),
                Map::Conv { weight, bias, window, .. } => {
                    let [_, _, reads, _] = weight.dims();
                    norm(Tensor::ones([1, sides[index], sides[index], reads], &Device::flex()), |x| {
                        let up = conv2d(x, weight.clone(), bias.zeros_like(), *window);
                        conv2d_adjoint(up, weight.clone(), *window, [sides[index]; 2])
                    })
                }
            };
            // The power method's margin counts twice.
            assert!((0.3..=0.53).contains(&norm), "{norm}");
        }
        for class in 0..3 {
            let after = |passes: usize| RectifiedGaussian { passes, ..model.clone() }.settle(&evidence(), class).1;
            let energies = (0..=8).map(after).collect::<Vec<_>>();
            for image in 0..5 {
                for pass in energies.windows(2) {
                    assert!(pass[1][image] <= pass[0][image] + 1e-5, "{energies:?}");
                }
            }
            assert!(energies[8][0] < energies[0][0], "it goes down at all");
        }
    }
}
