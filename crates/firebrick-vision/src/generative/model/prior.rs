//! What the top activations of each class look like: mixtures of factor analysers.

use burn::tensor::{Device, Tensor, TensorData};
use firebrick_kernels::linear;
use firebrick_tensor::indices;
use firebrick_types::Seed;
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::Error;
use crate::cholesky::Cholesky;

/// One factor analyser: a Gaussian whose covariance is of low rank but for the noise of each number.
///
/// ```text
/// a = μ + U z + ε        z ~ N(0, I)        ε ~ N(0, diag ψ)
/// ```
#[derive(Clone, Debug)]
pub struct Component {
    /// Of which class.
    pub class: usize,
    /// The logarithm of its share of its class.
    pub log_weight: f64,
    /// μ, `[dims]`.
    pub mean: Tensor<1>,
    /// U, `[dims, factors]`.
    pub loadings: Tensor<2>,
    /// ψ, `[dims]`.
    pub noise: Tensor<1>,
}

/// What a component makes of what is believed of the top activations of some images.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// log p(â, component), of each image: what is believed is a measurement of the activations with its variance as noise.
    pub log_likelihoods: Vec<f64>,
    /// The mean of z, `[batch, factors]`.
    pub factors: Tensor<2>,
}

impl Component {
    /// Of some of its numbers alone.
    pub(crate) fn part(&self, dims: std::ops::Range<usize>) -> Self {
        let [_, factors] = self.loadings.dims();
        Self {
            class: self.class,
            log_weight: self.log_weight,
            mean: self.mean.clone().slice([dims.clone()]),
            loadings: self.loadings.clone().slice([dims.clone(), 0..factors]),
            noise: self.noise.clone().slice([dims]),
        }
    }

    /// The log-likelihoods of measurements `[batch, dims]` and the factors behind them.
    ///
    /// ```text
    /// D = ψ + β        R = â − μ        M = I + Uᵀ D⁻¹ U        z = M⁻¹ Uᵀ D⁻¹ R
    /// log p = −½ (Rᵀ D⁻¹ R − (Uᵀ D⁻¹ R)ᵀ z + Σ log D + log det M + dims log 2π) + log weight
    /// ```
    ///
    /// Woodbury's identity: the exact density of N(μ, U Uᵀ + diag D). A number whose variance is infinite was not measured, and is left
    /// out.
    pub fn posterior(&self, mean: &Tensor<2>, variance: &Tensor<2>) -> Posterior {
        let [batch, dims] = mean.dims();
        let [_, factors] = self.loadings.dims();
        let device = mean.device();
        let (means, variances) = (floats(mean.clone()), floats(variance.clone()));
        let (mu, psi) = (floats(self.mean.clone()), floats(self.noise.clone()));
        let (mut precision, mut weighted) = (vec![0.0; batch * dims], vec![0.0; batch * dims]);
        let mut apart = Vec::with_capacity(batch);
        for image in 0..batch {
            let of = image * dims..(image + 1) * dims;
            let found = (&mut precision[of.clone()], &mut weighted[of.clone()]);
            apart.push(diagonal((&means[of.clone()], &variances[of]), (&mu, &psi), found));
        }
        let weighted = Tensor::<2>::from_data(TensorData::new(weighted, [batch, dims]), &device);
        let projected = host(linear(weighted, self.loadings.clone(), None));
        let loadings = floats(self.loadings.clone());
        let mut log_likelihoods = Vec::with_capacity(batch);
        let mut found = Vec::with_capacity(batch * factors);
        let mut last: Option<(&[f32], Cholesky)> = None;
        for image in 0..batch {
            let (precision, projected) = (&precision[image * dims..][..dims], &projected[image * factors..][..factors]);
            // What is measured with the same precision as the image before has the same M.
            let known = last.take().filter(|(known, _)| *known == precision).map(|(_, factor)| factor);
            let factor = known.unwrap_or_else(|| {
                let mut matrix = gram(&loadings, factors, precision, &device);
                (0..factors).for_each(|factor| matrix[factor * (factors + 1)] += 1.0);
                Cholesky::of(matrix, factors).expect("I + UᵀU is positive definite")
            });
            let mut z = projected.to_vec();
            factor.solve(&mut z);
            let explained = projected.iter().zip(&z).map(|(p, z)| p * z).sum::<f64>();
            log_likelihoods.push(self.log_weight - 0.5 * (apart[image] - explained + factor.log_determinant()));
            found.extend(z.into_iter().map(|z| z as f32));
            last = Some((precision, factor));
        }
        Posterior { log_likelihoods, factors: Tensor::from_data(TensorData::new(found, [batch, factors]), &device) }
    }
}

