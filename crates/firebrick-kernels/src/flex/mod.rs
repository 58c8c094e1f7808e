//! The fused operations of the processor backend, with their backward passes.

mod attention;
mod convolution;
mod embedding;
pub(crate) mod host;
mod linear;
mod norm;
mod optimizer;
mod planes;
mod product;
mod unpool;
pub(crate) mod vector;
mod vjp;

use std::sync::Arc;

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Bytes, DType, Int, Shape, Tensor};
use convolution::{Conv2dKept, Images, MaxPool2dKept, conv2d_forward, max_pool2d_forward};
use embedding::{EmbeddingKept, embedding_forward, rows_of};
use linear::{LinearKept, laid, linear_forward, linear_prepacked, prepack};
use norm::{LayerNormKept, RmsNormKept, layer_norm_forward, rms_norm_forward};
use vjp::{Vjp, tracked};

use crate::{AdamWStep, Heads, Precision, Reach, Rotary, Window};

/// What the backends are asked for.
#[backend_extension(Flex, Autodiff)]
trait Fused: Backend {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_swiglu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self>;
    fn fused_linear_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;
    fn fused_rotary(qkv: FloatTensor<Self>, turn: Turn) -> FloatTensor<Self>;
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
    fn fused_attention(qkv: FloatTensor<Self>, heads: Heads, reach: Reach) -> FloatTensor<Self>;
    fn fused_embedding(table: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self>;
    fn fused_token_log_probs(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self>;
    fn fused_adamw(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    fn fused_square_sum(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_relu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        window: Window,
        precision: Precision,
    ) -> FloatTensor<Self>;
    fn fused_max_pool2d(x: FloatTensor<Self>, window: Window) -> FloatTensor<Self>;
}

/// What the processor alone is asked for, where nothing flows back.
#[backend_extension(Flex)]
trait Forward: Backend {
    fn prepack(weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self>;
    fn linear_prepacked(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        of: FloatTensor<Self>,
        panels: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;
    fn rectified_moments(
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    fn soft_unpool(
        pooled: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        log_prior: FloatTensor<Self>,
        kinds: Vec<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

pub(crate) fn rectified_moments<const D: usize>(mean: Tensor<D>, variance: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    let (mean, variance) = <Dispatch as Forward>::rectified_moments(mean.into_dispatch(), variance.into_dispatch());
    (Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
}

/// Whether the processor has an instruction for products of BF16 pairs.
pub(crate) fn has_bf16() -> bool {
    product::Kernel::has_bf16()
}

pub(crate) fn soft_unpool(
    pooled: Tensor<4>,
    mean: Tensor<4>,
    variance: Tensor<4>,
    log_prior: Tensor<4>,
    kinds: &[usize],
) -> (Tensor<4>, Tensor<4>) {
    let (pooled, log_prior) = (pooled.into_dispatch(), log_prior.into_dispatch());
    let (mean, variance) = (mean.into_dispatch(), variance.into_dispatch());
    let (unpooled, switches) = <Dispatch as Forward>::soft_unpool(pooled, mean, variance, log_prior, kinds.to_vec());
    (Tensor::from_dispatch(unpooled), Tensor::from_dispatch(switches))
}

pub(crate) fn panels(weight: Tensor<2>, precision: Precision) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Forward>::prepack(weight.into_dispatch(), precision))
}

pub(crate) fn linear_of_panels(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    of: Tensor<2>,
    panels: Tensor<3>,
    precision: Precision,
) -> Tensor<2> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    let (of, panels) = (of.into_dispatch(), panels.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Forward>::linear_prepacked(x, weight, bias, of, panels, precision))
}

pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_gelu(x.into_dispatch()))
}

pub(crate) fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_gelu_tanh(x.into_dispatch()))
}

pub(crate) fn swiglu(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_swiglu(x.into_dispatch()))
}

pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, precision: Precision) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => <Dispatch as Fused>::fused_linear_with_bias(x, weight, bias.into_dispatch(), precision),
        None => <Dispatch as Fused>::fused_linear(x, weight, precision),
    })
}

pub(crate) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Fused>::fused_rms_norm(x, weight, epsilon as f32))
}

pub(crate) fn rotary(qkv: Tensor<3>, heads: Heads, rotary: &Rotary, positions: &[usize]) -> Tensor<3> {
    let turn = Turn { heads, rotary: rotary.clone(), positions: positions.into() };
    Tensor::from_dispatch(<Dispatch as Fused>::fused_rotary(qkv.into_dispatch(), turn))
}

