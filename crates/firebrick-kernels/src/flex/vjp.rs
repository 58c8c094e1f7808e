//! How gradients flow back through operations: each says it once, and Burn is told here.

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

use super::contiguous;

/// What an operation of `N` differentiable arguments keeps of its forward pass, and its vector-Jacobian product.
pub(super) trait Vjp<const N: usize>: Clone + Debug + Send + 'static {
    /// The gradients of the arguments that are wanted, at least one, from the contiguous gradient of the result.
    fn vjp(self, g: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

/// An operation's result, through which gradients flow to the arguments of these nodes.
pub(super) fn tracked<C: CheckpointStrategy, V: Vjp<N>, const N: usize>(
    nodes: [NodeGuard; N],
    result: FlexTensor,
    kept: V,
) -> FloatTensor<Autodiff<Flex, C>> {
    match Through::<V>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(kept, result),
        OpsKind::UnTracked(prepared) => prepared.finish(result),
    }
}

/// Burn's name for the way back through an operation.
#[derive(Debug)]
struct Through<V>(PhantomData<fn() -> V>);

impl<V: Vjp<N>, const N: usize> Backward<Flex, N> for Through<V> {
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
