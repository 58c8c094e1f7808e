//! Continuous batching: what a sample is depends on its own request alone, whoever else is served.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use firebrick_models::{Decoder, DecoderConfig};
use firebrick_sampling::{Batcher, Error, Event, Finish, Request, RequestId, Sampler, Stop, Token};
use firebrick_tensor::{CausalLm, TokenBatch, token_log_probs};
use firebrick_types::{Seed, TokenId};

const VOCAB: usize = 40;
const CONTEXT: usize = 700;

fn model() -> Decoder {
    DecoderConfig::family(1, CONTEXT, VOCAB).init(Seed::new(3), &Device::flex()).valid()
}

fn request(prompt: &[TokenId], seeds: &[u64], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        seeds: seeds.iter().map(|&seed| Seed::new(seed)).collect(),
        sampler: Sampler::default(),
        stop: Stop { max_tokens, ..Stop::default() },
        top_log_probs: 0,
    }
}

/// The tokens of each sample, and how it ended.
#[derive(Default)]
struct Heard(BTreeMap<(RequestId, usize), (Vec<Token>, Option<Finish>)>);

impl Heard {
    fn on(&mut self, events: Vec<Event>) {
        for Event { request, sample, token, finish } in events {
            let (tokens, end) = self.0.entry((request, sample)).or_default();
            assert!(end.is_none(), "a sample went on after its end");
            tokens.extend(token);
            *end = finish;
        }
    }

    fn ids(&self, request: RequestId, sample: usize) -> Vec<TokenId> {
        self.0[&(request, sample)].0.iter().map(|token| token.id).collect()
    }
}

fn finish(batcher: &mut Batcher<'_, Decoder>, heard: &mut Heard) {
    while !batcher.is_idle() {
        heard.on(batcher.step());
    }
}

/// The tokens of one sample that is made alone.
fn alone(model: &Decoder, prompt: &[TokenId], seed: u64, max_tokens: usize) -> Vec<TokenId> {
    let (mut batcher, mut heard) = (Batcher::new(model, 1, CONTEXT), Heard::default());
    let id = batcher.submit(request(prompt, &[seed], max_tokens)).unwrap();
    finish(&mut batcher, &mut heard);
    heard.ids(id, 0)
}

#[test]
fn samples_do_not_depend_on_who_comes_and_goes() {
    let model = model();
    let long = (0..600).map(|index| index % 37).collect::<Vec<TokenId>>();
    let asked: [(&[TokenId], &[u64], usize); 4] =
        [(&[1, 2, 3], &[5, 6, 7], 9), (&[4], &[8], 30), (&long, &[9, 10], 5), (&[6, 6], &[11], 1)];
    let (mut batcher, mut heard) = (Batcher::new(&model, 3, CONTEXT), Heard::default());
    let mut ids = Vec::new();
    for (prompt, seeds, max_tokens) in asked {
        ids.push(batcher.submit(request(prompt, seeds, max_tokens)).unwrap());
        // Some steps later the next one comes.
        (0..3).for_each(|_| heard.on(batcher.step()));
    }
    finish(&mut batcher, &mut heard);
    for ((prompt, seeds, max_tokens), id) in asked.into_iter().zip(ids) {
        for (sample, &seed) in seeds.iter().enumerate() {
            assert_eq!(heard.ids(id, sample), alone(&model, prompt, seed, max_tokens), "{} tokens", prompt.len());
        }
    }
}

/// Through the cache, beside others, in pieces: the bits of a whole pass.
#[test]
fn a_samples_log_probabilities_are_those_of_scoring_it() {
    let model = model();
    let temperature = 0.7;
    let (mut batcher, mut heard) = (Batcher::new(&model, 4, CONTEXT), Heard::default());
    let mut tempered = request(&[4, 5, 6], &[1, 2], 12);
    tempered.sampler.temperature = temperature;
    let ids = [batcher.submit(request(&[1, 2, 3, 4, 5], &[3], 20)).unwrap(), batcher.submit(tempered).unwrap()];
    finish(&mut batcher, &mut heard);
    for (id, sample, prompt) in
        [(ids[0], 0, vec![1, 2, 3, 4, 5]), (ids[1], 0, vec![4, 5, 6]), (ids[1], 1, vec![4, 5, 6])]
    {
        let tokens = &heard.0[&(id, sample)].0;
        let whole = [prompt.clone(), heard.ids(id, sample)].concat();
        let batch = TokenBatch::of(&[&whole], &Device::flex());
        let score = |temperature: f64| {
            let logits = model.logits(&batch.inputs()) / temperature;
            token_log_probs(logits, batch.targets())
                .into_data()
                .try_to_vec::<f32>()
                .unwrap()
                .split_off(prompt.len() - 1)
        };
        let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let drawn_at = if id == ids[0] { 1.0 } else { temperature };
        assert_eq!(bits(tokens.iter().map(|token| token.log_prob).collect()), bits(score(1.0)));
        assert_eq!(bits(tokens.iter().map(|token| token.sampler_log_prob).collect()), bits(score(drawn_at)));
    }
}