/// Rᵀ D⁻¹ R + Σ log D + dims log 2π of one image, and in the place of `precision` and `weighted` the diagonal of D⁻¹ and D⁻¹ R.
fn diagonal(
    (means, variances): (&[f32], &[f32]),
    (mu, psi): (&[f32], &[f32]),
    (precision, weighted): (&mut [f32], &mut [f32]),
) -> f64 {
    // Logarithms of products are fewer than those of factors; eight of f32 cannot overflow an f64.
    let (mut squares, mut measured, mut product, mut logs) = (0.0, 0, 1.0, 0.0);
    for place in 0..means.len() {
        let spread = variances[place] + psi[place];
        if spread <= f32::MAX {
            let residual = means[place] - mu[place];
            precision[place] = 1.0 / spread;
            weighted[place] = residual * precision[place];
            squares += f64::from(residual * weighted[place]);
            measured += 1;
            product *= f64::from(spread);
        }
        if place % 8 == 7 {
            logs += f64::ln(product);
            product = 1.0;
        }
    }
    squares + logs + product.ln() + f64::from(measured) * std::f64::consts::TAU.ln()
}

/// Uᵀ diag p U, row after row. Of √p U there is one factor to make, and what counts for nothing is no part of it.
fn gram(loadings: &[f32], factors: usize, p: &[f32], device: &Device) -> Vec<f64> {
    let counted = p.iter().filter(|p| **p > 0.0).count();
    let mut scaled = vec![0.0; counted * factors];
    let rows = loadings.chunks_exact(factors.max(1)).zip(p).filter(|(_, p)| **p > 0.0);
    for (scaled, (loadings, p)) in scaled.chunks_exact_mut(factors.max(1)).zip(rows) {
        let root = p.sqrt();
        scaled.iter_mut().zip(loadings).for_each(|(scaled, loading)| *scaled = loading * root);
    }
    let scaled = Tensor::<2>::from_data(TensorData::new(scaled, [counted, factors]), device);
    host(linear(scaled.clone().transpose(), scaled, None))
}

/// What each number by itself says of each component, but for what all components share: which of them are worth being asked.
///
/// ```text
/// log p ≈ −½ Σ_seen ((x − μ)² / v + log v) + log weight          v = ψ + Σ U²
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Screen {
    /// 1 / v, μ / v and μ² / v + log v, `[dims, components]`.
    tables: [Tensor<2>; 3],
    log_weights: Vec<f64>,
}

impl Screen {
    /// Of the first so many numbers.
    pub(crate) fn of(prior: &[Component], dims: usize) -> Self {
        let variance = |one: &Component| {
            let shared = one.loadings.clone().square().sum_dim(1).transpose();
            (one.noise.clone().unsqueeze::<2>() + shared).slice([0..1, 0..dims])
        };
        let mean = |one: &Component| one.mean.clone().narrow(0, 0, dims).unsqueeze::<2>();
        let stack = |of: &dyn Fn(&Component) -> Tensor<2>| {
            let rows = Tensor::cat(prior.iter().map(of).collect(), 0);
            let [components, dims] = rows.dims();
            // Transposed in memory as well: it is read often.
            let transposed = host(rows.transpose()).into_iter().map(|number| number as f32).collect::<Vec<_>>();
            Tensor::from_data(TensorData::new(transposed, [dims, components]), &prior[0].mean.device())
        };
        let tables = [
            stack(&|one| variance(one).recip()),
            stack(&|one| mean(one) / variance(one)),
            stack(&|one| mean(one).square() / variance(one) + variance(one).log()),
        ];
        Self { tables, log_weights: prior.iter().map(|one| one.log_weight).collect() }
    }

