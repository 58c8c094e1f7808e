//! Samples of many prompts at once.

use firebrick_tensor::Incremental;
use firebrick_types::{Seed, TokenId};

use crate::{Batcher, Finish, Request, Sampler, Stop};

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The tokens after the prompt, with what ended them.
    pub tokens: Vec<TokenId>,
    /// The logarithm of the probability with which each was drawn, in nats; see [`Token`](crate::Token).
    pub sampler_log_probs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// A continuation of every prompt, drawn with the seed of its own at the same place.
///
/// A prompt that fills the context gives an empty sample cut by length.
///
/// # Panics
/// If there are not as many seeds as prompts, or a [`Batcher`] does not take a prompt or the sampler.
pub fn generate<M: Incremental>(
    model: &M,
    prompts: &[Vec<TokenId>],
    seeds: &[Seed],
    sampler: &Sampler,
    stop: &Stop,
) -> Vec<Sample> {
    assert_eq!(prompts.len(), seeds.len(), "one seed a prompt");
    let request = |(prompt, &seed): (&Vec<TokenId>, &Seed)| Request {
        prompt: prompt.clone(),
        seeds: vec![seed],
        sampler: sampler.clone(),
        stop: stop.clone(),
        top_log_probs: 0,
    };
    generate_each(model, prompts.iter().zip(seeds).map(request).collect())
}

/// The first sample of every request, each with a sampler and stop of its own.
///
/// A prompt that fills the context gives an empty sample cut by length.
///
/// # Panics
/// If a [`Batcher`] does not take a request.
pub fn generate_each<M: Incremental>(model: &M, requests: Vec<Request>) -> Vec<Sample> {
    /// Sequences that are sampled at a time: more do not make each cheaper.
    const SLOTS: usize = 64;
    let mut samples =
        vec![Sample { tokens: Vec::new(), sampler_log_probs: Vec::new(), finish: Finish::Length }; requests.len()];
    let longest = requests.iter().map(|request| request.prompt.len().saturating_add(request.stop.max_tokens)).max();
    let mut batcher = Batcher::new(model, SLOTS.min(requests.len().max(1)), longest.unwrap_or(0));
    let submitted =
        requests.into_iter().map(|request| batcher.submit(request).unwrap_or_else(|error| panic!("{error}")));
    let ids = submitted.collect::<Vec<_>>();
    while !batcher.is_idle() {
        for event in batcher.step() {
            let sample = &mut samples[ids.binary_search(&event.request).expect("requests have ascending numbers")];
            if event.sample > 0 {
                continue;
            }
            if let Some(token) = event.token {
                sample.tokens.push(token.id);
                sample.sampler_log_probs.push(token.sampler_log_prob);
            }
            if let Some(finish) = event.finish {
                sample.finish = finish;
            }
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::Device;
    use firebrick_models::{Decoder, DecoderConfig};
    use firebrick_tensor::{CausalLm, TokenBatch};
    use firebrick_text::{StopStrings, Tokenizer};

    use super::*;

    fn model() -> Decoder {
        DecoderConfig::family(1, 24, 40).init(Seed::new(3), &Device::flex()).valid()
    }

    const NEVER: Stop = Stop { tokens: Vec::new(), strings: None, max_tokens: 10 };

    fn seeds(n: u64) -> Vec<Seed> {
        (0..n).map(|index| Seed::new(5).at(&[index])).collect()
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let prompts = vec![vec![1, 2, 3, 4, 5], vec![6], vec![7, 8]];
        let seeds = seeds(3);
        let stop = Stop { tokens: vec![9, 11, 13], ..NEVER };
        let together = generate(&model(), &prompts, &seeds, &Sampler::default(), &stop);
        for row in 0..3 {
            let alone = generate(&model(), &prompts[row..=row], &seeds[row..=row], &Sampler::default(), &stop);
            assert_eq!(alone[0], together[row], "prompt {row}");
        }
    }

    #[test]
    fn cached_greedy_decoding_is_the_argmax_of_the_full_pass() {
        let model = model();
        let prompt = vec![3, 1, 2];
        let sample = &generate(&model, std::slice::from_ref(&prompt), &seeds(1), &Sampler::greedy(), &NEVER)[0];
        let mut sequence = prompt;
        for &token in &sample.tokens {
            let batch = TokenBatch::of(&[&sequence], &Device::flex());
            let logits = model.logits(&batch).into_data().try_to_vec::<f32>().unwrap();
            let last = &logits[(sequence.len() - 1) * 40..];
            assert_eq!(Sampler::greedy().draw(last, &[], &mut Seed::new(0).rng()).token, token);
            sequence.push(token);
        }
        assert_eq!(sample.tokens.len(), 10);
    }

    /// Ended by a stop token, by a stop string and by length: the tokens are counted once, and the reason is told.
    #[test]
    fn t09_every_way_to_end_is_told() {
        let tokenizer = Tokenizer::train([""], 257).unwrap();
        let model = DecoderConfig::family(1, 24, 257).init(Seed::new(3), &Device::flex()).valid();
        let greedy = |stop: &Stop| generate(&model, &[vec![3, 1, 2]], &seeds(1), &Sampler::greedy(), stop).remove(0);
        let free = greedy(&NEVER).tokens;
        assert_eq!(greedy(&NEVER).finish, Finish::Length);
        let at = free.iter().position(|token| *token == free[4]).unwrap();
        let by_token = greedy(&Stop { tokens: vec![free[4]], ..NEVER });
        assert_eq!((by_token.tokens, by_token.finish), (free[..=at].to_vec(), Finish::Stop));
        // The text of three tokens in the middle; bytes that are no character are U+FFFD there as in the sample.
        let string = tokenizer.decode(&free[3..6]);
        let by_string = greedy(&Stop { strings: Some(StopStrings::new(tokenizer.clone(), [string.clone()])), ..NEVER });
        assert_eq!(by_string.finish, Finish::Stop);
        let text = tokenizer.decode(&by_string.tokens);
        assert!(text.ends_with(&string) && free.starts_with(&by_string.tokens), "{text:?} for {string:?}");
    }

    #[test]
    fn the_context_ends_a_sample_too() {
        let stop = Stop { max_tokens: 100, ..NEVER };
        let samples = generate(&model(), &[vec![1; 20], vec![1; 24]], &seeds(2), &Sampler::default(), &stop);
        assert_eq!(samples[0].tokens.len(), 4);
        assert_eq!((samples[1].tokens.len(), samples[1].finish), (0, Finish::Length));
    }
}