pub(crate) fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Fused>::fused_layer_norm(x, weight, bias, epsilon as f32))
}

pub(crate) fn attention(qkv: Tensor<3>, heads: Heads, reach: &Reach) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_attention(qkv.into_dispatch(), heads, reach.clone()))
}

pub(crate) fn embedding(table: Tensor<2>, indices: Tensor<1, Int>) -> Tensor<2> {
    let (table, indices) = (table.into_dispatch(), indices.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Fused>::fused_embedding(table, indices))
}

pub(crate) fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Fused>::fused_token_log_probs(logits, targets))
}

pub(crate) fn adamw(
    weights: Tensor<1>,
    gradient: Tensor<1>,
    mean: Tensor<1>,
    square: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let (weights, gradient) = (weights.into_dispatch(), gradient.into_dispatch());
    let (mean, square) = (mean.into_dispatch(), square.into_dispatch());
    let (weights, mean, square) = <Dispatch as Fused>::fused_adamw(weights, gradient, mean, square, step);
    [weights, mean, square].map(Tensor::from_dispatch)
}

pub(crate) fn square_sum(x: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_square_sum(x.into_dispatch()))
}

pub(crate) fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_relu(x.into_dispatch()))
}

pub(crate) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    window: Window,
    precision: Precision,
) -> Tensor<4> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Fused>::fused_conv2d(x, weight, bias, window, precision))
}

pub(crate) fn max_pool2d(x: Tensor<4>, window: Window) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_max_pool2d(x.into_dispatch(), window))
}

/// The tensor with its elements in order.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

/// The tensor in memory of its own length and order, which may then be changed where it lies.
fn whole(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() && tensor.storage::<f32>().len() == tensor.layout().num_elements() {
        return tensor;
    }
    let contiguous = contiguous(tensor);
    self::tensor(elements(&contiguous).to_vec(), dims(&contiguous))
}

/// The elements of a contiguous tensor.
fn elements(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("a contiguous tensor of f32")
}

fn dims(tensor: &FlexTensor) -> Vec<usize> {
    tensor.layout().shape().iter().copied().collect()
}

fn tensor(values: Vec<f32>, dims: Vec<usize>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(dims)), DType::F32)
}

/// Token ids as indices.
///
/// # Panics
/// If one is not within `0..vocab`.
fn indices(ids: &FlexTensor, vocab: usize) -> Arc<[usize]> {
    let ids = ids.to_contiguous();
    let index = |id: i64| match usize::try_from(id) {
        Ok(index) if index < vocab => index,
        _ => panic!("the token {id} is not in the vocabulary of {vocab}"),
    };
    match ids.dtype() {
        DType::I64 => ids.as_slice::<i64>().expect("contiguous").iter().map(|&id| index(id)).collect(),
        DType::I32 => ids.as_slice::<i32>().expect("contiguous").iter().map(|&id| index(id.into())).collect(),
        other => panic!("token ids are 32 or 64 bits wide, not {other:?}"),
    }
}

/// A function of each element, and its backward pass, which turns the gradient of the result into that of the elements.
#[derive(Clone, Copy, Debug)]
struct Elementwise {
    forward: fn(&[f32], &mut [f32]),
    backward: fn(&[f32], &mut [f32]),
}

const GELU: Elementwise = Elementwise { forward: vector::gelu, backward: vector::gelu_backward };
const GELU_TANH: Elementwise = Elementwise { forward: vector::gelu_tanh, backward: vector::gelu_tanh_backward };

impl Elementwise {
    fn of(self, x: &FlexTensor) -> FlexTensor {
        let x_values = elements(x);
        let mut y = vec![0.0; x_values.len()];
        (self.forward)(x_values, &mut y);
        tensor(y, dims(x))
    }
}

fn swiglu_forward(x: &FlexTensor) -> FlexTensor {
    let [tokens, width] = [0, 1].map(|axis| dims(x)[axis]);
    let d_ff = width / 2;
    let mut y = vec![0.0; tokens * d_ff];
    for (x, y) in elements(x).chunks_exact(width).zip(y.chunks_exact_mut(d_ff)) {
        vector::swiglu(&x[..d_ff], &x[d_ff..], y);
    }
    tensor(y, vec![tokens, d_ff])
}

/// How queries and keys are turned.
#[derive(Clone, Debug)]
struct Turn {
    heads: Heads,
    rotary: Rotary,
    positions: Arc<[usize]>,
}