    /// log p of each image and component, as above.
    ///
    /// # Shapes
    /// - `images`, `seen`: `[batch, dims]`, the latter 1 where a number counts
    pub(crate) fn scores(&self, images: &Tensor<2>, seen: &Tensor<2>) -> Vec<Vec<f64>> {
        let [precision, weighted, constant] = self.tables.clone();
        let counted = images.clone() * seen.clone();
        let distance = linear(counted.clone().square(), precision, None) - linear(counted, weighted, None) * 2.0
            + linear(seen.clone(), constant, None);
        let score = |(distance, weight): (&f64, &f64)| weight - 0.5 * distance;
        let rows = host(distance);
        let rows = rows.chunks_exact(self.log_weights.len());
        rows.map(|row| row.iter().zip(&self.log_weights).map(score).collect()).collect()
    }
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

fn floats<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec::<f32>().expect("numbers are f32")
}

/// How a prior is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PriorConfig {
    /// Factors of each component.
    pub factors: usize,
    /// Components of each class.
    pub components: usize,
    /// Iterations of expectation and maximisation.
    pub em_iterations: usize,
}

impl Default for PriorConfig {
    fn default() -> Self {
        Self { factors: 16, components: 1, em_iterations: 8 }
    }
}

/// The least noise of a number, as a share of the mean variance: a unit that never fires has none of its own.
const LEAST_NOISE: f64 = 0.02;

/// The components of one class, fitted to its top activations `[images, dims]` by expectation and maximisation.
///
/// # Errors
/// If there is no image.
pub(crate) fn fit(class: usize, data: Tensor<2>, config: &PriorConfig, seed: Seed) -> Result<Vec<Component>, Error> {
    let [images, dims] = data.dims();
    if images == 0 {
        return Err(Error::EmptyClass { class });
    }
    let device = data.device();
    let whole = data.clone().mean_dim(0);
    let variance = (data.clone() - whole).square().mean().into_scalar::<f32>();
    let floor = (LEAST_NOISE * f64::from(variance)).max(1e-6);
    let components = config.components.clamp(1, images);
    let mut shares = clusters(&data, components, seed);
    let mut fitted = Vec::new();
    for iteration in 0..config.em_iterations.max(1) {
        fitted = (0..components)
            .map(|index| {
                let share = Tensor::<1>::from_data(TensorData::new(shares[index].clone(), [images]), &device);
                let before = (iteration > 0).then(|| &fitted[index]);
                maximise(class, &data, share, before, config.factors.min(dims), floor, seed.at(&[index as u64]))
            })
            .collect::<Vec<_>>();
        if iteration + 1 < config.em_iterations && components > 1 {
            shares = expected(&fitted, &data);
        }
    }
    Ok(fitted)
}

/// The probability that each image is of each component.
fn expected(components: &[Component], data: &Tensor<2>) -> Vec<Vec<f32>> {
    let known = data.zeros_like();
    let log_likelihoods =
        components.iter().map(|component| component.posterior(data, &known).log_likelihoods).collect::<Vec<_>>();
    let images = data.dims()[0];
    let mut shares = vec![vec![0.0; images]; components.len()];
    for image in 0..images {
        let most = log_likelihoods.iter().map(|of_component| of_component[image]).fold(f64::NEG_INFINITY, f64::max);
        let weights = log_likelihoods.iter().map(|of_component| (of_component[image] - most).exp()).collect::<Vec<_>>();
        let total = weights.iter().sum::<f64>();
        shares.iter_mut().zip(weights).for_each(|(share, weight)| share[image] = (weight / total) as f32);
    }
    shares
}

