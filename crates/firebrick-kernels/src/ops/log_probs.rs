//! Log-probabilities of tokens.

use burn::tensor::{Int, Tensor};

#[cfg(feature = "flex")]
use crate::flex::is_flex;

/// The log-probability that each position's logits give to its target token, in nats.
///
/// ```text
/// log p(t) = xₜ − ln Σᵢ exp(xᵢ)
/// ```
///
/// # Shapes
/// - `logits`: `[tokens, vocab]`
/// - `targets`: `[tokens]`
/// - returns `[tokens]`
///
/// # Panics
/// If the shapes disagree, or a target is not in the vocabulary.
pub fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [tokens, _] = logits.dims();
    assert_eq!(targets.dims(), [tokens], "shape of `targets`");
    #[cfg(feature = "flex")]
    if is_flex(&logits.device()) {
        return fused::token_log_probs(logits, targets);
    }
    plain::token_log_probs(logits, targets)
}

pub(crate) mod plain {
    use burn::tensor::{Int, Tensor};

    /// [`crate::token_log_probs`].
    pub fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        let [tokens, _] = logits.dims();
        let shifted = logits.clone() - logits.detach().max_dim(1);
        let log_sum = shifted.clone().exp().sum_dim(1).log(); // [tokens, 1]
        let chosen = shifted.gather(1, targets.reshape([tokens, 1]));
        (chosen - log_sum).reshape([tokens])
    }
}

#[cfg(feature = "flex")]
mod fused {
    use std::sync::Arc;

    use burn::backend::autodiff::Autodiff;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::backend::{Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::{Int, Tensor};
    use multiversion::multiversion;

    use crate::flex::{Vjp, compact, contiguous, dims, elements, indices, tensor, tracked};
    use crate::vector::{exp, max, sum};

    /// Log-probabilities of tokens, with their backward pass.
    #[backend_extension(Flex, Autodiff)]
    trait FusedLogProbs: Backend {
        fn fused_token_log_probs(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self>;
    }

    pub(super) fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
        Tensor::from_dispatch(<Dispatch as FusedLogProbs>::fused_token_log_probs(logits, targets))
    }

    /// The log-probabilities, and each row's [`log_sum_exp`].
    fn token_log_probs_forward(logits: &FlexTensor, targets: &[usize]) -> (FlexTensor, Vec<[f32; 2]>) {
        let vocab = dims(logits)[1];
        let rows = elements(logits).chunks_exact(vocab);
        let log_sums = rows.clone().map(log_sum_exp).collect::<Vec<_>>();
        let log_probs =
            rows.zip(targets).zip(&log_sums).map(|((row, &target), [max, log_sum])| (row[target] - max) - log_sum);
        (tensor(log_probs.collect(), vec![targets.len()]), log_sums)
    }

    #[derive(Clone, Debug)]
    struct LogProbsState {
        logits: FlexTensor,
        targets: Arc<[usize]>,
        log_sums: Vec<[f32; 2]>,
    }

    impl Vjp<1> for LogProbsState {
        fn vjp(self, g: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            let Self { logits, targets, log_sums } = self;
            let vocab = dims(&logits)[1];
            // The largest tensor of a language model: where nothing else holds it, its gradient takes its place.
            let mut dlogits = compact(logits);
            let rows = dlogits.storage_mut::<f32>().chunks_exact_mut(vocab);
            for ((x, &g), (&target, log_sum)) in rows.zip(elements(&g)).zip(targets.iter().zip(log_sums)) {
                // Where nothing flows back, as in masked positions, the row is 0.
                if g == 0.0 {
                    x.fill(0.0);
                } else {
                    log_prob_backward(x, log_sum, g);
                    x[target] += g;
                }
            }
            [Some(dlogits)]
        }
    }

    impl FusedLogProbs for Flex {
        fn fused_token_log_probs(logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
            let logits = contiguous(logits);
            let targets = indices(&targets, dims(&logits)[1]);
            token_log_probs_forward(&logits, &targets).0
        }
    }

    impl<C: CheckpointStrategy> FusedLogProbs for Autodiff<Flex, C> {
        fn fused_token_log_probs(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
            let node = logits.node();
            let logits = contiguous(logits.into_primitive());
            let targets = indices(&targets, dims(&logits)[1]);
            let (log_probs, log_sums) = token_log_probs_forward(&logits, &targets);
            tracked::<C, _, _>([node], log_probs, LogProbsState { logits, targets, log_sums })
        }
    }

    /// max x, and ln Σ exp(xᵢ − max x): apart, since their sum loses the digits of the second where logits are large.
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn log_sum_exp(x: &[f32]) -> [f32; 2] {
        let max = max(x);
        [max, sum(x, |v| exp(v - max)).ln()]
    }

    /// The gradient of xₜ − ln Σ exp(xᵢ) but for the target's own 1: −g exp(xᵢ − max x − ln Σ).
    #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
    fn log_prob_backward(x: &mut [f32], [max, log_sum]: [f32; 2], g: f32) {
        for x in x {
            *x = -g * exp((*x - max) - log_sum);
        }
    }
}