impl Turn {
    /// Turned by the angles of the tokens' positions, or back.
    fn of(&self, qkv: &FlexTensor, back: bool) -> FlexTensor {
        let mut values = elements(qkv).to_vec();
        let (heads, half) = (self.heads, self.rotary.half());
        let width = dims(qkv)[2];
        let d_head = width / heads.all();
        let mut backwards = vec![0.0; half];
        for (token, &position) in values.chunks_exact_mut(width).zip(&*self.positions) {
            let (cos, mut sin) = (self.rotary.cos(position), self.rotary.sin(position));
            if back {
                backwards.iter_mut().zip(sin).for_each(|(back, sin)| *back = -sin);
                sin = &backwards;
            }
            for head in token[..(heads.query + heads.key_value) * d_head].chunks_exact_mut(d_head) {
                let (a, b) = head[..2 * half].split_at_mut(half);
                vector::rotate(a, b, cos, sin);
            }
        }
        tensor(values, dims(qkv))
    }
}

fn attention_forward(qkv: &FlexTensor, heads: Heads, reach: &Reach) -> (FlexTensor, attention::Shape, Vec<f32>) {
    let [batch, seq] = reach.dims();
    let d_head = dims(qkv)[2] / heads.all();
    let shape = attention::Shape { heads, d_head };
    let (out, log_sums) = attention::forward(elements(qkv), shape, reach);
    (tensor(out, vec![batch, seq, heads.query * d_head]), shape, log_sums)
}

/// The log-probabilities, and each row's [`vector::log_sum_exp`].
fn token_log_probs_forward(logits: &FlexTensor, targets: &[usize]) -> (FlexTensor, Vec<[f32; 2]>) {
    let vocab = dims(logits)[1];
    let rows = elements(logits).chunks_exact(vocab);
    let log_sums = rows.clone().map(vector::log_sum_exp).collect::<Vec<_>>();
    let log_probs =
        rows.zip(targets).zip(&log_sums).map(|((row, &target), [most, log_sum])| (row[target] - most) - log_sum);
    (tensor(log_probs.collect(), vec![targets.len()]), log_sums)
}

impl Fused for Flex {
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        GELU.of(&contiguous(x))
    }

    fn fused_gelu_tanh(x: FlexTensor) -> FlexTensor {
        GELU_TANH.of(&contiguous(x))
    }

    fn fused_swiglu(x: FlexTensor) -> FlexTensor {
        swiglu_forward(&contiguous(x))
    }

    fn fused_linear(x: FlexTensor, weight: FlexTensor, precision: Precision) -> FlexTensor {
        linear_forward(&laid(x), &laid(weight), None, precision)
    }

    fn fused_linear_with_bias(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, precision: Precision) -> FlexTensor {
        linear_forward(&laid(x), &laid(weight), Some(&contiguous(bias)), precision)
    }

    fn fused_rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f32) -> FlexTensor {
        rms_norm_forward(&contiguous(x), &contiguous(weight), epsilon).0
    }

    fn fused_rotary(qkv: FlexTensor, turn: Turn) -> FlexTensor {
        turn.of(&contiguous(qkv), false)
    }

    fn fused_layer_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, epsilon: f32) -> FlexTensor {
        layer_norm_forward(&contiguous(x), &contiguous(weight), &contiguous(bias), epsilon).0
    }

    fn fused_attention(qkv: FlexTensor, heads: Heads, reach: Reach) -> FlexTensor {
        attention_forward(&contiguous(qkv), heads, &reach).0
    }

    fn fused_embedding(table: FlexTensor, ids: FlexTensor) -> FlexTensor {
        let indices = indices(&ids, dims(&table)[0]);
        embedding_forward(&rows_of(table), &indices)
    }

    fn fused_token_log_probs(logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
        let logits = contiguous(logits);
        let targets = indices(&targets, dims(&logits)[1]);
        token_log_probs_forward(&logits, &targets).0
    }

    fn fused_adamw(
        weights: FlexTensor,
        gradient: FlexTensor,
        mean: FlexTensor,
        square: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        optimizer::adamw(weights, gradient, mean, square, step)
    }

    fn fused_square_sum(x: FlexTensor) -> FlexTensor {
        optimizer::square_sum(x)
    }

    fn fused_relu(x: FlexTensor) -> FlexTensor {
        let mut x = whole(x);
        vector::relu(x.storage_mut::<f32>());
        x
    }

    fn fused_conv2d(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        window: Window,
        precision: Precision,
    ) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(contiguous);
        conv2d_forward(&x, &weight, &bias, Images::of(&x, window), precision)
    }

    fn fused_max_pool2d(x: FlexTensor, window: Window) -> FlexTensor {
        let images = Images::of(&x, window);
        max_pool2d_forward::<false>(&contiguous(x), images).0
    }
}

