//! The thread that owns the model and answers many jobs side by side.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use burn::tensor::{Device, Tensor};
use firebrick_sampling::{Batcher, Event, Finish, Request, RequestId, Sampler, Stop, Token};
use firebrick_tensor::Incremental;
use firebrick_text::{TextStream, Tokenizer};
use firebrick_types::{Seed, TokenId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::choice::{Growing, Piece, TextToken, prompt_texts};
use crate::score::{Scored, log_probs, score};
use crate::{Error, choice};

/// How much is answered at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Samples that grow side by side.
    pub slots: usize,
    /// Tokens of a prompt and its sample, no more than the model's context.
    pub context: usize,
    /// Jobs that may wait while there is no free slot.
    pub queue: usize,
}

/// Samples that continue one or more prompts.
#[derive(Clone, Debug)]
pub struct Job {
    /// The tokens to continue.
    pub prompts: Vec<Vec<TokenId>>,
    /// Samples of each prompt.
    pub samples: usize,
    /// Sample `s` of prompt `p` is drawn with `seed.at(&[p, s])`.
    pub seed: Seed,
    /// How tokens are drawn.
    pub sampler: Sampler,
    /// Tokens that end a sample and are none of its text.
    pub ends: Vec<TokenId>,
    /// Texts that end a sample and are none of it.
    pub stops: Vec<String>,
    /// The longest sample, in tokens.
    pub max_tokens: usize,
    /// So many of the likeliest alternatives of every token are told.
    pub top_log_probs: usize,
    /// Whether the prompts' own tokens are scored.
    pub score_prompts: bool,
}

impl Job {
    fn seed_of(&self, prompt: usize, sample: usize) -> Seed {
        self.seed.at(&[prompt as u64, sample as u64])
    }
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// The scores of a prompt's tokens, before the first piece of its samples.
    Prompt {
        /// The prompt.
        prompt: usize,
        /// Its tokens.
        tokens: Vec<TextToken>,
    },
    /// A sample has grown or ended.
    Piece {
        /// Its prompt times the samples of each, plus its number among them.
        choice: usize,
        /// What was added.
        piece: Piece,
    },
}

/// What happens to a job, in its order. Dropping it drops the job.
#[derive(Debug)]
pub struct Updates {
    receiver: UnboundedReceiver<Update>,
    unfinished: usize,
}

impl Updates {
    /// What happened next, or nothing where the job has ended; see [`failed`](Self::failed).
    pub async fn next(&mut self) -> Option<Update> {
        let update = self.receiver.recv().await;
        self.count(update)
    }

    /// The same for a thread that may wait.
    ///
    /// # Panics
    /// Inside of an asynchronous runtime.
    pub fn wait(&mut self) -> Option<Update> {
        let update = self.receiver.blocking_recv();
        self.count(update)
    }

    /// Whether some sample has not ended; after the last update, that the engine has failed or was stopped.
    pub fn failed(&self) -> bool {
        self.unfinished > 0
    }

    fn count(&mut self, update: Option<Update>) -> Option<Update> {
        if let Some(Update::Piece { piece: Piece { finish: Some(_), .. }, .. }) = update {
            self.unfinished -= 1;
        }
        update
    }
}

/// A thread that owns a model and answers jobs side by side, in the order in which they came.
///
/// A sample depends on its prompt, sampler and seed alone, whatever else is answered. A job whose [`Updates`] are dropped is given
/// up. If the model panics, all jobs at work fail, and the engine goes on with those that wait. Dropping the engine ends it.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    limits: Limits,
    vocab: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Job, UnboundedSender<Update>)>,
    /// Samples that the thread works on.
    open: usize,
    closed: bool,
}

impl State {
    /// Jobs for which there is no free slot.
    fn waiting(&self, slots: usize) -> usize {
        let mut taken = self.open;
        let begins = |(job, _): &&(Job, UnboundedSender<Update>)| {
            let begins = taken < slots;
            taken += job.prompts.len() * job.samples;
            begins
        };
        self.queue.len() - self.queue.iter().take_while(begins).count()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Panics
    /// If there is no slot, or the system gives no thread.
    pub fn start<M: Incremental + Send + 'static>(
        model: M,
        device: Device,
        tokenizer: Tokenizer,
        limits: Limits,
    ) -> Self {
        assert!(limits.slots > 0, "an engine needs a slot");
        let limits = Limits { context: limits.context.min(model.context()), ..limits };
        let (shared, vocab) = (Arc::<Shared>::default(), model.vocab());
        let theirs = Arc::clone(&shared);
        let work = move || {
            let answer = || Desk::new(&model, &device, &tokenizer, limits).work(&theirs);
            while catch_unwind(AssertUnwindSafe(answer)).is_err() {}
        };
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(work);
        Self { shared, thread: Some(thread.expect("the system gives a thread")), limits, vocab }
    }

