//! A chain of layers that are linear and Gaussian: where everything a backward pass approximates can be had exactly.

use burn::tensor::{Device, Tensor, TensorData};
use firebrick_types::Seed;
use rand::RngExt;

use crate::cholesky::Cholesky;
use crate::generative::model::Belief;

/// Rows of numbers.
#[derive(Clone)]
struct Dense {
    rows: usize,
    columns: usize,
    data: Vec<f64>,
}

impl Dense {
    fn of(rows: usize, columns: usize, f: impl Fn(usize, usize) -> f64) -> Self {
        let data = (0..rows * columns).map(|index| f(index / columns, index % columns)).collect();
        Self { rows, columns, data }
    }

    fn diagonal(numbers: &[f64]) -> Self {
        Self::of(numbers.len(), numbers.len(), |row, column| if row == column { numbers[row] } else { 0.0 })
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.data[row * self.columns + column]
    }

    fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows);
        let dot = |row, column| (0..self.columns).map(|k| self.at(row, k) * other.at(k, column)).sum();
        Self::of(self.rows, other.columns, dot)
    }

    fn plus(&self, other: &Self) -> Self {
        Self::of(self.rows, self.columns, |row, column| self.at(row, column) + other.at(row, column))
    }

    fn scaled(&self, by: f64) -> Self {
        Self::of(self.rows, self.columns, |row, column| by * self.at(row, column))
    }

    fn transposed(&self) -> Self {
        Self::of(self.columns, self.rows, |row, column| self.at(column, row))
    }

    fn column(numbers: &[f64]) -> Self {
        Self { rows: numbers.len(), columns: 1, data: numbers.to_vec() }
    }

    /// Of a symmetric positive definite matrix.
    fn solve(&self, right: &Self) -> Self {
        let factor = Cholesky::of(self.data.clone(), self.rows).expect("positive definite");
        let columns = (0..right.columns).map(|column| {
            let mut x = (0..right.rows).map(|row| right.at(row, column)).collect::<Vec<_>>();
            factor.solve(&mut x);
            x
        });
        let columns = columns.collect::<Vec<_>>();
        Self::of(right.rows, right.columns, |row, column| columns[column][row])
    }
}

/// ```text
/// aᴸ ~ N(μ, P⁻¹)        aˡ⁻¹ | aˡ ~ N(Vˡ aˡ + cˡ, τˡ)        what is measured of aˡ ~ N(aˡ, 1/λˡ)
/// ```
struct Chain {
    /// μ and P.
    top: (Vec<f64>, Dense),
    /// V, c and τ of each step down, the lowest first.
    steps: Vec<(Dense, Vec<f64>, f64)>,
    /// What is measured of each layer and λ, the lowest first.
    measured: Vec<(Vec<f64>, f64)>,
}

impl Chain {
    fn drawn(dims: [usize; 3], lambdas: [f64; 3], diagonal: bool) -> Self {
        let mut rng = Seed::new(11).rng();
        let mut number = move || rng.random::<f64>() * 2.0 - 1.0;
        let mut numbers = move |count: usize| (0..count).map(|_| number()).collect::<Vec<_>>();
        let step = |(below, above): (usize, usize), tau: f64, numbers: &mut dyn FnMut(usize) -> Vec<f64>| {
            let v = if diagonal {
                Dense::diagonal(&numbers(above))
            } else {
                Dense { rows: below, columns: above, data: numbers(below * above) }
            };
            (v, numbers(below), tau)
        };
        let steps = vec![step((dims[0], dims[1]), 0.3, &mut numbers), step((dims[1], dims[2]), 0.7, &mut numbers)];
        let top = (numbers(dims[2]), Dense::diagonal(&vec![1.5; dims[2]]));
        let measured = dims.iter().zip(lambdas).map(|(&dim, lambda)| (numbers(dim), lambda)).collect();
        Self { top, steps, measured }
    }

    fn layers(&self) -> usize {
        self.measured.len()
    }