impl Forward for Flex {
    fn prepack(weight: FlexTensor, precision: Precision) -> FlexTensor {
        prepack(&laid(weight), precision)
    }

    fn linear_prepacked(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        of: FlexTensor,
        panels: FlexTensor,
        precision: Precision,
    ) -> FlexTensor {
        linear_prepacked(&laid(x), &laid(weight), &contiguous(bias), &laid(of), &panels, precision)
    }

    fn rectified_moments(mean: FlexTensor, variance: FlexTensor) -> (FlexTensor, FlexTensor) {
        let (mut mean, mut variance) = (whole(mean), whole(variance));
        vector::rectified_moments(mean.storage_mut::<f32>(), variance.storage_mut::<f32>());
        (mean, variance)
    }

    fn soft_unpool(
        pooled: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        log_prior: FlexTensor,
        kinds: Vec<usize>,
    ) -> (FlexTensor, FlexTensor) {
        unpool::soft_unpool(pooled, mean, variance, log_prior, &kinds)
    }
}

/// The backward pass of a function of each element, and what it reads.
#[derive(Clone, Debug)]
struct ElementwiseKept(fn(&[f32], &mut [f32]), FlexTensor);

impl Vjp<1> for ElementwiseKept {
    fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let Self(backward, read) = self;
        let mut g = whole(g);
        backward(elements(&read), g.storage_mut::<f32>());
        [Some(g.reshape(read.layout().shape().clone()))]
    }
}

#[derive(Clone, Debug)]
struct SwigluKept(FlexTensor);

impl Vjp<1> for SwigluKept {
    fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let Self(x) = self;
        let width = dims(&x)[1];
        let d_ff = width / 2;
        let mut dx = vec![0.0; elements(&x).len()];
        let rows = elements(&x).chunks_exact(width).zip(elements(&g).chunks_exact(d_ff));
        for ((x, g), dx) in rows.zip(dx.chunks_exact_mut(width)) {
            let (dgate, dup) = dx.split_at_mut(d_ff);
            vector::swiglu_backward(&x[..d_ff], &x[d_ff..], g, dgate, dup);
        }
        [Some(tensor(dx, dims(&x)))]
    }
}

/// A turn is undone by the opposite one.
impl Vjp<1> for Turn {
    fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.of(&g, true))]
    }
}

#[derive(Clone, Debug)]
struct AttentionKept {
    qkv: FlexTensor,
    out: FlexTensor,
    log_sums: Vec<f32>,
    shape: attention::Shape,
    reach: Reach,
}

impl Vjp<1> for AttentionKept {
    fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let Self { qkv, out, log_sums, shape, reach } = self;
        let dqkv = attention::backward(elements(&qkv), shape, &reach, elements(&out), &log_sums, elements(&g));
        [Some(tensor(dqkv, dims(&qkv)))]
    }
}

#[derive(Clone, Debug)]
struct LogProbsKept {
    logits: FlexTensor,
    targets: Arc<[usize]>,
    log_sums: Vec<[f32; 2]>,
}

impl Vjp<1> for LogProbsKept {
    fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let Self { logits, targets, log_sums } = self;
        let vocab = dims(&logits)[1];
        // The largest tensor of a language model: where nothing else holds it, its gradient takes its place.
        let mut dlogits = whole(logits);
        let rows = dlogits.storage_mut::<f32>().chunks_exact_mut(vocab);
        for ((x, &g), (&target, log_sum)) in rows.zip(elements(&g)).zip(targets.iter().zip(log_sums)) {
            // Where nothing flows back, as in masked positions, the row is 0.
            if g == 0.0 {
                x.fill(0.0);
            } else {
                vector::log_prob_backward(x, log_sum, g);
                x[target] += g;
            }
        }
        [Some(dlogits)]
    }
}

/// The function of each element, tracked if its argument is.
fn elementwise<C: CheckpointStrategy>(
    function: Elementwise,
    x: FloatTensor<Autodiff<Flex, C>>,
) -> FloatTensor<Autodiff<Flex, C>> {
    let node = x.node();
    let x = contiguous(x.into_primitive());
    tracked::<C, _, _>([node], function.of(&x), ElementwiseKept(function.backward, x))
}

