//! Vector-Jacobian products of operations, registered with Burn's autodiff.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::Flex;
use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;

use super::tensors::contiguous;

/// What an operation of `N` differentiable arguments saves of its forward pass, and its vector-Jacobian product.
pub(crate) trait Vjp<const N: usize>: Clone + Debug + Send + 'static {
    /// The gradients of the arguments that are wanted, at least one, from the contiguous gradient of the result.
    fn vjp(self, g: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

/// An operation's result, through which gradients flow to the arguments of these nodes.
pub(crate) fn tracked<C: CheckpointStrategy, V: Vjp<N>, const N: usize>(
    nodes: [NodeGuard; N],
    result: FlexTensor,
    state: V,
) -> FloatTensor<Autodiff<Flex, C>> {
    match Node::<V>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, result),
        OpsKind::UnTracked(prepared) => prepared.finish(result),
    }
}

/// A tensor through which nothing flows back.
pub(crate) fn constant<C: CheckpointStrategy>(tensor: FlexTensor) -> FloatTensor<Autodiff<Flex, C>> {
    <FloatTensor<Autodiff<Flex, C>>>::new(tensor)
}

/// The node of an operation in Burn's graph.
#[derive(Debug)]
struct Node<V>(PhantomData<fn() -> V>);

impl<V: Vjp<N>, const N: usize> Backward<Flex, N> for Node<V> {
    type State = V;

    fn backward(self, ops: Ops<V, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let g = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        if !wanted.contains(&true) {
            return;
        }
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state.vjp(contiguous(g), wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
