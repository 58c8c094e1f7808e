//! The references: elementary operations, on every device.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Int, Tensor, TensorData, activation, module};

use crate::{AdamWStep, Heads, Reach, Rotary, Window};

/// What a hidden position adds to an attention score; its probability is then exactly 0.
const HIDDEN: f32 = -1e9;

/// [`crate::gelu`].
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// [`crate::gelu_tanh`].
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
    x * (inner.tanh() + 1.0) * 0.5
}

/// [`crate::swiglu`].
pub fn swiglu(x: Tensor<2>) -> Tensor<2> {
    let [tokens, width] = x.dims();
    let d_ff = width / 2;
    let gate = x.clone().slice([0..tokens, 0..d_ff]);
    activation::silu(gate) * x.slice([0..tokens, d_ff..width])
}

/// [`crate::linear`].
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let dtype = x.dtype();
    let y = x.matmul(weight.cast(dtype));
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// [`crate::linear_in`] BF16.
pub fn linear_bf16(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let rounded = |tensor: Tensor<2>| tensor.cast(DType::BF16).cast(DType::F32);
    linear(rounded(x), rounded(weight), bias)
}

/// [`crate::rms_norm`].
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let size = (x.clone().square().mean_dim(1) + epsilon).sqrt();
    x / size * weight.unsqueeze()
}

/// [`crate::rotary`].
pub fn rotary(qkv: Tensor<3>, heads: Heads, rotary: &Rotary, positions: &[usize]) -> Tensor<3> {
    let [batch, seq, width] = qkv.dims();
    let (half, d_head) = (rotary.half(), width / heads.all());
    let turned = heads.query + heads.key_value;
    let x = qkv.clone().reshape([batch * seq, heads.all(), d_head]);
    let part = |heads: std::ops::Range<usize>, numbers: std::ops::Range<usize>| {
        x.clone().slice([0..batch * seq, heads, numbers])
    };
    let table = |of: fn(&Rotary, usize) -> &[f32]| {
        let rows = positions.iter().flat_map(|&position| of(rotary, position)).copied().collect::<Vec<_>>();
        let table = Tensor::<3>::from_data(TensorData::new(rows, [batch * seq, 1, half]), &qkv.device());
        if qkv.is_autodiff() { table.autodiff() } else { table }
    };
    let (cos, sin) = (table(Rotary::cos), table(Rotary::sin));
    let (a, b) = (part(0..turned, 0..half), part(0..turned, half..2 * half));
    let mut numbers = vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin];
    if 2 * half < d_head {
        numbers.push(part(0..turned, 2 * half..d_head));
    }
    let whole = Tensor::cat(vec![Tensor::cat(numbers, 2), part(turned..heads.all(), 0..d_head)], 1);
    whole.reshape([batch, seq, width])
}

/// [`crate::layer_norm`].
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let deviation = (centred.clone().square().mean_dim(1) + epsilon).sqrt();
    centred / deviation * weight.unsqueeze() + bias.unsqueeze()
}

/// [`crate::attention`].
pub fn attention(qkv: Tensor<3>, heads: Heads, reach: &Reach) -> Tensor<3> {
    let [batch, seq, width] = qkv.dims();
    let (tokens, d_head, device) = (batch * seq, width / heads.all(), qkv.device());
    let Heads { query, key_value } = heads;
    // Each sequence becomes a row of its own, filled at its end with what no token of it reads: many short sequences in one row
    // would ask for scores of all pairs of their tokens.
    let starts = (0..tokens).filter(|index| index % seq == reach.first()[*index]).collect::<Vec<_>>();
    let ends = starts.iter().copied().skip(1).chain([tokens]);
    let spans = starts.iter().copied().zip(ends).collect::<Vec<_>>();
    let (rows, longest) = (spans.len(), spans.iter().map(|(start, end)| end - start).max().unwrap_or(0));
    let filled = spans.iter().flat_map(|&(start, end)| (start..start + longest).map(move |place| place.min(end - 1)));
    let places = spans.iter().enumerate().flat_map(|(row, (start, end))| row * longest..row * longest + end - start);
    let indices = |places: Vec<usize>| {
        let places = places.into_iter().map(|place| place as i64).collect::<Vec<_>>();
        let count = places.len();
        Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &device)
    };
    // Sequences of one length are such rows already.
    let whole = rows * longest == tokens;
    let filled = |qkv: Tensor<2>| if whole { qkv } else { qkv.select(0, indices(filled.collect())) };
    let taken = |read: Tensor<2>| if whole { read } else { read.select(0, indices(places.collect())) };
    let qkv = filled(qkv.reshape([tokens, width])).reshape([rows, longest, width]);
    // [rows, query heads, longest, d_head]; heads of keys and values are repeated for the queries that share them.
    let part = |index: usize| {
        let (from, count) = [(0, query), (query, key_value), (query + key_value, key_value)][index];
        let part = qkv.clone().slice([0..rows, 0..longest, from * d_head..(from + count) * d_head]);
        let part = part.reshape([rows, longest, count, 1, d_head]).repeat_dim(3, query / count);
        part.reshape([rows, longest, query, d_head]).swap_dims(1, 2)
    };
    let hidden = Tensor::<2>::ones([longest, longest], &device).triu(1) * HIDDEN;
    let scores = (part(0) * (d_head as f64).powf(-0.5)).matmul(part(1).swap_dims(2, 3)) + hidden.unsqueeze();
    let exp = (scores.clone() - scores.detach().max_dim(3)).exp();
    let sum = exp.clone().sum_dim(3);
    let read = (exp / sum).matmul(part(2)).swap_dims(1, 2).reshape([rows * longest, query * d_head]);
    taken(read).reshape([batch, seq, query * d_head])
}