/// Images divided by Lloyd's algorithm: 1 in the share of an image's cluster.
fn clusters(data: &Tensor<2>, count: usize, seed: Seed) -> Vec<Vec<f32>> {
    const ROUNDS: usize = 12;
    let [images, _] = data.dims();
    let mut order = (0..images).collect::<Vec<_>>();
    order.shuffle(&mut seed.derive("clusters").rng());
    let chosen = indices(&order[..count], &data.device());
    let mut centres = data.clone().select(0, chosen);
    let mut shares = vec![vec![1.0; images]];
    for _ in 0..if count > 1 { ROUNDS } else { 0 } {
        // |x − c|² but for |x|², which all centres share.
        let norms = centres.clone().square().sum_dim(1).reshape([count]);
        let distances = linear(data.clone(), centres.clone().transpose() * -2.0, Some(norms));
        let nearest = distances.argmin(1).into_data().iter::<i64>().collect::<Vec<_>>();
        shares = vec![vec![0.0; images]; count];
        nearest.iter().enumerate().for_each(|(image, &nearest)| shares[nearest as usize][image] = 1.0);
        let flat = Tensor::<2>::from_data(TensorData::new(shares.concat(), [count, images]), &data.device());
        let totals = flat.clone().sum_dim(1);
        let empty = totals.clone().lower_equal_elem(0.0);
        let moved = linear(flat, data.clone(), None) / totals.mask_fill(empty.clone(), 1.0);
        centres = moved.mask_where(empty.expand(centres.dims()), centres);
    }
    shares
}

/// The component that fits the images best, each counted by its share, given what the component before makes of them; the first one
/// spans the directions of greatest variance.
fn maximise(
    class: usize,
    data: &Tensor<2>,
    share: Tensor<1>,
    before: Option<&Component>,
    factors: usize,
    floor: f64,
    seed: Seed,
) -> Component {
    let [images, dims] = data.dims();
    let count = f64::from(share.clone().sum().into_scalar::<f32>()).max(1e-6);
    let mean = linear(share.clone().unsqueeze(), data.clone(), None).reshape([dims]) / count;
    let centred = data.clone() - mean.clone().unsqueeze();
    let counted = centred.clone() * share.clone().unsqueeze_dim::<2>(1);
    // The loadings, and the variance of each number that they account for.
    let (loadings, explained) = match before {
        None => {
            let loadings = principal(&centred, &counted, count, factors, floor, seed);
            (loadings.clone(), loadings.square())
        }
        Some(before) => {
            // U = (Σ w R E[z]ᵀ) (Σ w E[z zᵀ])⁻¹
            let z = before.posterior(data, &data.zeros_like()).factors;
            let cross = linear(counted.clone().transpose(), z.clone(), None);
            let seconds = linear((z.clone() * share.clone().unsqueeze_dim::<2>(1)).transpose(), z, None);
            let scaled = before.loadings.clone() / before.noise.clone().unsqueeze_dim::<2>(1);
            let mut precision = host(linear(scaled.transpose(), before.loadings.clone(), None));
            (0..factors).for_each(|factor| precision[factor * (factors + 1)] += 1.0);
            let covariance = Cholesky::of(precision, factors).expect("I + UᵀU is positive definite").inverse();
            let seconds =
                host(seconds).into_iter().zip(covariance).map(|(second, covariance)| second + count * covariance);
            let inverse =
                Cholesky::of(seconds.collect(), factors).expect("second moments are positive definite").inverse();
            let inverse = inverse.into_iter().map(|number| number as f32).collect::<Vec<_>>();
            let inverse = Tensor::from_data(TensorData::new(inverse, [factors, factors]), &data.device());
            let loadings = linear(cross.clone(), inverse, None);
            (loadings.clone(), loadings * cross / count)
        }
    };
    let total = (counted * centred).sum_dim(0).reshape([dims]) / count;
    let noise = (total - explained.sum_dim(1).reshape([dims])).clamp_min(floor);
    let log_weight = (count / images as f64).max(1e-9).ln();
    Component { class, log_weight, mean, loadings, noise }
}

