//! The fused operations of the processor backend, with their backward passes.

mod attention;
mod convolution;
mod embedding;
pub(crate) mod host;
mod linear;
mod norm;
mod optimizer;
mod product;
pub(crate) mod vector;

use std::sync::Arc;

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Bytes, DType, Int, Shape, Tensor};
use convolution::{
    Conv2dBackward, Conv2dState, Images, MaxPool2dBackward, MaxPool2dState, conv2d_forward, max_pool2d_forward,
};
use embedding::{EmbeddingBackward, EmbeddingState, embedding_forward, rows_of};
use linear::{LinearBackward, laid, linear_forward};
use norm::{LayerNormBackward, LayerNormState, RmsNormBackward, RmsNormState, layer_norm_forward, rms_norm_forward};

use crate::{AdamWStep, Heads, Reach, Rotary, Window};

/// What the backends are asked for.
#[backend_extension(Flex, Autodiff)]
trait Fused: Backend {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_swiglu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_linear_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
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
    ) -> FloatTensor<Self>;
    fn fused_max_pool2d(x: FloatTensor<Self>, window: Window) -> FloatTensor<Self>;
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

pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => <Dispatch as Fused>::fused_linear_with_bias(x, weight, bias.into_dispatch()),
        None => <Dispatch as Fused>::fused_linear(x, weight),
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

pub(crate) fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, window: Window) -> Tensor<4> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Fused>::fused_conv2d(x, weight, bias, window))
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
const RELU: Elementwise = Elementwise { forward: vector::relu, backward: vector::relu_backward };

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

    fn fused_linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        linear_forward(&laid(x), &laid(weight), None)
    }

    fn fused_linear_with_bias(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        linear_forward(&laid(x), &laid(weight), Some(&contiguous(bias)))
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
        RELU.of(&contiguous(x))
    }

    fn fused_conv2d(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, window: Window) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(contiguous);
        conv2d_forward(&x, &weight, &bias, Images::of(&x, window))
    }

    fn fused_max_pool2d(x: FlexTensor, window: Window) -> FlexTensor {
        let images = Images::of(&x, window);
        max_pool2d_forward(&contiguous(x), images).0
    }
}

#[derive(Debug)]
struct ElementwiseBackward;

impl Backward<Flex, 1> for ElementwiseBackward {
    type State = (Elementwise, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = contiguous(gradients.consume::<Flex>(&ops.node));
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        let (function, x) = ops.state;
        let mut g = whole(g);
        (function.backward)(elements(&x), g.storage_mut::<f32>());
        gradients.register::<Flex>(parent.id, g.reshape(x.layout().shape().clone()));
    }
}

#[derive(Debug)]
struct SwigluBackward;

impl Backward<Flex, 1> for SwigluBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = contiguous(gradients.consume::<Flex>(&ops.node));
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        let x = ops.state;
        let width = dims(&x)[1];
        let d_ff = width / 2;
        let mut dx = vec![0.0; elements(&x).len()];
        let rows = elements(&x).chunks_exact(width).zip(elements(&g).chunks_exact(d_ff));
        for ((x, g), dx) in rows.zip(dx.chunks_exact_mut(width)) {
            let (dgate, dup) = dx.split_at_mut(d_ff);
            vector::swiglu_backward(&x[..d_ff], &x[d_ff..], g, dgate, dup);
        }
        gradients.register::<Flex>(parent.id, tensor(dx, dims(&x)));
    }
}

/// A turn is undone by the opposite one.
#[derive(Debug)]
struct RotaryBackward;

impl Backward<Flex, 1> for RotaryBackward {
    type State = Turn;

    fn backward(self, ops: Ops<Turn, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = contiguous(gradients.consume::<Flex>(&ops.node));
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        gradients.register::<Flex>(parent.id, ops.state.of(&g, true));
    }
}

#[derive(Clone, Debug)]
struct AttentionState {
    qkv: FlexTensor,
    out: FlexTensor,
    log_sums: Vec<f32>,
    shape: attention::Shape,
    reach: Reach,
}

#[derive(Debug)]
struct AttentionBackward;

impl Backward<Flex, 1> for AttentionBackward {
    type State = AttentionState;

    fn backward(self, ops: Ops<AttentionState, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = contiguous(gradients.consume::<Flex>(&ops.node));
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        let AttentionState { qkv, out, log_sums, shape, reach } = ops.state;
        let dqkv = attention::backward(elements(&qkv), shape, &reach, elements(&out), &log_sums, elements(&g));
        gradients.register::<Flex>(parent.id, tensor(dqkv, dims(&qkv)));
    }
}

