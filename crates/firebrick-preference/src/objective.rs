//! What a policy can learn from a pair, by its own log-probabilities.

use burn::tensor::Tensor;

use crate::dpo_loss;

/// Some pairs as an objective sees them: every tensor is `[pairs]`, log-probabilities are summed over the tokens of a response.
#[derive(Clone, Debug)]
pub struct PairLogProbs {
    /// log π of the chosen responses.
    pub chosen: Tensor<1>,
    /// log π of the rejected responses.
    pub rejected: Tensor<1>,
    /// log π₀ of the chosen responses, π₀ the policy before training.
    pub reference_chosen: Tensor<1>,
    /// log π₀ of the rejected responses.
    pub reference_rejected: Tensor<1>,
    /// Tokens of the chosen responses.
    pub chosen_lengths: Tensor<1>,
    /// Tokens of the rejected responses.
    pub rejected_lengths: Tensor<1>,
    /// 1 where neither was preferred, 0 elsewhere.
    pub ties: Tensor<1>,
    /// How strongly the first was preferred; 1 where nobody says.
    pub strengths: Tensor<1>,
}

impl PairLogProbs {
    /// log π − log π₀ of the chosen responses.
    pub fn chosen_log_ratios(&self) -> Tensor<1> {
        self.chosen.clone() - self.reference_chosen.clone()
    }

    /// log π − log π₀ of the rejected responses.
    pub fn rejected_log_ratios(&self) -> Tensor<1> {
        self.rejected.clone() - self.reference_rejected.clone()
    }
}

/// The loss of each pair by the log-probabilities of its responses. A closure is one.
///
/// ```
/// use burn::tensor::Tensor;
/// use firebrick_preference::{Objective, PairLogProbs};
///
/// fn hinge(beta: f64) -> impl Objective {
///     move |pairs: &PairLogProbs| {
///         let margins = pairs.chosen_log_ratios() - pairs.rejected_log_ratios();
///         (margins * -beta + 1.0).clamp_min(0.0)
///     }
/// }
/// # let _ = hinge(0.1);
/// ```
pub trait Objective {
    /// The loss of each pair, `[pairs]`; gradients flow to `chosen` and `rejected`.
    fn losses(&self, pairs: &PairLogProbs) -> Tensor<1>;
}

impl<F: Fn(&PairLogProbs) -> Tensor<1>> Objective for F {
    fn losses(&self, pairs: &PairLogProbs) -> Tensor<1> {
        self(pairs)
    }
}

/// Direct preference optimisation: [`dpo_loss`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dpo {
    /// How strongly the policy is held to the reference.
    pub beta: f64,
}

impl Objective for Dpo {
    fn losses(&self, pairs: &PairLogProbs) -> Tensor<1> {
        dpo_loss(pairs.chosen_log_ratios(), pairs.rejected_log_ratios(), self.beta)
    }
}
