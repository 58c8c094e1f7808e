//! How likely a language model finds an answer.

use burn::tensor::Device;
use firebrick_tensor::{CausalLm, ResponseBatch, token_log_probs};
use firebrick_types::TokenId;
use serde::{Deserialize, Serialize};

use crate::Request;

/// An answer to be scored: the same token ids after both contexts (T-30).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Everything before the answer, the question included; not empty.
    pub context: Vec<TokenId>,
    /// The same without the question; not empty.
    pub bare_context: Vec<TokenId>,
    /// The answer; not empty.
    pub answer: Vec<TokenId>,
}

/// The scores of an answer, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceScores {
    /// log P(answer | question).
    pub sum: f64,
    /// The same a token.
    pub mean: f64,
    /// log P(answer | question) − log P(answer).
    pub mutual_information: f64,
}

impl ChoiceScores {
    /// From log P(answer | question) and log P(answer), in nats, of an answer of so many tokens.
    pub fn new(sum: f64, bare: f64, tokens: usize) -> Self {
        Self { sum, mean: sum / tokens as f64, mutual_information: sum - bare }
    }
}

impl Choice {
    /// What is asked of a model: the answer after the question, and without it.
    pub fn requests(self) -> [Request; 2] {
        let Self { context, bare_context, answer } = self;
        [(context, answer.clone()), (bare_context, answer)]
            .map(|(context, continuation)| Request::LogProb { context, continuation })
    }
}

/// The scores of every answer.
///
/// ```text
/// I(a, q) = log P(a | q) − log P(a)
/// ```
///
/// Askell et al. 2021, §2.2.1. Spec: A-10. P(a) is read after the context without the question, which the paper leaves open.
/// Contexts that do not fit are cut from the left. Answers that do not fit at all are cut from the right.
///
/// # Panics
/// If a context or an answer is empty.
pub fn choice_scores<M: CausalLm>(model: &M, choices: &[Choice], device: &Device) -> Vec<ChoiceScores> {
    let score = |choice: &Choice| {
        let sum = log_prob(model, &choice.context, &choice.answer, device);
        let bare = log_prob(model, &choice.bare_context, &choice.answer, device);
        ChoiceScores::new(sum, bare, choice.answer.len())
    };
    choices.iter().map(score).collect()
}

/// log P(answer | context), in nats.
fn log_prob<M: CausalLm>(model: &M, context: &[TokenId], answer: &[TokenId], device: &Device) -> f64 {
    assert!(!context.is_empty() && !answer.is_empty(), "a context and an answer have tokens");
    let answer = &answer[..answer.len().min(model.context() - 1)];
    let room = model.context() - answer.len();
    let context = &context[context.len().saturating_sub(room)..];
    let batch = ResponseBatch::of([(context, answer)], device);
    let log_probs = token_log_probs(batch.logits(model, 1.0), batch.responses()).into_data();
    log_probs.try_to_vec::<f32>().expect("log-probabilities are f32").into_iter().map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorData};
    use firebrick_tensor::TokenBatch;

    use super::*;

    /// A bigram model over 4 tokens. Token 3 follows the question 1 with probability .5 and anything else with .1; token 2 follows
    /// everything with .45.
    struct Bigram;

    impl CausalLm for Bigram {
        fn logits(&self, batch: &TokenBatch) -> Tensor<2> {
            let rows = batch.sequences().flatten().flat_map(|&id| {
                let specific: f32 = if id == 1 { 0.5 } else { 0.1 };
                let rest = (1.0 - 0.45 - specific) / 2.0;
                [rest.ln(), rest.ln(), 0.45_f32.ln(), specific.ln()]
            });
            Tensor::from_data(TensorData::new(rows.collect::<Vec<_>>(), [batch.tokens(), 4]), &Device::flex())
        }

        fn vocab(&self) -> usize {
            4
        }

        fn context(&self) -> usize {
            8
        }
    }

    /// The generic answer 2 says nothing of the question: ln .45 − ln .45 = 0. The specific one does: ln .5 − ln .1 = ln 5.
    #[test]
    fn mutual_information_prefers_what_depends_on_the_question() {
        let choice = |answer: u32| Choice { context: vec![0, 1], bare_context: vec![0], answer: vec![answer] };
        let scores = choice_scores(&Bigram, &[choice(2), choice(3)], &Device::flex());
        assert!(scores[0].mutual_information.abs() < 1e-6);
        assert!((scores[1].mutual_information - 5.0_f64.ln()).abs() < 1e-5);
        assert!((scores[0].sum - 0.45_f64.ln()).abs() < 1e-6);
    }

    /// Sum prefers the short answer, mean does not: 2·ln .45 < ln .4, but ln .45 > ln .4 (token 3 after 1 is .5, after 2 .1).
    #[test]
    fn sum_is_biased_to_short_answers_and_mean_is_not() {
        let choice = |answer: Vec<u32>| Choice { context: vec![1], bare_context: vec![0], answer };
        let scores = choice_scores(&Bigram, &[choice(vec![2, 2]), choice(vec![2])], &Device::flex());
        assert!(scores[0].sum < scores[1].sum);
        assert!((scores[0].mean - scores[1].mean).abs() < 1e-6);
    }

    /// The answer's tokens are the same after both contexts, and a long context is cut from the left.
    #[test]
    fn t30_the_same_ids_are_scored_in_both_terms() {
        let long = Choice { context: vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 1], bare_context: vec![0], answer: vec![3] };
        let scores = choice_scores(&Bigram, &[long], &Device::flex());
        assert!((scores[0].sum - 0.5_f64.ln()).abs() < 1e-6);
    }
}
