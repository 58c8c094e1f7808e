//! Images that are remembered, and what those nearest to a picture say of it.

use burn::tensor::{Tensor, TensorData};
use firebrick_kernels::linear;
use firebrick_tensor::indices;

use super::evidence::Evidence;
use crate::cholesky::Cholesky;

/// Images that are remembered.
#[derive(Clone, Debug)]
pub struct Exemplars {
    /// `[images, pixels]`
    pub(crate) rows: Tensor<2>,
    squares: Tensor<2>,
    /// The images of each class.
    pub(crate) classes: Vec<Vec<usize>>,
}

/// What a class makes of some pictures.
pub(crate) struct Filling {
    pub(crate) class: usize,
    /// log p(what is seen), of each picture, in nats.
    pub(crate) log_likelihoods: Vec<f64>,
    /// What it expects, `[batch, height, width, channels]`.
    pub(crate) expected: Tensor<4>,
}

impl Exemplars {
    /// Images `[images, height, width, channels]`, and the class of each.
    ///
    /// # Panics
    /// If there is not one label of each image, or no image.
    pub fn new(images: &Tensor<4>, labels: &[u8]) -> Self {
        let [count, height, width, channels] = images.dims();
        assert!(count == labels.len() && count > 0, "one label of each of {count} images");
        let rows = images.clone().reshape([count, height * width * channels]);
        let most = labels.iter().copied().max().map_or(0, usize::from);
        let of = |class: usize| (0..count).filter(|&image| usize::from(labels[image]) == class).collect();
        Self { squares: rows.clone().square(), rows, classes: (0..=most).map(of).collect() }
    }

    /// Σ_seen (x − k)² but for Σ_seen x², of every picture to every image, row after row.
    fn distances(&self, evidence: &Evidence) -> Vec<f32> {
        let [seen, visible] = flat(evidence);
        let squares = linear(visible.clone(), self.squares.clone().transpose(), None);
        let products = linear(seen * visible, self.rows.clone().transpose(), None);
        (squares - products * 2.0).into_data().iter::<f32>().collect()
    }

    /// The mean of the images that are nearest where pixels are seen.
    ///
    /// # Panics
    /// If the images are of another size, or no neighbour is wanted.
    pub(crate) fn nearest(&self, evidence: &Evidence, neighbours: usize) -> Tensor<4> {
        let [count, pixels] = self.rows.dims();
        assert!(neighbours > 0, "no neighbour");
        let neighbours = neighbours.min(count);
        let [batch, ..] = evidence.images.dims();
        let every = (0..count).collect::<Vec<_>>();
        let distances = self.distances(evidence);
        let chosen = distances.chunks_exact(count).flat_map(|row| least(row, &every, neighbours)).collect::<Vec<_>>();
        let chosen = self.rows.clone().select(0, indices(&chosen, &self.rows.device()));
        chosen.reshape([batch, neighbours, pixels]).mean_dim(1).reshape(evidence.images.dims())
    }

    /// What each class expects of pictures: a factor analyser of its images that are nearest where pixels are seen.
    ///
    /// ```text
    /// x | class ~ N(m, Aᵀ A + λ I)          m, Aᵀ A: mean and covariance of the class's K nearest images
    /// G = A_seen A_seenᵀ + λ I          b = G⁻¹ A_seen (x − m)_seen
    /// E[x | x_seen] = m + Aᵀ b
    /// log p(x_seen) = −½ ((|x − m|² − (A (x − m))ᵀ b) / λ + log det G/λ + n log λ + n log 2π)
    /// ```
    ///
    /// A Gaussian with as many factors as there are neighbours, by Woodbury's identity on the neighbours' side.
    ///
    /// # Panics
    /// If the images are of another size.
    pub(crate) fn fillings(&self, evidence: &Evidence, neighbours: usize, noise: f64) -> Vec<Filling> {
        let dims = evidence.images.dims();
        let ([count, pixels], [batch, ..]) = (self.rows.dims(), dims);
        let device = self.rows.device();
        let distances = self.distances(evidence);
        let [seen, visible] = flat(evidence);
        let fill = |(class, of_class): (usize, &Vec<usize>)| {
            let (mut found, mut log_likelihoods) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
            for image in 0..batch {
                let chosen = least(&distances[image * count..][..count], of_class, neighbours);
                let near = chosen.len();
                let rows = self.rows.clone().select(0, indices(&chosen, &device));
                let mean = rows.clone().mean_dim(0);
                let spread = (rows - mean.clone()) / (near as f64).sqrt();
                let mask = visible.clone().slice([image..image + 1, 0..pixels]);
                let residual = (seen.clone().slice([image..image + 1, 0..pixels]) - mean.clone()) * mask.clone();
                let shown = spread.clone() * mask.clone();
                let mut gram = host(linear(shown.clone(), shown.clone().transpose(), None));
                (0..near).for_each(|row| gram[row * (near + 1)] += noise);
                let projected = host(linear(residual.clone(), shown.transpose(), None));
                let factor = Cholesky::of(gram, near).expect("a Gram matrix with noise is positive definite");
                let mut b = projected.clone();
                factor.solve(&mut b);
                let explained = projected.iter().zip(&b).map(|(p, b)| p * b).sum::<f64>();
                let squares = host(residual.square()).iter().sum::<f64>();
                let measured = host(mask).iter().sum::<f64>();
                let determinant = factor.log_determinant() + (measured - near as f64) * noise.ln();
                let constant = measured * std::f64::consts::TAU.ln();
                log_likelihoods.push(-0.5 * ((squares - explained) / noise + determinant + constant));
                let b = b.into_iter().map(|b| b as f32).collect::<Vec<_>>();
                let b = Tensor::from_data(TensorData::new(b, [1, near]), &device);
                found.push(mean + linear(b, spread, None));
            }
            Filling { class, log_likelihoods, expected: Tensor::cat(found, 0).reshape(dims) }
        };
        self.classes.iter().enumerate().filter(|(_, of_class)| !of_class.is_empty()).map(fill).collect()
    }
}

