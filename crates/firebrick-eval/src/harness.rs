//! What a task asks a language model, and what the model says.

use burn::module::Module;
use firebrick_sampling::{Finish, Sampler, Stop, generate_each};
use firebrick_tensor::{Incremental, ResponseBatch, Workers, token_log_probs};

use firebrick_types::{Seed, TokenId};

/// What a task asks of a language model.
#[derive(Clone, Debug)]
pub enum Request {
    /// How likely is this continuation?
    LogProb {
        /// What stands before it; not empty. Where both do not fit the model, it is cut from the left.
        context: Vec<TokenId>,
        /// The continuation; not empty. Where it does not fit alone, it is cut from the right.
        continuation: Vec<TokenId>,
    },
    /// How does it go on?
    Generate {
        /// What stands before; not empty.
        context: Vec<TokenId>,
        /// How tokens are drawn.
        sampler: Sampler,
        /// When the sample ends.
        stop: Stop,
        /// Where its randomness comes from.
        seed: Seed,
    },
}

/// What a language model answers to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// To [`Request::LogProb`].
    LogProb {
        /// log P(continuation | context), in nats.
        sum: f64,
        /// The tokens that this is the sum over.
        tokens: usize,
    },
    /// To [`Request::Generate`].
    Generated {
        /// The tokens, with what ended them.
        tokens: Vec<TokenId>,
        /// Why it ended.
        finish: Finish,
    },
}

impl Response {
    /// log P(continuation | context), in nats.
    ///
    /// # Panics
    /// If something else was asked.
    pub fn log_prob(&self) -> f64 {
        match self {
            Self::LogProb { sum, .. } => *sum,
            Self::Generated { .. } => panic!("a generated text was asked for, not a log-probability"),
        }
    }

    /// The generated tokens, with what ended them.
    ///
    /// # Panics
    /// If something else was asked.
    pub fn generated(&self) -> &[TokenId] {
        match self {
            Self::Generated { tokens, .. } => tokens,
            Self::LogProb { .. } => panic!("a log-probability was asked for, not a generated text"),
        }
    }
}

/// How requests are computed; none of it changes a bit of a response.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Requests computed at a time.
    pub micro_batch_size: usize,
    /// Who computes.
    pub workers: Workers,
}

/// The model's responses, in the order of the requests.
///
/// # Panics
/// If a context or a continuation is empty, or a generated text does not fit the model.
pub fn respond<M: Incremental + Module + Send>(model: &M, requests: &[Request], batching: &Batching) -> Vec<Response> {
    let Batching { micro_batch_size, workers } = *batching;
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let is_generation = |index: &usize| matches!(requests[*index], Request::Generate { .. });
    let (generated, scored): (Vec<_>, Vec<_>) = (0..requests.len()).partition(is_generation);
    let mut responses = vec![None; requests.len()];

    let context = model.context();
    let fitting = |index: &usize| match &requests[*index] {
        Request::LogProb { context: before, continuation } => {
            assert!(!before.is_empty() && !continuation.is_empty(), "a context and a continuation have tokens");
            let continuation = &continuation[..continuation.len().min(context - 1)];
            let room = context - continuation.len();
            (&before[before.len().saturating_sub(room)..], continuation)
        }
        Request::Generate { .. } => unreachable!("these were set apart"),
    };
    let chunks = scored.chunks(micro_batch_size).map(|chunk| (model.clone(), chunk)).collect();
    let sums = workers.map(chunks, |(model, chunk): (M, &[usize])| {
        let batch = ResponseBatch::of(chunk.iter().map(fitting), &device);
        let log_probs = token_log_probs(batch.logits(&model, 1.0), batch.responses());
        let rows = batch.split_by_response(log_probs);
        rows.iter().map(|row| (row.iter().map(|&one| f64::from(one)).sum(), row.len())).collect::<Vec<_>>()
    });
    for (index, (sum, tokens)) in scored.iter().zip(sums.into_iter().flatten()) {
        responses[*index] = Some(Response::LogProb { sum, tokens });
    }

    let model = if generated.is_empty() { model.clone() } else { model.clone().prepacked() };
    let chunks = generated.chunks(micro_batch_size).map(|chunk| (model.clone(), chunk)).collect();
    let samples = workers.map(chunks, |(model, chunk): (M, &[usize])| {
        let request = |index: &usize| match &requests[*index] {
            Request::Generate { context, sampler, stop, seed } => firebrick_sampling::Request {
                prompt: context.clone(),
                seeds: vec![*seed],
                sampler: sampler.clone(),
                stop: stop.clone(),
                top_log_probs: 0,
            },
            Request::LogProb { .. } => unreachable!("these were set apart"),
        };
        generate_each(&model, chunk.iter().map(request).collect())
    });
    for (index, sample) in generated.iter().zip(samples.into_iter().flatten()) {
        responses[*index] = Some(Response::Generated { tokens: sample.tokens, finish: sample.finish });
    }
    responses.into_iter().map(|response| response.expect("every request was answered")).collect()
}
