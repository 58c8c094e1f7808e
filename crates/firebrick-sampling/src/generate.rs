//! Batched decoding.

use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_tensor::{Incremental, TokenBatch};
use firebrick_types::{Seed, TokenId};

use crate::{Finish, Sampler, Stop};

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The tokens after the prompt, with what ended them.
    pub tokens: Vec<TokenId>,
    /// Why it ended.
    pub finish: Finish,
}

/// A continuation of every prompt, drawn with the seed of its own at the same place.
///
/// Sequences that have ended leave the batch. A prompt that fills the context gives an empty sample cut by length.
///
/// # Panics
/// If there are not as many seeds as prompts, or a prompt is empty or longer than the context.
pub fn generate<M: Incremental>(
    model: &M,
    prompts: &[Vec<TokenId>],
    seeds: &[Seed],
    sampler: &Sampler,
    stop: &Stop,
    device: &Device,
) -> Vec<Sample> {
    assert_eq!(prompts.len(), seeds.len(), "one seed a prompt");
    let mut samples = vec![Sample { tokens: Vec::new(), finish: Finish::Length }; prompts.len()];
    let room = |row: usize, sampled: usize| model.context().saturating_sub(prompts[row].len() + sampled);
    let mut live = (0..prompts.len()).filter(|&row| room(row, 0) > 0 && stop.max_tokens > 0).collect::<Vec<_>>();
    if live.is_empty() {
        return samples;
    }
    let mut rngs = seeds.iter().map(|seed| seed.rng()).collect::<Vec<_>>();
    let batch = TokenBatch::from_ragged(&live.iter().map(|&row| &prompts[row]).collect::<Vec<_>>(), device);
    let (mut logits, mut cache) = model.prefill(&batch, stop.max_tokens);
    loop {
        let vocab = model.vocab();
        let values = logits.into_data().try_to_vec::<f32>().expect("logits are f32");
        let (mut kept, mut next) = (Vec::new(), Vec::new());
        for (place, (&row, logits)) in live.iter().zip(values.chunks_exact(vocab)).enumerate() {
            let sample = &mut samples[row];
            let token = sampler.draw(logits, &mut rngs[row]);
            sample.tokens.push(token);
            match stop.check(&sample.tokens, room(row, sample.tokens.len())) {
                Some(finish) => sample.finish = finish,
                None => {
                    kept.push(place);
                    next.push(i64::from(token));
                }
            }
        }
        if kept.is_empty() {
            return samples;
        }
        if kept.len() < live.len() {
            model.retain(&kept, &mut cache);
            live = kept.iter().map(|&place| live[place]).collect();
        }
        let next = Tensor::<1, Int>::from_data(TensorData::new(next, [live.len()]), device);
        logits = model.step(next, &mut cache);
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use firebrick_models::{Decoder, DecoderConfig};
    use firebrick_tensor::CausalLm;

    use super::*;

    fn model() -> Decoder {
        DecoderConfig::family(1, 24, 40).init(Seed::new(3), &Device::flex()).valid()
    }

    const NEVER: Stop = Stop { tokens: Vec::new(), sequences: Vec::new(), max_tokens: 10 };

    fn seeds(n: u64) -> Vec<Seed> {
        (0..n).map(|index| Seed::new(5).at(&[index])).collect()
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let prompts = vec![vec![1, 2, 3, 4, 5], vec![6], vec![7, 8]];
        let seeds = seeds(3);
        let stop = Stop { tokens: vec![9, 11, 13], ..NEVER };
        let together = generate(&model(), &prompts, &seeds, &Sampler::default(), &stop, &Device::flex());
        for row in 0..3 {
            let alone =
                generate(&model(), &prompts[row..=row], &seeds[row..=row], &Sampler::default(), &stop, &Device::flex());
            assert_eq!(alone[0], together[row], "prompt {row}");
        }
    }

    #[test]
    fn cached_greedy_decoding_is_the_argmax_of_the_full_pass() {
        let model = model();
        let prompt = vec![3, 1, 2];
        let sample =
            &generate(&model, std::slice::from_ref(&prompt), &seeds(1), &Sampler::GREEDY, &NEVER, &Device::flex())[0];
        let mut sequence = prompt;
        for &token in &sample.tokens {
            let batch = TokenBatch::from_ragged(&[&sequence], &Device::flex());
            let logits = model.logits(batch.ids().clone()).into_data().try_to_vec::<f32>().unwrap();
            let last = &logits[(sequence.len() - 1) * 40..];
            assert_eq!(Sampler::GREEDY.draw(last, &mut Seed::new(0).rng()), token);
            sequence.push(token);
        }
        assert_eq!(sample.tokens.len(), 10);
    }

    /// Ended by a stop token, by a stop sequence and by length: the tokens are counted once, and the reason is told.
    #[test]
    fn t09_every_way_to_end_is_told() {
        let model = model();
        let greedy = |stop: &Stop| {
            generate(&model, &[vec![3, 1, 2]], &seeds(1), &Sampler::GREEDY, stop, &Device::flex()).remove(0)
        };
        let free = greedy(&NEVER).tokens;
        assert_eq!(greedy(&NEVER).finish, Finish::Length);
        let at = free.iter().position(|token| *token == free[4]).unwrap();
        let by_token = greedy(&Stop { tokens: vec![free[4]], ..NEVER });
        assert_eq!((by_token.tokens, by_token.finish), (free[..=at].to_vec(), Finish::Stop));
        let by_sequence = greedy(&Stop { sequences: vec![free[3..6].to_vec()], ..NEVER });
        assert_eq!(by_sequence.finish, Finish::Stop);
        assert!(by_sequence.tokens.ends_with(&free[3..6]));
    }

    #[test]
    fn the_context_ends_a_sample_too() {
        let stop = Stop { max_tokens: 100, ..NEVER };
        let samples =
            generate(&model(), &[vec![1; 20], vec![1; 24]], &seeds(2), &Sampler::default(), &stop, &Device::flex());
        assert_eq!(samples[0].tokens.len(), 4);
        assert_eq!((samples[1].tokens.len(), samples[1].finish), (0, Finish::Length));
    }
}