/// The directions of greatest variance, each as long as its deviation beyond the least noise.
fn principal(
    centred: &Tensor<2>,
    counted: &Tensor<2>,
    count: f64,
    factors: usize,
    floor: f64,
    seed: Seed,
) -> Tensor<2> {
    const ROUNDS: usize = 6;
    let (dims, device) = (centred.dims()[1], centred.device());
    let mut rng = seed.derive("directions").rng();
    let drawn = (0..dims * factors).map(|_| rng.random::<f32>() - 0.5).collect::<Vec<_>>();
    let mut basis = orthonormal(drawn.into_iter().map(f64::from).collect(), dims, factors);
    let mut lengths = vec![0.0; factors];
    for _ in 0..ROUNDS {
        let directions = matrix(&basis, dims, factors, &device);
        let multiplied = linear(counted.clone().transpose(), linear(centred.clone(), directions, None), None) / count;
        let multiplied = host(multiplied);
        // The variance along each direction, of which the last round's are kept.
        for (factor, length) in lengths.iter_mut().enumerate() {
            *length = (0..dims).map(|row| basis[row * factors + factor] * multiplied[row * factors + factor]).sum();
        }
        basis = orthonormal(multiplied, dims, factors);
    }
    for row in basis.chunks_exact_mut(factors) {
        row.iter_mut().zip(&lengths).for_each(|(number, length)| *number *= (length - floor).max(1e-9).sqrt());
    }
    matrix(&basis, dims, factors, &device)
}

fn matrix(numbers: &[f64], rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    let numbers = numbers.iter().map(|&number| number as f32).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(numbers, [rows, columns]), device)
}