#[test]
fn who_is_cancelled_leaves_and_the_others_stay_as_they_were() {
    let model = model();
    let long = (0..650).map(|index| index % 31).collect::<Vec<TokenId>>();
    for cancelled_after in [0, 1, 2, 4] {
        let (mut batcher, mut heard) = (Batcher::new(&model, 4, CONTEXT), Heard::default());
        // The first of three samples reads the prompt, in two pieces, for the other two.
        let three = batcher.submit(request(&long, &[1, 2, 3], 6)).unwrap();
        let gone = batcher.submit(request(&[7], &[4], 100)).unwrap();
        let waiting = batcher.submit(request(&[8], &[5], 100)).unwrap();
        (0..cancelled_after).for_each(|_| heard.on(batcher.step()));
        batcher.cancel(three, Some(0));
        batcher.cancel(gone, None);
        batcher.cancel(waiting, None);
        finish(&mut batcher, &mut heard);
        for sample in 1..3 {
            assert_eq!(heard.ids(three, sample), alone(&model, &long, 1 + sample as u64, 6), "after {cancelled_after}");
        }
        assert!(heard.0.get(&(gone, 0)).is_none_or(|(tokens, end)| tokens.len() < 100 && end.is_none()));
        assert!(!heard.0.contains_key(&(waiting, 0)), "after {cancelled_after}");
        assert!(heard.0.get(&(three, 0)).is_none_or(|(_, end)| end.is_none()), "after {cancelled_after}");
    }
}

#[test]
fn alternatives_are_told_and_the_drawn_token_is_among_them() {
    let model = model();
    let (mut batcher, mut heard) = (Batcher::new(&model, 1, CONTEXT), Heard::default());
    let asked = Request { top_log_probs: VOCAB, ..request(&[1, 2], &[1], 3) };
    let id = batcher.submit(asked).unwrap();
    finish(&mut batcher, &mut heard);
    for token in &heard.0[&(id, 0)].0 {
        let total = token.top.iter().map(|(_, log_prob)| f64::from(*log_prob).exp()).sum::<f64>();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        let own = token.top.iter().find(|(id, _)| *id == token.id).unwrap().1;
        assert!((own - token.log_prob).abs() < 1e-5, "{own} {}", token.log_prob);
        assert!(token.top.is_sorted_by(|a, b| a.1 >= b.1));
    }
}

#[test]
fn what_cannot_be_sampled_is_refused_with_its_numbers() {
    let model = model();
    let mut batcher = Batcher::new(&model, 1, 10);
    let mut refused = |request| batcher.submit(request).unwrap_err();
    assert_eq!(refused(request(&[], &[1], 1)), Error::EmptyPrompt);
    assert_eq!(refused(request(&[1; 11], &[1], 1)), Error::PromptTooLong { tokens: 11, context: 10 });
    assert_eq!(refused(request(&[3, 40], &[1], 1)), Error::UnknownToken { token: 40, vocab: VOCAB });
    let mut hot = request(&[1], &[1], 1);
    hot.sampler.temperature = f64::NAN;
    assert!(refused(hot).to_string().starts_with("`temperature` is NaN"));
    // Nothing to draw is no error: the sample is there, and empty.
    let mut heard = Heard::default();
    let none = batcher.submit(request(&[1], &[1], 0)).unwrap();
    let full = batcher.submit(request(&[1; 10], &[1], 5)).unwrap();
    finish(&mut batcher, &mut heard);
    for id in [none, full] {
        assert_eq!(heard.0[&(id, 0)], (Vec::new(), Some(Finish::Length)));
    }
}

#[test]
fn greedy_is_what_the_whole_pass_prefers() {
    let model = model();
    let (mut batcher, mut heard) = (Batcher::new(&model, 1, CONTEXT), Heard::default());
    let id = batcher.submit(Request { sampler: Sampler::greedy(), ..request(&[9, 1], &[1], 4) }).unwrap();
    finish(&mut batcher, &mut heard);
    let mut sequence = vec![9, 1];
    for token in heard.ids(id, 0) {
        let last = model.logits_at(&TokenBatch::of(&[&sequence], &Device::flex()), &[sequence.len() - 1]);
        assert_eq!(last.argmax(1).into_scalar::<i64>(), i64::from(token));
        sequence.push(token);
    }
}
