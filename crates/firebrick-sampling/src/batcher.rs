//! Continuous batching: every step feeds whatever sequences there are.

use std::collections::{BTreeSet, VecDeque};

use burn::tensor::{Int, Tensor, TensorData};
use firebrick_kernels::token_log_probs;
use firebrick_tensor::{Feed, Incremental};
use firebrick_types::{Seed, TokenId};
use rand::Rng;

use crate::stop::Watch;
use crate::{Error, Finish, Sampler, Stop};

/// What is asked of a [`Batcher`]: samples that continue one prompt.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tokens to continue.
    pub prompt: Vec<TokenId>,
    /// One sample with each of these seeds; the prompt is read once for all.
    pub seeds: Vec<Seed>,
    /// How tokens are drawn.
    pub sampler: Sampler,
    /// When a sample ends.
    pub stop: Stop,
    /// So many of the likeliest alternatives of every token are told.
    pub top_log_probs: usize,
}

/// The number of a request, in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// A drawn token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token.
    pub id: TokenId,
    /// The logarithm of its probability under the model, in nats: the same bits as when the whole sequence is scored.
    pub log_prob: f32,
    /// The same under the distribution that it was drawn from, after temperature and truncation.
    pub sampler_log_prob: f32,
    /// The likeliest tokens at its place with their log-probabilities under the model.
    pub top: Vec<(TokenId, f32)>,
}

/// Something that happened to a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Of this request.
    pub request: RequestId,
    /// The sample of this seed.
    pub sample: usize,
    /// A token was drawn; a sample that has no room ends without one.
    pub token: Option<Token>,
    /// It was the last.
    pub finish: Option<Finish>,
}

/// Draws samples of many requests side by side.
///
/// Sequences that have ended leave, waiting ones enter; a prompt is read in pieces, so that a long one does not stop the
/// others. A sample's tokens depend on its prompt, sampler and seed alone, whatever else is in the batch.
pub struct Batcher<'m, M: Incremental> {
    model: &'m M,
    cache: M::Cache,
    capacity: usize,
    slots: Vec<Option<Running>>,
    waiting: VecDeque<Waiting>,
    requests: u64,
}

struct Waiting {
    id: RequestId,
    request: Request,
    /// Samples that have been started, or dropped before.
    started: usize,
    dropped: BTreeSet<usize>,
}

struct Running {
    id: RequestId,
    sample: usize,
    /// The prompt and what was drawn.
    tokens: Vec<TokenId>,
    /// How many of them the model has read.
    read: usize,
    /// The slot that reads the prompt for this one too.
    leader: Option<usize>,
    rng: Box<dyn Rng + Send>,
    sampler: Sampler,
    watch: Watch,
    top_log_probs: usize,
}

/// Prompt tokens that are read in one step.
const PREFILL: usize = 512;

impl<'m, M: Incremental> Batcher<'m, M> {
    /// Up to `slots` sequences at a time, each of up to `capacity` tokens with its prompt (no more than the model's context).
    ///
    /// # Panics
    /// If there is no slot.
    pub fn new(model: &'m M, slots: usize, capacity: usize) -> Self {
        assert!(slots > 0, "a batch needs a slot");
        let capacity = capacity.min(model.context());
        let cache = model.cache(slots, capacity);
        let slots = (0..slots).map(|_| None).collect();
        Self { model, cache, capacity, slots, waiting: VecDeque::new(), requests: 0 }
    }