/// [`crate::relu`].
pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::relu(x)
}

/// [`crate::rectified_moments`].
pub fn rectified_moments<const D: usize>(mean: Tensor<D>, variance: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    const DENSITY_AT_0: f64 = 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
    let known = variance.clone().lower_equal_elem(0.0);
    let deviation = variance.clone().mask_fill(known.clone(), 1.0).sqrt();
    let alpha = mean.clone() / deviation.clone();
    let below = ((alpha.clone() * FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
    let density = deviation * (alpha.square() * -0.5).exp() * DENSITY_AT_0;
    let first = mean.clone() * below.clone() + density.clone();
    let second = (mean.clone().square() + variance) * below + mean.clone() * density;
    // What rounding leaves below 0.
    let left = (second - first.clone().square()).clamp_min(0.0).mask_fill(known.clone(), 0.0);
    (first.clamp_min(0.0).mask_where(known, activation::relu(mean)), left)
}

/// [`crate::soft_unpool`].
pub fn soft_unpool(
    pooled: Tensor<4>,
    mean: Tensor<4>,
    variance: Tensor<4>,
    log_prior: Tensor<4>,
    kinds: &[usize],
) -> (Tensor<4>, Tensor<4>) {
    let ([batch, down, across, channels], dims) = (pooled.dims(), mean.dims());
    let pool = dims[1] / down;
    // Rows and columns of each window on axes of their own.
    let apart = |x: Tensor<4>| x.reshape([batch, down, pool, across, pool, channels]);
    let kinds = kinds.iter().map(|&kind| kind as i64).collect::<Vec<_>>();
    let kinds = Tensor::<1, Int>::from_data(TensorData::new(kinds, [batch]), &mean.device());
    let pooled = pooled.reshape([batch, down, 1, across, 1, channels]);
    let misfit = (apart(mean) - pooled.clone()).square() / (apart(variance) * 2.0);
    let logits = apart(log_prior.select(0, kinds)) - misfit;
    let most = logits.clone().max_dim(2).max_dim(4);
    let weights = (logits - most).exp();
    let switches = weights.clone() / weights.sum_dim(2).sum_dim(4);
    ((switches.clone() * pooled).reshape(dims), switches.reshape(dims))
}

/// [`crate::conv2d`].
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, window: Window) -> Tensor<4> {
    let Window { stride, padding, .. } = window;
    let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
    let y = module::conv2d(x.permute([0, 3, 1, 2]), weight.permute([3, 2, 0, 1]), Some(bias), options);
    y.permute([0, 2, 3, 1])
}

/// [`crate::conv2d_in`] BF16.
pub fn conv2d_bf16(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, window: Window) -> Tensor<4> {
    let half = |tensor: Tensor<4>| tensor.cast(DType::BF16).cast(DType::F32);
    conv2d(half(x), half(weight), bias, window)
}

/// [`crate::max_pool2d`].
pub fn max_pool2d(x: Tensor<4>, window: Window) -> Tensor<4> {
    let Window { size, stride, padding } = window;
    let options = MaxPoolOptions::new([size; 2]).with_stride([stride; 2]).with_padding([padding; 2]);
    module::max_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}

/// [`crate::avg_pool2d`].
pub fn avg_pool2d(x: Tensor<4>, window: Window) -> Tensor<4> {
    let Window { size, stride, padding } = window;
    let options = AvgPoolOptions::new([size; 2]).with_stride([stride; 2]).with_padding([padding; 2]);
    module::avg_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}

/// [`crate::embedding`].
pub fn embedding(table: Tensor<2>, indices: Tensor<1, Int>) -> Tensor<2> {
    table.select(0, indices)
}

/// [`crate::token_log_probs`].
pub fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [tokens, _] = logits.dims();
    let shifted = logits.clone() - logits.detach().max_dim(1);
    let log_sum = shifted.clone().exp().sum_dim(1).log(); // [tokens, 1]
    let chosen = shifted.gather(1, targets.reshape([tokens, 1]));
    (chosen - log_sum).reshape([tokens])
}

/// [`crate::adamw`].
pub fn adamw(
    weights: Tensor<1>,
    gradient: Tensor<1>,
    mean: Tensor<1>,
    square: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let mean = mean * step.beta_1 + gradient.clone() * (1.0 - step.beta_1);
    let square = square * step.beta_2 + gradient.square() * (1.0 - step.beta_2);
    let denominator = square.clone().sqrt() * step.root_factor + step.epsilon;
    let change = mean.clone() / denominator * step.mean_factor;
    [weights * step.kept - change, mean, square]
}

/// [`crate::square_sum`].
pub fn square_sum(x: Tensor<1>) -> Tensor<1> {
    x.square().sum()
}

/// [`crate::boltzmann`].
pub fn boltzmann(logits: &[f32], most: f32, temperature: f64) -> Vec<f64> {
    logits.iter().map(|&logit| ((f64::from(logit) - f64::from(most)) / temperature).exp()).collect()
}

/// [`crate::greatest`].
pub fn greatest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(f32::NEG_INFINITY, |most, &number| if number > most { number } else { most })
}