impl<C: CheckpointStrategy> Fused for Autodiff<Flex, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        elementwise::<C>(GELU, x)
    }

    fn fused_gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        elementwise::<C>(GELU_TANH, x)
    }

    fn fused_swiglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        let x = contiguous(x.into_primitive());
        let y = swiglu_forward(&x);
        tracked::<C, _, _>([node], y, SwigluKept(x))
    }

    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(|tensor| laid(tensor.into_primitive()));
        let y = linear_forward(&x, &weight, None, precision);
        tracked::<C, _, _>(nodes, y, LinearKept { x, weight, precision })
    }

    fn fused_linear_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight] = [x, weight].map(|tensor| laid(tensor.into_primitive()));
        let y = linear_forward(&x, &weight, Some(&contiguous(bias.into_primitive())), precision);
        tracked::<C, _, _>(nodes, y, LinearKept { x, weight, precision })
    }

    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(|tensor| contiguous(tensor.into_primitive()));
        let (y, inverses) = rms_norm_forward(&x, &weight, epsilon);
        tracked::<C, _, _>(nodes, y, RmsNormKept { x, weight, inverses })
    }

    fn fused_rotary(qkv: FloatTensor<Self>, turn: Turn) -> FloatTensor<Self> {
        let node = qkv.node();
        let turned = turn.of(&contiguous(qkv.into_primitive()), false);
        tracked::<C, _, _>([node], turned, turn)
    }

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|tensor| contiguous(tensor.into_primitive()));
        let (y, moments) = layer_norm_forward(&x, &weight, &bias, epsilon);
        tracked::<C, _, _>(nodes, y, LayerNormKept { x, weight, moments })
    }

    fn fused_attention(qkv: FloatTensor<Self>, heads: Heads, reach: Reach) -> FloatTensor<Self> {
        let node = qkv.node();
        let qkv = contiguous(qkv.into_primitive());
        let (out, shape, log_sums) = attention_forward(&qkv, heads, &reach);
        tracked::<C, _, _>([node], out.clone(), AttentionKept { qkv, out, log_sums, shape, reach })
    }

    fn fused_token_log_probs(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        let node = logits.node();
        let logits = contiguous(logits.into_primitive());
        let targets = indices(&targets, dims(&logits)[1]);
        let (log_probs, log_sums) = token_log_probs_forward(&logits, &targets);
        tracked::<C, _, _>([node], log_probs, LogProbsKept { logits, targets, log_sums })
    }

    fn fused_embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        let node = table.node();
        let table = rows_of(table.into_primitive());
        let [entries, width] = [0, 1].map(|axis| dims(&table)[axis]);
        let indices = indices(&ids, entries);
        let rows = embedding_forward(&table, &indices);
        tracked::<C, _, _>([node], rows, EmbeddingKept { indices, entries, width })
    }

    fn fused_adamw(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [weights, gradient, mean, square] = [weights, gradient, mean, square].map(|tensor| tensor.into_primitive());
        let (weights, mean, square) = optimizer::adamw(weights, gradient, mean, square, step);
        (constant::<C>(weights), constant::<C>(mean), constant::<C>(square))
    }

    fn fused_square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        constant::<C>(optimizer::square_sum(x.into_primitive()))
    }

    fn fused_relu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        // The result tells as well as what was rectified where a gradient flows.
        let y = Flex::fused_relu(x.into_primitive());
        tracked::<C, _, _>([node], y.clone(), ElementwiseKept(vector::relu_backward, y))
    }

    fn fused_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        window: Window,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|tensor| contiguous(tensor.into_primitive()));
        let images = Images::of(&x, window);
        let y = conv2d_forward(&x, &weight, &bias, images, precision);
        tracked::<C, _, _>(nodes, y, Conv2dKept { x, weight, images, precision })
    }

    fn fused_max_pool2d(x: FloatTensor<Self>, window: Window) -> FloatTensor<Self> {
        let node = x.node();
        let x = contiguous(x.into_primitive());
        let images = Images::of(&x, window);
        let (y, switches) = max_pool2d_forward::<true>(&x, images);
        tracked::<C, _, _>([node], y, MaxPool2dKept { batch: dims(&x)[0], images, switches })
    }
}

/// A tensor through which nothing flows back.
fn constant<C: CheckpointStrategy>(tensor: FlexTensor) -> FloatTensor<Autodiff<Flex, C>> {
    <FloatTensor<Autodiff<Flex, C>>>::new(tensor)
}
