//! What the engine does when its model fails, and when it ends.

use burn::tensor::{Device, Tensor};
use firebrick_models::{Decoder, DecoderConfig, KvCache};
use firebrick_sampling::{Finish, Sampler};
use firebrick_serve::{Engine, Error, Job, Limits, Update};
use firebrick_tensor::{CausalLm, Feed, Incremental, TokenBatch};
use firebrick_text::Tokenizer;
use firebrick_types::{Seed, TokenId};

/// A token that the model cannot read.
const FATAL: TokenId = 13;

/// A model that panics at a token.
struct Fragile(Decoder);

impl CausalLm for Fragile {
    fn logits(&self, batch: &TokenBatch) -> Tensor<2> {
        self.0.logits(batch)
    }

    fn vocab(&self) -> usize {
        self.0.vocab()
    }

    fn context(&self) -> usize {
        self.0.context()
    }
}

impl Incremental for Fragile {
    type Cache = KvCache;

    fn cache(&self, slots: usize, capacity: usize) -> KvCache {
        self.0.cache(slots, capacity)
    }

    fn extend(&self, cache: &mut KvCache, feeds: &[Feed<'_>]) -> Tensor<2> {
        assert!(feeds.iter().all(|feed| !feed.tokens.contains(&FATAL)), "the token was read");
        self.0.extend(cache, feeds)
    }

    fn forget(&self, cache: &mut KvCache, slot: usize) {
        self.0.forget(cache, slot);
    }

    fn copy(&self, cache: &mut KvCache, from: usize, to: usize) {
        self.0.copy(cache, from, to);
    }
}

fn engine(slots: usize, queue: usize) -> Engine {
    let tokenizer = Tokenizer::train(["a text of some words"], 257).expect("the vocabulary is large enough");
    let shape = DecoderConfig::family(1, 5000, tokenizer.vocab_size());
    let config = DecoderConfig { d_model: 16, heads: 2, d_ff: 16, ..shape };
    let device = Device::flex();
    let model = Fragile(config.init(Seed::new(1), &device));
    Engine::start(model, device, tokenizer, Limits { slots, context: usize::MAX, queue })
}

fn job(prompt: &[TokenId], max_tokens: usize) -> Job {
    Job {
        prompts: vec![prompt.to_vec()],
        samples: 1,
        seed: Seed::new(2),
        // The token that ends the process of the model is never its own idea.
        sampler: Sampler { banned: vec![FATAL], ..Sampler::default() },
        ends: Vec::new(),
        stops: Vec::new(),
        max_tokens,
        top_log_probs: 0,
        score_prompts: false,
    }
}

#[test]
fn a_model_that_panics_fails_its_jobs_and_answers_the_next() {
    let engine = engine(1, 8);
    let mut fatal = engine.submit(job(&[5, FATAL], 4)).expect("it is taken");
    let mut next = engine.submit(job(&[5, 6], 4)).expect("it is taken");
    assert_eq!(fatal.wait(), None);
    assert!(fatal.failed());
    let mut finish = None;
    while let Some(update) = next.wait() {
        let Update::Piece { piece, .. } = update else { panic!("nothing was to be scored") };
        finish = piece.finish;
    }
    assert_eq!((finish, next.failed()), (Some(Finish::Length), false));
}

#[test]
fn jobs_that_wait_are_counted_beyond_the_free_slots() {
    let engine = engine(2, 1);
    // Whether or not the first have begun: two fit the slots, one waits, the fourth is refused.
    let taken = (0..3).map(|_| engine.submit(job(&[1], 4900)).expect("it is taken")).collect::<Vec<_>>();
    assert_eq!(engine.submit(job(&[1], 1)).map(drop), Err(Error::Full { queue: 1 }));
    // Those whose updates nobody wants count no more.
    drop(taken);
    let mut rest = loop {
        if let Ok(rest) = engine.submit(job(&[1], 1)) {
            break rest;
        }
    };
    while rest.wait().is_some() {}
    assert!(!rest.failed());
}

#[test]
fn an_engine_that_ends_fails_what_is_not_answered() {
    let engine = engine(1, 1);
    let mut running = engine.submit(job(&[1], 4900)).expect("it is taken");
    assert!(running.wait().is_some());
    drop(engine);
    while running.wait().is_some() {}
    assert!(running.failed());
}

#[test]
fn what_cannot_be_answered_is_not_taken() {
    let engine = engine(1, 1);
    for (prompt, temperature, expected) in [
        (vec![], 1.0, "the prompt is empty"),
        (vec![1; 5001], 1.0, "the prompt has 5001 tokens, the context holds 5000"),
        (vec![1, 257], 1.0, "token 257 is not in the vocabulary of 257"),
        (vec![1], -1.0, "`temperature` is -1"),
    ] {
        let sampler = Sampler { temperature, ..Sampler::default() };
        let found =
            engine.submit(Job { sampler, ..job(&prompt, 1) }).map(drop).expect_err("it is not taken").to_string();
        assert!(found.contains(expected), "{found}");
    }
}