/// Columns made orthonormal one after another, by Gram and Schmidt; twice, so that rounding does no harm.
fn orthonormal(mut columns: Vec<f64>, rows: usize, count: usize) -> Vec<f64> {
    let dot = |columns: &[f64], a: usize, b: usize| {
        (0..rows).map(|row| columns[row * count + a] * columns[row * count + b]).sum::<f64>()
    };
    for column in 0..count {
        for _ in 0..2 {
            for before in 0..column {
                let along = dot(&columns, column, before);
                (0..rows).for_each(|row| columns[row * count + column] -= along * columns[row * count + before]);
            }
        }
        let length = dot(&columns, column, column).sqrt().max(1e-30);
        (0..rows).for_each(|row| columns[row * count + column] /= length);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMS: usize = 8;

    fn numbers(count: usize, salt: u64) -> Vec<f32> {
        let mut rng = Seed::new(salt).rng();
        (0..count).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect()
    }

    fn tensor(numbers: Vec<f32>, rows: usize, columns: usize) -> Tensor<2> {
        Tensor::from_data(TensorData::new(numbers, [rows, columns]), &Device::flex())
    }

    fn component() -> Component {
        let noise = numbers(DIMS, 3).into_iter().map(|number| 0.3 + number.abs()).collect::<Vec<_>>();
        Component {
            class: 0,
            log_weight: -0.7,
            mean: Tensor::from_floats(numbers(DIMS, 1).as_slice(), &Device::flex()),
            loadings: tensor(numbers(DIMS * 2, 2), DIMS, 2),
            noise: Tensor::from_floats(noise.as_slice(), &Device::flex()),
        }
    }

    /// The covariance of the measured numbers, and the log-density by a dense solve.
    fn dense(component: &Component, measured: &[usize], mean: &[f64], variance: &[f64]) -> f64 {
        let (mu, u, psi) =
            (host(component.mean.clone()), host(component.loadings.clone()), host(component.noise.clone()));
        let size = measured.len();
        let mut covariance = vec![0.0; size * size];
        for (row, &i) in measured.iter().enumerate() {
            for (column, &j) in measured.iter().enumerate() {
                let shared = u[2 * i] * u[2 * j] + u[2 * i + 1] * u[2 * j + 1];
                covariance[row * size + column] = shared + if i == j { psi[i] + variance[i] } else { 0.0 };
            }
        }
        let factor = Cholesky::of(covariance, size).unwrap();
        let residual = measured.iter().map(|&i| mean[i] - mu[i]).collect::<Vec<_>>();
        let mut solved = residual.clone();
        factor.solve(&mut solved);
        let distance = residual.iter().zip(solved).map(|(a, b)| a * b).sum::<f64>();
        let constant = size as f64 * std::f64::consts::TAU.ln();
        component.log_weight - 0.5 * (distance + factor.log_determinant() + constant)
    }

    #[test]
    fn e3_the_evidence_is_the_dense_density_and_what_is_not_measured_drops_out() {
        let component = component();
        let mean = numbers(2 * DIMS, 4);
        let mut variance = numbers(2 * DIMS, 5).into_iter().map(f32::abs).collect::<Vec<_>>();
        // Of the second image three numbers were not measured.
        for index in [DIMS, DIMS + 3, DIMS + 7] {
            variance[index] = f32::INFINITY;
        }
        let found = component.posterior(&tensor(mean.clone(), 2, DIMS), &tensor(variance.clone(), 2, DIMS));
        let wide = |numbers: &[f32]| numbers.iter().map(|&number| f64::from(number)).collect::<Vec<_>>();
        let all = (0..DIMS).collect::<Vec<_>>();
        let expected = [
            dense(&component, &all, &wide(&mean[..DIMS]), &wide(&variance[..DIMS])),
            dense(&component, &[1, 2, 4, 5, 6], &wide(&mean[DIMS..]), &wide(&variance[DIMS..])),
        ];
        for (found, expected) in found.log_likelihoods.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4, "{found}, densely {expected}");
        }
    }

    #[test]
    fn e3_factors_are_the_dense_conditional_mean() {
        let component = component();
        let mean = numbers(DIMS, 4);
        let found = component.posterior(&tensor(mean.clone(), 1, DIMS), &tensor(vec![0.25; DIMS], 1, DIMS));
        // E[z | a] = Uᵀ (U Uᵀ + D)⁻¹ (a − μ)
        let (mu, u, psi) = (host(component.mean), host(component.loadings), host(component.noise));
        let mut covariance = vec![0.0; DIMS * DIMS];
        for i in 0..DIMS {
            for j in 0..DIMS {
                let shared = u[2 * i] * u[2 * j] + u[2 * i + 1] * u[2 * j + 1];
                covariance[i * DIMS + j] = shared + if i == j { psi[i] + 0.25 } else { 0.0 };
            }
        }
        let mut solved = (0..DIMS).map(|i| f64::from(mean[i]) - mu[i]).collect::<Vec<_>>();
        Cholesky::of(covariance, DIMS).unwrap().solve(&mut solved);
        for (factor, found) in host(found.factors).into_iter().enumerate() {
            let expected = (0..DIMS).map(|i| u[2 * i + factor] * solved[i]).sum::<f64>();
            assert!((found - expected).abs() < 1e-5, "{found}, densely {expected}");
        }
    }

    /// Images of two kinds, each along a direction of its own, with noise up to so much.
    fn two_kinds(images: usize, noise: f32) -> Tensor<2> {
        let mut rng = Seed::new(8).rng();
        let mut drawn = Vec::new();
        for image in 0..images {
            let (along, centre) = (rng.random::<f32>() * 4.0 - 2.0, if image % 2 == 0 { 3.0 } else { -3.0 });
            let direction = if image % 2 == 0 { 0 } else { 4 };
            drawn.extend((0..DIMS).map(|dim| {
                let on = if (direction..direction + 4).contains(&dim) { along } else { 0.0 };
                centre + on + noise * (2.0 * rng.random::<f32>() - 1.0)
            }));
        }
        tensor(drawn, images, DIMS)
    }

    #[test]
    fn mixtures_find_the_kinds_and_their_directions() {
        let config = PriorConfig { factors: 1, components: 2, em_iterations: 6 };
        let found = fit(3, two_kinds(400, 0.05), &config, Seed::new(1)).unwrap();
        assert_eq!((found.len(), found[0].class), (2, 3));
        for component in found {
            assert!((component.log_weight.exp() - 0.5).abs() < 0.02);
            let centre = component.mean.clone().mean().into_scalar::<f32>();
            assert!((centre.abs() - 3.0).abs() < 0.2, "{centre}");
            let loadings = host(component.loadings);
            let direction = if centre > 0.0 { 0..4 } else { 4..8 };
            for (dim, loading) in loadings.iter().enumerate() {
                // The deviation of a uniform number from −2 to 2.
                let expected = if direction.contains(&dim) { (16.0_f64 / 12.0).sqrt() } else { 0.0 };
                assert!((loading.abs() - expected).abs() < 0.15, "{loadings:?}");
            }
        }
    }

    #[test]
    fn another_iteration_makes_the_images_likelier() {
        // More noise than the least there may be.
        let data = two_kinds(200, 1.5);
        let likelihood = |em_iterations| {
            let config = PriorConfig { factors: 2, components: 1, em_iterations };
            let found = fit(0, data.clone(), &config, Seed::new(1)).unwrap();
            found[0].posterior(&data, &data.zeros_like()).log_likelihoods.iter().sum::<f64>()
        };
        let likelihoods = [1, 2, 4, 8].map(likelihood);
        assert!(likelihoods.is_sorted(), "{likelihoods:?}");
    }

    #[test]
    fn an_image_has_its_posterior_whichever_comes_before() {
        let component = component();
        let (mean, mut variance) = (numbers(3 * DIMS, 4), numbers(3 * DIMS, 5));
        variance.iter_mut().for_each(|number| *number = if *number < -0.5 { f32::INFINITY } else { number.abs() });
        // The second image is measured as the first one is.
        variance.copy_within(..DIMS, DIMS);
        let all = component.posterior(&tensor(mean.clone(), 3, DIMS), &tensor(variance.clone(), 3, DIMS));
        for image in 0..3 {
            let alone = |numbers: &[f32]| tensor(numbers[image * DIMS..][..DIMS].to_vec(), 1, DIMS);
            let alone = component.posterior(&alone(&mean), &alone(&variance));
            assert_eq!(alone.log_likelihoods, all.log_likelihoods[image..=image]);
            assert_eq!(alone.factors.to_data(), all.factors.clone().slice([image..image + 1, 0..2]).to_data());
        }
    }

    #[test]
    fn scores_are_the_densities_of_numbers_by_themselves() {
        let at = |class: usize, place: f32, loading: f32| Component {
            class,
            log_weight: -0.5,
            mean: Tensor::<1>::zeros([4], &Device::flex()) + place,
            loadings: Tensor::<2>::zeros([4, 2], &Device::flex()) + loading,
            noise: Tensor::ones([4], &Device::flex()),
        };
        let prior = [at(0, 0.0, 0.0), at(1, 3.0, 1.0)];
        let images = tensor([[0.1; 4], [2.9; 4]].concat(), 2, 4);
        // Of the second image only the first number counts, and of all images the first three.
        let seen = tensor([[1.0; 4], [1.0, 0.0, 0.0, 1.0]].concat(), 2, 4);
        let first = |x: &Tensor<2>| x.clone().slice([0..2, 0..3]);
        let found = Screen::of(&prior, 3).scores(&first(&images), &first(&seen));
        // The second one's variance is 1 + 1² + 1².
        let density = |x: f64, mean: f64, variance: f64| -0.5 * ((x - mean).powi(2) / variance + variance.ln());
        let expected = [
            [3.0 * density(0.1, 0.0, 1.0), 3.0 * density(0.1, 3.0, 3.0)],
            [density(2.9, 0.0, 1.0), density(2.9, 3.0, 3.0)],
        ];
        for (found, expected) in found.iter().flatten().zip(expected.as_flattened()) {
            assert!((found - (expected - 0.5)).abs() < 1e-4, "{found}, by hand {expected}");
        }
    }

    #[test]
    fn a_class_without_images_is_an_error() {
        let none = Tensor::zeros([0, DIMS], &Device::flex());
        assert!(matches!(fit(4, none, &PriorConfig::default(), Seed::new(1)), Err(Error::EmptyClass { class: 4 })));
    }
}