#[derive(Clone, Debug)]
struct LogProbsState {
    logits: FlexTensor,
    targets: Arc<[usize]>,
    log_sums: Vec<[f32; 2]>,
}

#[derive(Debug)]
struct LogProbsBackward;

impl Backward<Flex, 1> for LogProbsBackward {
    type State = LogProbsState;

    fn backward(self, ops: Ops<LogProbsState, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = contiguous(gradients.consume::<Flex>(&ops.node));
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        let LogProbsState { logits, targets, log_sums } = ops.state;
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
        gradients.register::<Flex>(parent.id, dlogits);
    }
}

/// The function of each element, tracked if its argument is.
fn elementwise<C: CheckpointStrategy>(
    function: Elementwise,
    x: FloatTensor<Autodiff<Flex, C>>,
) -> FloatTensor<Autodiff<Flex, C>> {
    let node = x.node();
    let x = contiguous(x.into_primitive());
    let y = function.of(&x);
    match ElementwiseBackward.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish((function, x), y),
        OpsKind::UnTracked(prepared) => prepared.finish(y),
    }
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
        match SwigluBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(x, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(|tensor| laid(tensor.into_primitive()));
        let y = linear_forward(&x, &weight, None);
        match LinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, weight), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn fused_linear_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight] = [x, weight].map(|tensor| laid(tensor.into_primitive()));
        let y = linear_forward(&x, &weight, Some(&contiguous(bias.into_primitive())));
        match LinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, weight), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(|tensor| contiguous(tensor.into_primitive()));
        let (y, inverses) = rms_norm_forward(&x, &weight, epsilon);
        match RmsNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(RmsNormState { x, weight, inverses }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn fused_rotary(qkv: FloatTensor<Self>, turn: Turn) -> FloatTensor<Self> {
        let node = qkv.node();
        let turned = turn.of(&contiguous(qkv.into_primitive()), false);
        match RotaryBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(turn, turned),
            OpsKind::UnTracked(prepared) => prepared.finish(turned),
        }
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
        match LayerNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(LayerNormState { x, weight, moments }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn fused_attention(qkv: FloatTensor<Self>, heads: Heads, reach: Reach) -> FloatTensor<Self> {
        let node = qkv.node();
        let qkv = contiguous(qkv.into_primitive());
        let (out, shape, log_sums) = attention_forward(&qkv, heads, &reach);
        match AttentionBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish(AttentionState { qkv, out: out.clone(), log_sums, shape, reach }, out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }

    fn fused_token_log_probs(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        let node = logits.node();
        let logits = contiguous(logits.into_primitive());
        let targets = indices(&targets, dims(&logits)[1]);
        let (log_probs, log_sums) = token_log_probs_forward(&logits, &targets);
        match LogProbsBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(LogProbsState { logits, targets, log_sums }, log_probs),
            OpsKind::UnTracked(prepared) => prepared.finish(log_probs),
        }
    }

    fn fused_embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        let node = table.node();
        let table = rows_of(table.into_primitive());
        let [entries, width] = [0, 1].map(|axis| dims(&table)[axis]);
        let indices = indices(&ids, entries);
        let rows = embedding_forward(&table, &indices);
        match EmbeddingBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(EmbeddingState { indices, entries, width }, rows),
            OpsKind::UnTracked(prepared) => prepared.finish(rows),
        }
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
        elementwise::<C>(RELU, x)
    }

    fn fused_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        window: Window,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|tensor| contiguous(tensor.into_primitive()));
        let images = Images::of(&x, window);
        let y = conv2d_forward(&x, &weight, &bias, images);
        match Conv2dBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(Conv2dState { x, weight, images }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn fused_max_pool2d(x: FloatTensor<Self>, window: Window) -> FloatTensor<Self> {
        let node = x.node();
        let x = contiguous(x.into_primitive());
        let images = Images::of(&x, window);
        let (y, switches) = max_pool2d_forward(&x, images);
        match MaxPool2dBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(MaxPool2dState { batch: dims(&x)[0], images, switches }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

/// A tensor through which nothing flows back.
fn constant<C: CheckpointStrategy>(tensor: FlexTensor) -> FloatTensor<Autodiff<Flex, C>> {
    <FloatTensor<Autodiff<Flex, C>>>::new(tensor)
}