    /// What it was started with, the context no longer than the model's.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The number of tokens in the model's vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// How many samples are at work, and how many jobs wait.
    pub fn load(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.open, state.queue.len())
    }

    /// Takes a job.
    ///
    /// # Errors
    /// If a prompt is empty, longer than the context or holds an unknown token, the sampler's numbers are impossible, or as many jobs
    /// wait as may.
    pub fn submit(&self, job: Job) -> Result<Updates, Error> {
        use firebrick_sampling::Error::{EmptyPrompt, PromptTooLong, UnknownToken};
        job.sampler.validate()?;
        let (context, vocab) = (self.limits.context, self.vocab);
        for prompt in &job.prompts {
            match prompt.iter().find(|&&id| id as usize >= vocab) {
                _ if prompt.is_empty() => return Err(EmptyPrompt.into()),
                _ if prompt.len() > context => {
                    return Err(PromptTooLong { tokens: prompt.len(), context }.into());
                }
                Some(&token) => return Err(UnknownToken { token, vocab }.into()),
                None => {}
            }
        }
        let (sender, receiver) = unbounded_channel();
        let unfinished = job.prompts.len() * job.samples;
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        state.queue.retain(|(_, sender)| !sender.is_closed());
        state.queue.push_back((job, sender));
        if state.waiting(self.limits.slots) > self.limits.queue {
            state.queue.pop_back();
            return Err(Error::Full { queue: self.limits.queue });
        }
        self.shared.changed.notify_all();
        Ok(Updates { receiver, unfinished })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.queue.clear();
        drop(state);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in it was caught and told.
            let _ = thread.join();
        }
    }
}

/// What the thread works on.
struct Desk<'a, M: Incremental> {
    model: &'a M,
    device: &'a Device,
    tokenizer: &'a Tokenizer,
    limits: Limits,
    batcher: Batcher<'a, M>,
    unscored: VecDeque<Prompt>,
    active: BTreeMap<RequestId, Active>,
}

/// One prompt of a job.
struct Prompt {
    job: Arc<Job>,
    index: usize,
    updates: UnboundedSender<Update>,
}

/// A prompt whose samples are drawn.
struct Active {
    prompt: Prompt,
    samples: Vec<Option<Growing>>,
}

impl<'a, M: Incremental> Desk<'a, M> {
    fn new(model: &'a M, device: &'a Device, tokenizer: &'a Tokenizer, limits: Limits) -> Self {
        let batcher = Batcher::new(model, limits.slots, limits.context);
        let (unscored, active) = (VecDeque::new(), BTreeMap::new());
        Self { model, device, tokenizer, limits, batcher, unscored, active }
    }

    fn work(mut self, shared: &Shared) {
        while self.take(shared) {
            self.drop_gone();
            self.score_one();
            for event in self.batcher.step() {
                self.tell(event);
            }
        }
    }

