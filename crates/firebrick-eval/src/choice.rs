//! How likely a language model finds an answer.

use firebrick_types::TokenId;
use serde::{Deserialize, Serialize};

use crate::{Request, Response};

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
    /// From what a model says of the answer after the question, and of the same answer without it.
    ///
    /// ```text
    /// I(a, q) = log P(a | q) − log P(a)
    /// ```
    ///
    /// Askell et al. 2021, §2.2.1. Spec: A-10. P(a) is read after the context without the question, which the paper leaves open.
    ///
    /// # Panics
    /// If they answer something else than [`Choice::requests`].
    pub fn of([given, bare]: [&Response; 2]) -> Self {
        let Response::LogProb { sum, tokens } = *given else { panic!("a choice asks for log-probabilities") };
        Self { sum, mean: sum / tokens as f64, mutual_information: sum - bare.log_prob() }
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

#[cfg(test)]
mod tests {
    use burn::module::{Module, Param};
    use burn::tensor::{Device, Tensor};
    use firebrick_tensor::{CausalLm, Feed, Incremental, TokenBatch, Workers};

    use super::*;
    use crate::{Batching, respond};

    /// A bigram model over 4 tokens. Token 3 follows the question 1 with probability .5 and anything else with .1; token 2 follows
    /// everything with .45.
    #[derive(Module, Debug)]
    struct Bigram {
        log_probs: Param<Tensor<2>>,
    }

    fn bigram() -> Bigram {
        let row = |specific: f32| [(0.55 - specific) / 2.0, (0.55 - specific) / 2.0, 0.45, specific].map(f32::ln);
        let rows = [0.1, 0.5, 0.1, 0.1].map(row);
        Bigram { log_probs: Param::from_tensor(Tensor::from_floats(rows, &Device::flex())) }
    }

    impl CausalLm for Bigram {
        fn logits(&self, batch: &TokenBatch) -> Tensor<2> {
            let rows = batch.sequences().flatten().map(|&id| self.log_probs.val().narrow(0, id as usize, 1));
            Tensor::cat(rows.collect(), 0)
        }

        fn vocab(&self) -> usize {
            4
        }

        fn context(&self) -> usize {
            8
        }
    }

    impl Incremental for Bigram {
        type Cache = ();

        fn cache(&self, _slots: usize, _capacity: usize) {}

        fn extend(&self, _cache: &mut (), _feeds: &[Feed<'_>]) -> Tensor<2> {
            unreachable!("nothing is generated")
        }

        fn forget(&self, _cache: &mut (), _slot: usize) {}

        fn copy(&self, _cache: &mut (), _from: usize, _to: usize) {}
    }

    fn scores(choices: Vec<Choice>) -> Vec<ChoiceScores> {
        let requests = choices.into_iter().flat_map(Choice::requests).collect::<Vec<_>>();
        let responses = respond(&bigram(), &requests, &Batching { micro_batch_size: 2, workers: Workers::default() });
        responses.chunks(2).map(|pair| ChoiceScores::of([&pair[0], &pair[1]])).collect()
    }

    /// The generic answer 2 says nothing of the question: ln .45 − ln .45 = 0. The specific one does: ln .5 − ln .1 = ln 5.
    #[test]
    fn mutual_information_prefers_what_depends_on_the_question() {
        let choice = |answer: u32| Choice { context: vec![0, 1], bare_context: vec![0], answer: vec![answer] };
        let scores = scores(vec![choice(2), choice(3)]);
        assert!(scores[0].mutual_information.abs() < 1e-6);
        assert!((scores[1].mutual_information - 5.0_f64.ln()).abs() < 1e-5);
        assert!((scores[0].sum - 0.45_f64.ln()).abs() < 1e-6);
    }

    /// Sum prefers the short answer, mean does not: 2·ln .45 < ln .4, but ln .45 > ln .4 (token 3 after 1 is .5, after 2 .1).
    #[test]
    fn sum_is_biased_to_short_answers_and_mean_is_not() {
        let choice = |answer: Vec<u32>| Choice { context: vec![1], bare_context: vec![0], answer };
        let scores = scores(vec![choice(vec![2, 2]), choice(vec![2])]);
        assert!(scores[0].sum < scores[1].sum);
        assert!((scores[0].mean - scores[1].mean).abs() < 1e-6);
    }

    /// The answer's tokens are the same after both contexts, and a long context is cut from the left.
    #[test]
    fn t30_the_same_ids_are_scored_in_both_terms() {
        let long = Choice { context: vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 1], bare_context: vec![0], answer: vec![3] };
        let scores = scores(vec![long]);
        assert!((scores[0].sum - 0.5_f64.ln()).abs() < 1e-6);
    }
}