    /// Takes a request; its samples begin when there is room.
    ///
    /// # Errors
    /// If the prompt is empty, longer than the capacity or holds an unknown token, or the sampler's numbers are impossible.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        let (tokens, vocab) = (request.prompt.len(), self.model.vocab());
        if tokens == 0 {
            return Err(Error::EmptyPrompt);
        }
        if tokens > self.capacity {
            return Err(Error::PromptTooLong { tokens, context: self.capacity });
        }
        if let Some(&token) = request.prompt.iter().find(|token| **token as usize >= vocab) {
            return Err(Error::UnknownToken { token, vocab });
        }
        request.sampler.validate()?;
        let id = RequestId(self.requests);
        self.requests += 1;
        self.waiting.push_back(Waiting { id, request, started: 0, dropped: BTreeSet::new() });
        Ok(id)
    }

    /// Drops what is left of a request, or of one of its samples.
    pub fn cancel(&mut self, id: RequestId, sample: Option<usize>) {
        match sample {
            None => self.waiting.retain(|waiting| waiting.id != id),
            Some(sample) => {
                for waiting in self.waiting.iter_mut().filter(|waiting| waiting.id == id) {
                    waiting.dropped.insert(sample);
                }
            }
        }
        for slot in 0..self.slots.len() {
            let chosen = |running: &Running| running.id == id && sample.is_none_or(|sample| sample == running.sample);
            if self.slots[slot].as_ref().is_some_and(chosen) {
                self.free(slot);
            }
        }
    }

    /// Whether nothing is running or waiting.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.slots.iter().all(Option::is_none)
    }

    /// Sequences that are running.
    pub fn running(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Requests of which some sample has not begun.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lets waiting samples in, reads one piece of every running sequence, and draws a token of each that has read all of its.
    pub fn step(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.admit(&mut events);
        let mut budget = PREFILL;
        let mut fed = Vec::new();
        for (slot, running) in self.slots.iter_mut().enumerate() {
            let Some(running) = running.as_mut().filter(|running| running.leader.is_none()) else { continue };
            let left = running.tokens.len() - running.read;
            let piece = if left > 1 { left.min(budget) } else { left };
            if left > 1 {
                budget -= piece;
            }
            if piece > 0 {
                fed.push((slot, running.read..running.read + piece));
                running.read += piece;
            }
        }
        if fed.is_empty() {
            return events;
        }
        let tokens = |slot: usize| &self.slots[slot].as_ref().expect("it was fed").tokens;
        let feeds = fed.iter().map(|(slot, piece)| Feed { slot: *slot, tokens: &tokens(*slot)[piece.clone()] });
        let feeds = feeds.collect::<Vec<_>>();
        let logits = self.model.extend(&mut self.cache, &feeds);
        // Who draws from which row of logits: those that have read all, and those that waited for them.
        let mut drawing = Vec::new();
        for (row, (slot, _)) in fed.iter().enumerate() {
            if self.slots[*slot].as_ref().is_some_and(|running| running.read == running.tokens.len()) {
                drawing.push((*slot, row));
                for follower in 0..self.slots.len() {
                    let waits = |running: &Running| running.leader == Some(*slot);
                    if let Some(running) = self.slots[follower].as_mut().filter(|running| waits(running)) {
                        (running.leader, running.read) = (None, running.tokens.len());
                        self.model.copy(&mut self.cache, *slot, follower);
                        drawing.push((follower, row));
                    }
                }
            }
        }
        if !drawing.is_empty() {
            self.draw(&logits, &drawing, &mut events);
        }
        events
    }

    fn admit(&mut self, events: &mut Vec<Event>) {
        while let Some(front) = self.waiting.front_mut() {
            let Waiting { id, request, started, dropped } = front;
            if request.seeds.len() == *started {
                self.waiting.pop_front();
                continue;
            }
            let sample = *started;
            if dropped.contains(&sample) {
                *started += 1;
                continue;
            }
            if request.stop.max_tokens == 0 || request.prompt.len() >= self.capacity {
                events.push(Event { request: *id, sample, token: None, finish: Some(Finish::Length) });
                *started += 1;
                continue;
            }
            let Some(slot) = self.slots.iter().position(Option::is_none) else { return };
            // A prompt that is about to be read is read for this sample too.
            let leads = |running: &Running| running.id == *id && running.leader.is_none() && running.read == 0;
            let leader = self.slots.iter().position(|running| running.as_ref().is_some_and(leads));
            *started += 1;
            self.model.forget(&mut self.cache, slot);
            self.slots[slot] = Some(Running {
                id: *id,
                sample,
                tokens: request.prompt.clone(),
                read: 0,
                leader,
                rng: Box::new(request.seeds[sample].rng()),
                sampler: request.sampler.clone(),
                watch: request.stop.clone().watch(),
                top_log_probs: request.top_log_probs,
            });
        }
    }

    /// A token of each `(slot, row of the logits)`.
    fn draw(&mut self, logits: &Tensor<2>, drawing: &[(usize, usize)], events: &mut Vec<Event>) {
        let (vocab, device) = (self.model.vocab(), logits.device());
        let logits = if drawing.iter().map(|(_, row)| *row).eq(0..logits.dims()[0]) {
            logits.clone()
        } else {
            let rows = drawing.iter().map(|(_, row)| *row as i64).collect::<Vec<_>>();
            logits.clone().select(0, Tensor::from_data(TensorData::new(rows, [drawing.len()]), &device))
        };
        let values = logits.to_data().try_to_vec::<f32>().expect("logits are f32");
        let mut drawn = Vec::new();
        let mut temperatures = Vec::new();
        for (&(slot, _), logits) in drawing.iter().zip(values.chunks_exact(vocab)) {
            let running = self.slots[slot].as_mut().expect("it draws");
            drawn.push(running.sampler.draw(logits, &running.tokens, &mut running.rng));
            temperatures.push(if running.sampler.is_plain() { running.sampler.temperature as f32 } else { 1.0 });
        }
        let targets = drawn.iter().map(|draw| i64::from(draw.token)).collect::<Vec<_>>();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [drawn.len()]), &device);
        let log_probs = |logits| token_log_probs(logits, targets.clone()).into_data().try_to_vec::<f32>().expect("f32");
        let of_model = log_probs(logits.clone());
        let of_plain_sampler = if temperatures.iter().all(|temperature| *temperature == 1.0) {
            of_model.clone()
        } else {
            log_probs(logits / Tensor::from_data(TensorData::new(temperatures, [drawn.len(), 1]), &device))
        };
        for (index, (&(slot, _), draw)) in drawing.iter().zip(drawn).enumerate() {
            let running = self.slots[slot].as_mut().expect("it draws");
            running.tokens.push(draw.token);
            let plain = running.sampler.is_plain();
            let token = Token {
                id: draw.token,
                log_prob: of_model[index],
                sampler_log_prob: if plain { of_plain_sampler[index] } else { draw.log_prob as f32 },
                top: likeliest(&values[index * vocab..][..vocab], running.top_log_probs),
            };
            let room = self.capacity - running.tokens.len();
            let finish = running.watch.push(draw.token, room);
            events.push(Event { request: running.id, sample: running.sample, token: Some(token), finish });
            if finish.is_some() {
                self.free(slot);
            }
        }
    }

    /// Empties a slot; if others waited for it to read their prompt, one of them reads on in its stead.
    fn free(&mut self, slot: usize) {
        let read = self.slots[slot].take().map_or(0, |running| running.read);
        let follows = |running: &Option<Running>| running.as_ref().is_some_and(|running| running.leader == Some(slot));
        let followers = (0..self.slots.len()).filter(|&other| follows(&self.slots[other])).collect::<Vec<_>>();
        if let Some(&heir) = followers.first() {
            self.model.copy(&mut self.cache, slot, heir);
            for follower in followers {
                let running = self.slots[follower].as_mut().expect("it follows");
                (running.leader, running.read) = if follower == heir { (None, read) } else { (Some(heir), 0) };
            }
        }
        self.model.forget(&mut self.cache, slot);
    }
}

/// The likeliest tokens of logits with their log-probabilities, the likeliest first; the smaller id where they are equal.
pub fn likeliest(logits: &[f32], count: usize) -> Vec<(TokenId, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum::<f64>().ln();
    let mut order = (0..logits.len()).collect::<Vec<_>>();
    let likelier = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    if count < order.len() {
        order.select_nth_unstable_by(count, likelier);
        order.truncate(count);
    }
    order.sort_unstable_by(likelier);
    let log_prob = |id: usize| (f64::from(logits[id] - most) - log_sum) as f32;
    order.into_iter().map(|id| (id as TokenId, log_prob(id))).collect()
}
