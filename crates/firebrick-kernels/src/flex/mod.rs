//! The fused operations of the processor backend, with their backward passes.

mod attention;
mod matrix;
mod vector;

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Bytes, DType, Int, Shape, Tensor};

use crate::Reach;

/// What the backends are asked for.
#[backend_extension(Flex, Autodiff)]
trait Fused: Backend {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
    fn fused_attention(qkv: FloatTensor<Self>, heads: usize, reach: Reach) -> FloatTensor<Self>;
    fn fused_token_log_probs(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self>;
}

pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_gelu(x.into_dispatch()))
}

pub(crate) fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Fused>::fused_layer_norm(x, weight, bias, epsilon as f32))
}

pub(crate) fn attention(qkv: Tensor<3>, heads: usize, reach: &Reach) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_attention(qkv.into_dispatch(), heads, reach.clone()))
}

pub(crate) fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Fused>::fused_token_log_probs(logits, targets))
}

/// The tensor with its elements in order.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
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
fn indices(ids: &FlexTensor, vocab: usize) -> Vec<usize> {
    let ids = ids.to_contiguous();
    let index = |id: i64| match usize::try_from(id) {
        Ok(index) if index < vocab => index,
        _ => panic!("the target {id} is not in the vocabulary of {vocab}"),
    };
    match ids.dtype() {
        DType::I64 => ids.as_slice::<i64>().expect("contiguous").iter().map(|&id| index(id)).collect(),
        DType::I32 => ids.as_slice::<i32>().expect("contiguous").iter().map(|&id| index(id.into())).collect(),
        other => panic!("token ids are 32 or 64 bits wide, not {other:?}"),
    }
}

fn gelu_forward(x: &FlexTensor) -> FlexTensor {
    let x_values = elements(x);
    let mut y = vec![0.0; x_values.len()];
    vector::gelu(x_values, &mut y);
    tensor(y, dims(x))
}

/// The normalised rows, and mean and inverse deviation of each.
fn layer_norm_forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    epsilon: f32,
) -> (FlexTensor, Vec<[f32; 2]>) {
    let (weight, bias) = (elements(weight), elements(bias));
    let values = elements(x);
    let mut y = vec![0.0; values.len()];
    let rows = values.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len()));
    let moments = rows.map(|(x, y)| vector::layer_norm(x, weight, bias, epsilon, y)).collect();
    (tensor(y, dims(x)), moments)
}

fn attention_forward(qkv: &FlexTensor, heads: usize, reach: &Reach) -> (FlexTensor, attention::Shape, Vec<f32>) {
    let [batch, seq] = reach.dims();
    let d_model = dims(qkv)[2] / 3;
    let shape = attention::Shape { seq, heads, d_model };
    let (out, log_sums) = attention::forward(elements(qkv), shape, reach);
    (tensor(out, vec![batch, seq, d_model]), shape, log_sums)
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
        gelu_forward(&contiguous(x))
    }

    fn fused_layer_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, epsilon: f32) -> FlexTensor {
        layer_norm_forward(&contiguous(x), &contiguous(weight), &contiguous(bias), epsilon).0
    }

    fn fused_attention(qkv: FlexTensor, heads: usize, reach: Reach) -> FlexTensor {
        attention_forward(&contiguous(qkv), heads, &reach).0
    }

    fn fused_token_log_probs(logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
        let logits = contiguous(logits);
        let targets = indices(&targets, dims(&logits)[1]);
        token_log_probs_forward(&logits, &targets).0
    }
}

#[derive(Debug)]
struct GeluBackward;

impl Backward<Flex, 1> for GeluBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = contiguous(gradients.consume::<Flex>(&ops.node));
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        let mut dx = vec![0.0; elements(&g).len()];
        vector::gelu_backward(elements(&ops.state), elements(&g), &mut dx);
        gradients.register::<Flex>(parent.id, tensor(dx, dims(&ops.state)));
    }
}

#[derive(Clone, Debug)]
struct LayerNormState {
    x: FlexTensor,
    weight: FlexTensor,
    moments: Vec<[f32; 2]>,
}

#[derive(Debug)]
struct LayerNormBackward;

impl Backward<Flex, 3> for LayerNormBackward {
    type State = LayerNormState;

    fn backward(self, ops: Ops<LayerNormState, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = contiguous(gradients.consume::<Flex>(&ops.node));
        let LayerNormState { x, weight, moments } = ops.state;
        let d_model = elements(&weight).len();
        let mut dx = vec![0.0; elements(&x).len()];
        let (mut dweight, mut dbias) = (vec![0.0; d_model], vec![0.0; d_model]);
        let rows = elements(&x).chunks_exact(d_model).zip(elements(&g).chunks_exact(d_model));
        for (((x, g), dx), moments) in rows.zip(dx.chunks_exact_mut(d_model)).zip(moments) {
            vector::layer_norm_backward(x, elements(&weight), g, moments, dx, &mut dweight, &mut dbias);
        }
        let results = [(dx, dims(&x)), (dweight, vec![d_model]), (dbias, vec![d_model])];
        for (parent, (values, dims)) in ops.parents.into_iter().zip(results) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, tensor(values, dims));
            }
        }
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
    targets: Vec<usize>,
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
        let mut dlogits = vec![0.0; elements(&logits).len()];
        let rows = elements(&logits).chunks_exact(vocab).zip(dlogits.chunks_exact_mut(vocab));
        for (((x, dx), &g), (target, log_sum)) in rows.zip(elements(&g)).zip(targets.into_iter().zip(log_sums)) {
            // Where nothing flows back, as in masked positions, the row stays 0.
            if g != 0.0 {
                vector::log_prob_backward(x, log_sum, g, dx);
                dx[target] += g;
            }
        }
        gradients.register::<Flex>(parent.id, tensor(dlogits, dims(&logits)));
    }
}

impl<C: CheckpointStrategy> Fused for Autodiff<Flex, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match GeluBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let x = contiguous(x.into_primitive());
                let y = gelu_forward(&x);
                prepared.finish(x, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(Flex::fused_gelu(x.into_primitive())),
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

    fn fused_attention(qkv: FloatTensor<Self>, heads: usize, reach: Reach) -> FloatTensor<Self> {
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
}