    /// Takes waiting jobs while there are slots; waits for one if there is nothing to do. False when the engine is closed.
    fn take(&mut self, shared: &Shared) -> bool {
        let mut state = shared.lock();
        loop {
            if state.closed {
                return false;
            }
            while self.open() < self.limits.slots
                && let Some((job, updates)) = state.queue.pop_front()
            {
                self.accept(job, &updates);
            }
            state.open = self.open();
            if state.open > 0 {
                return true;
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Samples that have not ended.
    fn open(&self) -> usize {
        let growing = self.active.values().map(|active| active.samples.iter().flatten().count()).sum::<usize>();
        growing + self.unscored.iter().map(|prompt| prompt.job.samples).sum::<usize>()
    }

    fn accept(&mut self, job: Job, updates: &UnboundedSender<Update>) {
        let job = Arc::new(job);
        for index in 0..job.prompts.len() {
            let prompt = Prompt { job: Arc::clone(&job), index, updates: updates.clone() };
            if job.score_prompts {
                self.unscored.push_back(prompt);
            } else {
                let (_, stream) = prompt_texts(self.tokenizer, &job.prompts[index]);
                self.begin(prompt, stream);
            }
        }
    }

    /// Lets the samples of a prompt begin where its text ends.
    fn begin(&mut self, prompt: Prompt, stream: TextStream) {
        let job = &prompt.job;
        let request = Request {
            prompt: job.prompts[prompt.index].clone(),
            seeds: (0..job.samples).map(|sample| job.seed_of(prompt.index, sample)).collect(),
            sampler: job.sampler.clone(),
            stop: Stop { tokens: job.ends.clone(), strings: None, max_tokens: job.max_tokens },
            top_log_probs: job.top_log_probs,
        };
        let samples = (0..job.samples).map(|_| Some(Growing::new(stream.clone(), &job.stops))).collect();
        let id = self.batcher.submit(request).expect("the job was checked");
        self.active.insert(id, Active { prompt, samples });
    }

    /// Gives up what nobody waits for any more.
    fn drop_gone(&mut self) {
        self.unscored.retain(|prompt| !prompt.updates.is_closed());
        let gone = self.active.iter().filter(|(_, active)| active.prompt.updates.is_closed());
        for id in gone.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.batcher.cancel(id, None);
            self.active.remove(&id);
        }
    }

    /// Scores one prompt, so that many do not keep samples waiting.
    fn score_one(&mut self) {
        let Some(prompt) = self.unscored.pop_front() else { return };
        let ids = &prompt.job.prompts[prompt.index];
        let Scored { tokens: scores, next } = score(self.model, self.device, ids, prompt.job.top_log_probs);
        let (texts, stream) = prompt_texts(self.tokenizer, ids);
        let mut offset = 0;
        let tokens = ids.iter().zip(texts).zip(scores).map(|((&id, text), (log_prob, top))| {
            let token = TextToken { id, log_prob, top, offset };
            offset += text.chars().count();
            token
        });
        let update = Update::Prompt { prompt: prompt.index, tokens: tokens.collect() };
        // Nobody may listen any more: the next turn finds out.
        let _ = prompt.updates.send(update);
        if prompt.job.max_tokens == 1 && ids.len() < self.limits.context {
            // As who measures models asks: what follows is known, so the prompt is not read again.
            follow(&prompt, &next, &stream);
        } else {
            self.begin(prompt, stream);
        }
    }

    /// Passes on what happened to a sample.
    fn tell(&mut self, Event { request, sample, token, finish }: Event) {
        let Some(Active { prompt, samples }) = self.active.get_mut(&request) else { return };
        let Some(growing) = &mut samples[sample] else { return };
        let piece = growing.push(token, finish, &prompt.job.ends);
        if piece.finish.is_some() {
            samples[sample] = None;
            if finish.is_none() {
                self.batcher.cancel(request, Some(sample));
            }
        }
        let choice::Piece { text, tokens, finish, .. } = &piece;
        if !text.is_empty() || !tokens.is_empty() || finish.is_some() {
            let choice = prompt.index * prompt.job.samples + sample;
            let _ = prompt.updates.send(Update::Piece { choice, piece });
        }
        if samples.iter().all(Option::is_none) {
            self.active.remove(&request);
        }
    }
}

/// Tells the samples of one token that follow a prompt, as the [`Batcher`] draws them, from the logits of what follows.
fn follow(prompt: &Prompt, next: &Tensor<2>, stream: &TextStream) {
    let job = &prompt.job;
    let values = next.to_data().try_to_vec::<f32>().expect("logits are f32");
    for sample in 0..job.samples {
        let draw = job.sampler.draw(&values, &job.prompts[prompt.index], &mut job.seed_of(prompt.index, sample).rng());
        let (log_prob, top) = log_probs(next.clone(), &[draw.token], job.top_log_probs).remove(0);
        let token = Token {
            id: draw.token,
            log_prob: log_prob.expect("it follows a prompt"),
            sampler_log_prob: draw.log_prob as f32,
            top,
        };
        let finish = if job.ends.contains(&draw.token) { Finish::Stop } else { Finish::Length };
        let piece = Growing::new(stream.clone(), &job.stops).push(Some(token), Some(finish), &job.ends);
        let _ = prompt.updates.send(Update::Piece { choice: prompt.index * job.samples + sample, piece });
    }
}