/// Pictures and mask, `[batch, pixels]` each.
pub(crate) fn flat(evidence: &Evidence) -> [Tensor<2>; 2] {
    let dims = evidence.images.dims();
    let [batch, height, width, channels] = dims;
    [evidence.images.clone(), evidence.visible.clone().expand(dims)]
        .map(|x| x.reshape([batch, height * width * channels]))
}

fn host(x: Tensor<2>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

/// Σ f(a, x) where a pixel is seen, in eight sums side by side.
pub(crate) fn sum(a: &[f32], x: &[f32], seen: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 8;
    let mut lanes = [0.0_f32; LANES];
    let chunks = a.chunks(LANES).zip(x.chunks(LANES)).zip(seen.chunks(LANES));
    for ((a, x), seen) in chunks {
        for (((lane, &a), &x), &seen) in lanes.iter_mut().zip(a).zip(x).zip(seen) {
            // Whatever a hidden pixel holds, were it no number, does not count.
            *lane += if seen > 0.0 { f(a, x) } else { 0.0 };
        }
    }
    lanes.iter().sum()
}

/// Of some places those of the least numbers, the least first; of equal numbers the first.
pub(crate) fn least(numbers: &[f32], places: &[usize], count: usize) -> Vec<usize> {
    let mut places = places.to_vec();
    let order = |a: &usize, b: &usize| numbers[*a].total_cmp(&numbers[*b]).then(a.cmp(b));
    if count < places.len() {
        places.select_nth_unstable_by(count, order);
        places.truncate(count);
    }
    places.sort_by(order);
    places
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use firebrick_testkit::assert_close;

    use super::*;

    #[test]
    fn of_equal_numbers_the_first_are_taken() {
        let every = [0, 1, 2, 3, 4];
        assert_eq!(least(&[2.0, 1.0, 1.0, 0.0, 1.0], &every, 3), [3, 1, 2]);
        assert_eq!(least(&[2.0, 1.0, 1.0, 0.0, 1.0], &[0, 2, 4], 2), [2, 4]);
        assert_eq!(least(&[1.0, 0.0], &[0, 1], 2), [1, 0]);
    }

    fn images(pixels: &[[f32; 4]]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(pixels.concat(), [pixels.len(), 2, 2, 1]), &Device::flex())
    }

    #[test]
    fn a_filling_is_the_dense_conditional_of_the_neighbours() {
        let known = [[0.9, 0.1, 0.3, 0.2], [0.7, 0.2, 0.5, 0.9], [0.2, 0.6, 0.1, 0.4], [0.0, 1.0, 1.0, 1.0]];
        let exemplars = Exemplars::new(&images(&known), &[0, 0, 0, 1]);
        let evidence = Evidence { images: images(&[[0.8, 0.3, 0.0, 0.0]]), visible: images(&[[1.0, 1.0, 0.0, 0.0]]) };
        let noise = 0.05;
        let found = exemplars.fillings(&evidence, 3, noise);
        assert_eq!(found.len(), 2);
        // The mean and the covariance of the three, and Gauss's formulas for the two pixels that are seen.
        let of = |pixel: usize| [0, 1, 2].map(|image| f64::from(known[image][pixel]));
        let mean = |pixel: usize| of(pixel).iter().sum::<f64>() / 3.0;
        let covariance = |a: usize, b: usize| {
            let product = |image: usize| (of(a)[image] - mean(a)) * (of(b)[image] - mean(b));
            (0..3).map(product).sum::<f64>() / 3.0 + if a == b { noise } else { 0.0 }
        };
        let (s, r) = (
            [[covariance(0, 0), covariance(0, 1)], [covariance(1, 0), covariance(1, 1)]],
            [0.8 - mean(0), 0.3 - mean(1)],
        );
        let determinant = s[0][0] * s[1][1] - s[0][1] * s[1][0];
        let solved = [(s[1][1] * r[0] - s[0][1] * r[1]) / determinant, (s[0][0] * r[1] - s[1][0] * r[0]) / determinant];
        let expected =
            [2, 3].map(|pixel| mean(pixel) + covariance(pixel, 0) * solved[0] + covariance(pixel, 1) * solved[1]);
        let filled = found[0].expected.clone().into_data().iter::<f64>().collect::<Vec<_>>();
        assert!(
            (filled[2] - expected[0]).abs() < 1e-5 && (filled[3] - expected[1]).abs() < 1e-5,
            "{filled:?} {expected:?}"
        );
        let distance = r[0] * solved[0] + r[1] * solved[1];
        let log = -0.5 * (distance + determinant.ln() + 2.0 * std::f64::consts::TAU.ln());
        assert!((found[0].log_likelihoods[0] - log).abs() < 1e-4, "{} {log}", found[0].log_likelihoods[0]);
        // A class of one image expects that image.
        assert_close(found[1].expected.clone(), images(&[known[3]]), 1e-6);
    }
}