    /// The precision of a layer given its neighbours, and that times its mean.
    fn block(&self, layer: usize, a: &[Dense]) -> (Dense, Dense) {
        let (measured, lambda) = &self.measured[layer];
        let mut precision = Dense::diagonal(&vec![*lambda; measured.len()]);
        let mut shift = Dense::column(measured).scaled(*lambda);
        if layer > 0 {
            let (v, c, tau) = &self.steps[layer - 1];
            precision = precision.plus(&v.transposed().times(v).scaled(1.0 / tau));
            let left = a[layer - 1].plus(&Dense::column(c).scaled(-1.0));
            shift = shift.plus(&v.transposed().times(&left).scaled(1.0 / tau));
        }
        match self.steps.get(layer) {
            Some((v, c, tau)) => {
                precision = precision.plus(&Dense::diagonal(&vec![1.0 / tau; measured.len()]));
                shift = shift.plus(&v.times(&a[layer + 1]).plus(&Dense::column(c)).scaled(1.0 / tau));
            }
            None => {
                precision = precision.plus(&self.top.1);
                shift = shift.plus(&self.top.1.times(&Dense::column(&self.top.0)));
            }
        }
        (precision, shift)
    }

    /// −log of the joint density, but for a constant.
    fn energy(&self, a: &[Dense]) -> f64 {
        let squares = |x: &Dense| x.data.iter().map(|x| x * x).sum::<f64>();
        let mut energy = 0.0;
        for (layer, (measured, lambda)) in self.measured.iter().enumerate() {
            energy += 0.5 * lambda * squares(&a[layer].plus(&Dense::column(measured).scaled(-1.0)));
        }
        for (layer, (v, c, tau)) in self.steps.iter().enumerate() {
            let rendered = v.times(&a[layer + 1]).plus(&Dense::column(c));
            energy += 0.5 / tau * squares(&a[layer].plus(&rendered.scaled(-1.0)));
        }
        let off = a[self.layers() - 1].plus(&Dense::column(&self.top.0).scaled(-1.0));
        energy + 0.5 * off.transposed().times(&self.top.1).times(&off).data[0]
    }

    /// The mode of all layers at once, by one dense solve of the joint precision.
    fn solved(&self) -> Vec<Dense> {
        let sizes = self.measured.iter().map(|(measured, _)| measured.len()).collect::<Vec<_>>();
        let total = sizes.iter().sum::<usize>();
        let zeros = sizes.iter().map(|&size| Dense::column(&vec![0.0; size])).collect::<Vec<_>>();
        let (mut joint, mut right) = (vec![0.0; total * total], vec![0.0; total]);
        let mut first = 0;
        for (layer, &size) in sizes.iter().enumerate() {
            // With its neighbours at 0 a block's shift is its part of the right side, but for the way up from below.
            let (precision, shift) = self.block(layer, &zeros);
            for row in 0..size {
                right[first + row] = shift.at(row, 0);
                for column in 0..size {
                    joint[(first + row) * total + first + column] = precision.at(row, column);
                }
            }
            if let Some((v, _, tau)) = self.steps.get(layer) {
                for row in 0..size {
                    for column in 0..sizes[layer + 1] {
                        let coupled = -v.at(row, column) / tau;
                        joint[(first + row) * total + first + size + column] = coupled;
                        joint[(first + size + column) * total + first + row] = coupled;
                    }
                }
            }
            first += size;
        }
        Cholesky::of(joint, total).expect("positive definite").solve(&mut right);
        let mut rest = &right[..];
        let mut next = |size: usize| {
            let (part, after) = rest.split_at(size);
            rest = after;
            Dense::column(part)
        };
        sizes.into_iter().map(&mut next).collect()
    }

    /// What a layer knows from below and of itself: precision, and that times the mean.
    ///
    /// ```text
    /// J ← Vᵀ Kᵀ J V + λ        h ← Vᵀ Kᵀ (h − J c) + λ y        K = (I + τ J)⁻¹
    /// ```
    fn upward(&self) -> Vec<(Dense, Dense)> {
        let own = |layer: usize| {
            let (measured, lambda) = &self.measured[layer];
            let precision = Dense::diagonal(&vec![*lambda; measured.len()]);
            (precision, Dense::column(measured).scaled(*lambda))
        };
        let mut messages = vec![own(0)];
        for (layer, (v, c, tau)) in self.steps.iter().enumerate() {
            let (j, h) = messages[layer].clone();
            let size = j.rows;
            let widened = Dense::diagonal(&vec![1.0; size]).plus(&j.scaled(*tau));
            let (kj, kh) = (widened.solve(&j), widened.solve(&h.plus(&j.times(&Dense::column(c)).scaled(-1.0))));
            let (precision, shift) = own(layer + 1);
            let up = v.transposed();
            messages.push((up.times(&kj).times(v).plus(&precision), up.times(&kh).plus(&shift)));
        }
        messages
    }

    /// One way down through exact messages.
    fn swept(&self) -> Vec<Dense> {
        let messages = self.upward();
        let last = self.layers() - 1;
        let (j, h) = &messages[last];
        let mut a = vec![j.plus(&self.top.1).solve(&h.plus(&self.top.1.times(&Dense::column(&self.top.0))))];
        for layer in (0..last).rev() {
            let ((j, h), (v, c, tau)) = (&messages[layer], &self.steps[layer]);
            let down = v.times(&a[0]).plus(&Dense::column(c)).scaled(1.0 / tau);
            a.insert(0, j.plus(&Dense::diagonal(&vec![1.0 / tau; j.rows])).solve(&h.plus(&down)));
        }
        a
    }
}

fn assert_same(found: &[Dense], expected: &[Dense], tolerance: f64) {
    for (found, expected) in found.iter().zip(expected) {
        for (x, y) in found.data.iter().zip(&expected.data) {
            assert!((x - y).abs() < tolerance, "{x}, exactly {y}");
        }
    }
}

#[test]
fn e1_blocks_in_turn_reach_the_dense_solution_and_never_climb() {
    let chain = Chain::drawn([6, 5, 4], [2.0, 0.5, 0.25], false);
    let mut a = [6, 5, 4].map(|size| Dense::column(&vec![0.0; size])).to_vec();
    let mut energy = chain.energy(&a);
    for round in 0..2000 {
        let layer = round % 3;
        let (precision, shift) = chain.block(layer, &a);
        a[layer] = precision.solve(&shift);
        let after = chain.energy(&a);
        assert!(after <= energy + 1e-12, "{after} after {energy}");
        energy = after;
    }
    assert_same(&a, &chain.solved(), 1e-8);
}

#[test]
fn e2_one_way_down_is_exact_if_the_way_up_is() {
    for lambdas in [[2.0, 0.5, 0.25], [2.0, 0.0, 0.0], [0.0, 1.0, 0.0]] {
        let chain = Chain::drawn([6, 5, 4], lambdas, false);
        assert_same(&chain.swept(), &chain.solved(), 1e-9);
    }
}

/// Where maps are diagonal and one layer is measured, means and variances are the exact message, and the crate's fusion the exact sweep.
#[test]
fn e2_fusion_by_precision_is_the_exact_sweep_of_diagonal_maps() {
    let chain = Chain::drawn([5, 5, 5], [2.0, 0.0, 0.0], true);
    let device = Device::flex();
    let tensor = |numbers: &[f64]| {
        let numbers = numbers.iter().map(|&number| number as f32).collect::<Vec<_>>();
        let dims = [numbers.len()];
        Tensor::<1>::from_data(TensorData::new(numbers, dims), &device)
    };
    // The way up in means and variances: the inverse of a diagonal map.
    let (mut mean, mut variance) = (chain.measured[0].0.clone(), vec![0.5; 5]);
    let mut up = vec![(mean.clone(), variance.clone())];
    for (v, c, tau) in &chain.steps {
        for unit in 0..5 {
            let slope = v.at(unit, unit);
            mean[unit] = (mean[unit] - c[unit]) / slope;
            variance[unit] = (variance[unit] + tau) / (slope * slope);
        }
        up.push((mean.clone(), variance.clone()));
    }
    let fused = |down: (Vec<f64>, f64), (mean, variance): &(Vec<f64>, Vec<f64>)| {
        let noise = vec![down.1; 5];
        let fused = Belief::fused([tensor(&down.0), tensor(&noise)], [tensor(mean), tensor(variance)]);
        fused.into_data().iter::<f64>().collect::<Vec<_>>()
    };
    let exact = chain.solved();
    let mut a = fused((chain.top.0.clone(), 1.0 / 1.5), &up[2]);
    for layer in (0..2).rev() {
        let close = a.iter().zip(&exact[layer + 1].data).all(|(x, y)| (x - y).abs() < 1e-4);
        assert!(close, "layer {}: {a:?}, exactly {:?}", layer + 1, exact[layer + 1].data);
        let (v, c, tau) = &chain.steps[layer];
        let down = v.times(&Dense::column(&a)).plus(&Dense::column(c)).data;
        a = fused((down, *tau), &up[layer]);
    }
    assert!(a.iter().zip(&exact[0].data).all(|(x, y)| (x - y).abs() < 1e-4), "{a:?}, exactly {:?}", exact[0].data);
}
