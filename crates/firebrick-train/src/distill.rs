//! Context distillation: a model learns to do without a prompt what it does with it.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_tensor::{CausalLm, TokenBatch, log_softmax};
use firebrick_types::TokenId;
use rand::seq::SliceRandom;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{Error, Event, Loss, Order, Passes, Run, Samples, fit};

/// What the teacher says of every token: its `k` likeliest tokens, and all the others as one category.
#[derive(Clone, Debug)]
pub struct TeacherTop {
    /// The likeliest tokens, `[tokens, k]`.
    pub ids: Tensor<2, Int>,
    /// Their log-probabilities, `[tokens, k]`.
    pub log_probs: Tensor<2>,
    /// The probability of all the others together, `[tokens, 1]`; exactly 0 if there are none.
    rest: Tensor<2>,
    /// 0 on the likeliest tokens, a large negative number on the others, `[tokens, vocab]`: what [`Self::new`] derives
    /// from `ids`.
    inside: Tensor<2>,
}

/// What hides a token from a sum of exponentials.
const HIDDEN: f32 = -1e9;

impl TeacherTop {
    /// The top `k` of the teacher's logits `[tokens, vocab]`; ties go to the smaller id.
    ///
    /// # Panics
    /// If `k` is not in `1..=vocab`.
    pub fn new(logits: Tensor<2>, k: usize) -> Self {
        let [tokens, vocab] = logits.dims();
        let device = logits.device();
        let TopRows { ids, log_probs, rest, inside } = TopRows::of(logits, k);
        Self::of_rows(ids, log_probs, rest, inside, [tokens, k, vocab], &device)
    }

    fn of_rows(
        ids: Vec<i64>,
        log_probs: Vec<f32>,
        rest: Vec<f32>,
        inside: Vec<f32>,
        [tokens, k, vocab]: [usize; 3],
        device: &Device,
    ) -> Self {
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [tokens, k]), device),
            log_probs: Tensor::from_data(TensorData::new(log_probs, [tokens, k]), device),
            rest: Tensor::from_data(TensorData::new(rest, [tokens, 1]), device),
            inside: Tensor::from_data(TensorData::new(inside, [tokens, vocab]), device),
        }
    }

    /// The same on the training device, as constants.
    #[must_use]
    pub fn autodiff(self) -> Self {
        Self {
            ids: self.ids.autodiff(),
            log_probs: self.log_probs.autodiff(),
            rest: self.rest.autodiff(),
            inside: self.inside.autodiff(),
        }
    }
}

/// The numbers of a [`TeacherTop`], row by row.
struct TopRows {
    ids: Vec<i64>,
    log_probs: Vec<f32>,
    rest: Vec<f32>,
    inside: Vec<f32>,
}

impl TopRows {
    fn of(logits: Tensor<2>, k: usize) -> Self {
        let [_, vocab] = logits.dims();
        assert!((1..=vocab).contains(&k), "k = {k} of a vocabulary of {vocab}");
        let log_probs = log_softmax(logits).into_data().try_to_vec::<f32>().expect("logits are f32");
        let (mut ids, mut top, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        let mut inside = vec![HIDDEN; log_probs.len()];
        for (row, log_probs) in log_probs.chunks_exact(vocab).enumerate() {
            let mut order = (0..vocab).collect::<Vec<_>>();
            let descending = |&a: &usize, &b: &usize| log_probs[b].total_cmp(&log_probs[a]).then(a.cmp(&b));
            if k < vocab {
                order.select_nth_unstable_by(k, descending);
            }
            order.truncate(k);
            order.sort_unstable_by(descending);
            for &id in &order {
                ids.push(id as i64);
                top.push(log_probs[id]);
                inside[row * vocab + id] = 0.0;
            }
            // Summed over the tokens themselves: one less the others' sum would be rounding where it is small.
            let outside = log_probs.iter().zip(&inside[row * vocab..]).filter(|&(_, &inside)| inside < 0.0);
            rest.push(outside.map(|(&log_prob, _)| f64::from(log_prob).exp()).sum::<f64>() as f32);
        }
        Self { ids, log_probs: top, rest, inside }
    }
}

/// The divergence of the student from the teacher at every token over `k + 1` categories, in nats.
///
/// ```text
/// Σₖ pₖ (log pₖ − log qₖ) + p_rest (log p_rest − log q_rest)        p_rest = 1 − Σₖ pₖ
/// ```
///
/// Askell et al. 2021, eq. 2.1 and appendix B.5. Spec: A-07, T-29. Both rests are summed over the tokens
/// outside; with `k = vocab` the rest vanishes and this is the full divergence.
///
/// # Shapes
/// - `student`: logits `[tokens, vocab]`
/// - returns `[tokens]`
///
/// # Panics
/// If the shapes disagree.
pub fn top_k_kl(teacher: &TeacherTop, student: Tensor<2>) -> Tensor<1> {
    let [tokens, vocab] = student.dims();
    firebrick_tensor::assert_shape!(teacher.inside, [tokens, vocab]);
    let axis = 1;
    let log_q = log_softmax(student);
    let log_p = teacher.log_probs.clone();
    let p = log_p.clone().exp();
    let top = p * (log_p - log_q.clone().gather(axis, teacher.ids.clone()));
    // The tokens outside the top: hidden where `inside` is 0.
    let outside = log_q + (teacher.inside.clone() * -1.0 + HIDDEN);
    let largest = outside.clone().detach().max_dim(axis);
    let log_q_rest = (outside - largest.clone()).exp().sum_dim(axis).log() + largest;
    let p_rest = teacher.rest.clone();
    let log_p_rest = p_rest.clone().clamp_min(1e-30).log();
    let empty = p_rest.clone().lower_equal_elem(0.0);
    let rest = (p_rest * (log_p_rest - log_q_rest)).mask_fill(empty, 0.0);
    (top.sum_dim(axis) + rest).flatten(0, 1)
}

/// Texts, and what a teacher says of every token of them: read once, used in every pass and by every student.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    k: usize,
    vocab: usize,
    /// As far as the teacher read them; none is empty.
    texts: Vec<Vec<TokenId>>,
    /// `[tokens, k]`
    ids: Vec<TokenId>,
    /// `[tokens, k]`
    log_probs: Vec<f32>,
    /// `[tokens]`
    rest: Vec<f32>,
}

impl Targets {
    /// The texts, as far as the teacher read them.
    pub fn texts(&self) -> &[Vec<TokenId>] {
        &self.texts
    }

    /// What the teacher said of some texts.
    fn top(&self, texts: &[usize], device: &Device) -> TeacherTop {
        let (k, vocab) = (self.k, self.vocab);
        let start = |text: usize| self.texts[..text].iter().map(Vec::len).sum::<usize>();
        let rows = texts.iter().flat_map(|&text| start(text)..start(text) + self.texts[text].len()).collect::<Vec<_>>();
        let mut inside = vec![HIDDEN; rows.len() * vocab];
        let (mut ids, mut log_probs, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (place, &row) in rows.iter().enumerate() {
            let top = row * k..(row + 1) * k;
            self.ids[top.clone()].iter().for_each(|&id| inside[place * vocab + id as usize] = 0.0);
            ids.extend(self.ids[top.clone()].iter().map(|&id| i64::from(id)));
            log_probs.extend_from_slice(&self.log_probs[top]);
            rest.push(self.rest[row]);
        }
        TeacherTop::of_rows(ids, log_probs, rest, inside, [rows.len(), k, vocab], device)
    }

    /// The bytes of a safetensors file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = |numbers: &[usize]| numbers.iter().flat_map(|&n| (n as u64).to_le_bytes()).collect::<Vec<_>>();
        let floats = |floats: &[f32]| floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<_>>();
        let ids = |ids: &[TokenId]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>();
        let lengths = self.texts.iter().map(Vec::len).collect::<Vec<_>>();
        let (tokens, k) = (self.rest.len(), self.k);
        let parts = [
            ("ids", Dtype::U32, vec![tokens, k], ids(&self.ids)),
            ("lengths", Dtype::U64, vec![lengths.len()], numbers(&lengths)),
            ("log_probs", Dtype::F32, vec![tokens, k], floats(&self.log_probs)),
            ("rest", Dtype::F32, vec![tokens], floats(&self.rest)),
            ("tokens", Dtype::U32, vec![tokens], ids(&self.texts.concat())),
            ("vocab", Dtype::U64, vec![1], numbers(&[self.vocab])),
        ];
        let views = parts.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("the shape holds the values"))
        });
        safetensors::serialize(views, None).expect("plain numbers can be written")
    }

    /// What [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// With what is wrong, if it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let part = |name: &str, dtype: Dtype| match file.tensor(name) {
            Ok(view) if view.dtype() == dtype => Ok(view),
            _ => Err(format!("it has no tensor `{name}` of {dtype:?}")),
        };
        let words =
            |view: &TensorView<'_>| view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect::<Vec<_>>();
        let floats = |view: TensorView<'_>| words(&view).into_iter().map(f32::from_le_bytes).collect::<Vec<_>>();
        let numbers = |view: TensorView<'_>| {
            let number = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes"));
            view.data().chunks_exact(8).map(|bytes| number(bytes) as usize).collect::<Vec<_>>()
        };
        let ids = part("ids", Dtype::U32)?;
        let k = *ids.shape().get(1).ok_or("`ids` has one row")?;
        let vocab = numbers(part("vocab", Dtype::U64)?).first().copied().unwrap_or_default();
        let whole = |view: &TensorView<'_>| words(view).into_iter().map(TokenId::from_le_bytes).collect::<Vec<_>>();
        let (tokens, ids) = (whole(&part("tokens", Dtype::U32)?), whole(&ids));
        let (log_probs, rest) = (floats(part("log_probs", Dtype::F32)?), floats(part("rest", Dtype::F32)?));
        let lengths = numbers(part("lengths", Dtype::U64)?);
        let sum = lengths.iter().try_fold(0_usize, |sum, &length| sum.checked_add(length));
        let fits = sum == Some(tokens.len())
            && rest.len() == tokens.len()
            && [ids.len(), log_probs.len()] == [tokens.len() * k; 2]
            && ids.iter().chain(&tokens).all(|&id| (id as usize) < vocab);
        if !fits {
            return Err("its tensors do not fit each other".to_owned());
        }
        let mut left = tokens.as_slice();
        let text = |length: usize| {
            let (text, rest) = left.split_at(length);
            left = rest;
            text.to_vec()
        };
        let texts = lengths.into_iter().map(text).collect();
        Ok(Self { k, vocab, texts, ids, log_probs, rest })
    }
}

/// What the teacher says of texts that it reads after `prompt`: its `top_k` likeliest tokens at every token (A-07).
///
/// Texts are cut to what is left of the teacher's context; empty ones are left out. Position t predicts the text's token t, as the
/// student's does (T-29). Metrics: none; a step is a group of `micro_batch_size` texts.
///
/// # Errors
/// If there is no text, the prompt leaves no room for one, or the observer fails.
pub fn teach<M: CausalLm + Module + Send>(
    teacher: &M,
    prompt: &[TokenId],
    texts: &[Vec<TokenId>],
    eoc: TokenId,
    [top_k, micro_batch_size]: [usize; 2],
    mut run: Run<'_, M>,
) -> Result<Targets, Error> {
    let device = teacher.devices().into_iter().next().expect("a module has parameters");
    let room = teacher.context().saturating_sub(prompt.len() + 1);
    let texts = texts.iter().map(|text| text[..text.len().min(room)].to_vec());
    let texts = texts.filter(|text| !text.is_empty()).collect::<Vec<_>>();
    if texts.is_empty() {
        return Err(Error::Empty {
            what: "the text to distil on".into(),
            fix: format!("the prompt of {} tokens leaves {room} of a context of {}", prompt.len(), teacher.context()),
        });
    }
    let vocab = teacher.vocab();
    let k = top_k.min(vocab);
    let (mut ids, mut log_probs, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let groups = texts.chunks(micro_batch_size.max(1)).collect::<Vec<_>>();
    run.observer.on(Event::Begin { unit: "tokens", steps: groups.len() as u64, done: 0 })?;
    let (mut done, mut samples) = (0, 0);
    for together in groups.chunks(run.workers.count().max(1)) {
        let forks = together.iter().map(|texts| (teacher.clone(), *texts)).collect();
        let tops = run.workers.map(forks, |(teacher, texts): (M, &[Vec<TokenId>])| {
            let sequences = texts.iter().map(|text| [&[eoc], prompt, text].concat()).collect::<Vec<_>>();
            let inputs = TokenBatch::of(&sequences, &device).inputs();
            let places = inputs.last().into_iter().zip(texts).flat_map(|(last, text)| last + 1 - text.len()..=last);
            TopRows::of(teacher.logits_at(&inputs, &places.collect::<Vec<_>>()), k)
        });
        for (texts, top) in together.iter().zip(tops) {
            let units = top.rest.len() as u64;
            ids.extend(top.ids.into_iter().map(|id| id as TokenId));
            log_probs.extend(top.log_probs);
            rest.extend(top.rest);
            (done, samples) = (done + 1, samples + texts.len() as u64);
            run.observer.on(Event::Step { done, samples, units, values: &Vec::new() })?;
        }
    }
    Ok(Targets { k, vocab, texts, ids, log_probs, rest })
}

/// The student after its passes over the texts, of each of which a teacher [said](teach) what follows.
///
/// The student sees the text alone, behind the end-of-context token. Metrics: `loss` (mean divergence a token, nats), `grad_norm`, `lr`.
///
/// # Errors
/// See [`fit`]; also if the teacher has another vocabulary, or read further than the student's context reaches.
pub fn distill<M: CausalLm + Module + Send>(
    student: M,
    targets: &Targets,
    eoc: TokenId,
    config: &Passes,
    run: Run<'_, M>,
) -> Result<M, Error> {
    if targets.vocab != student.vocab() {
        let what = format!("the teacher's vocabulary has {} tokens, the student's {}", targets.vocab, student.vocab());
        return Err(Error::Sample { what, fix: "take a teacher of the same tokenizer".to_owned() });
    }
    let longest = targets.texts.iter().map(Vec::len).max().unwrap_or_default();
    if longest >= student.context() {
        let what = format!("the teacher read {longest} tokens, the student's context holds {}", student.context());
        return Err(Error::Sample { what, fix: "cut the texts".to_owned() });
    }
    let device = student.devices().into_iter().next().expect("a module has parameters");
    let plain = device.clone().inner();
    let mut indices = (0..targets.texts.len()).collect::<Vec<_>>();
    let seed = run.seed.derive("distill/order");
    indices.shuffle(&mut seed.rng());
    let count = (indices.len() * config.passes) as u64;
    let samples = Samples { count, per_step: config.batch_size as u64, unit: "tokens" };
    let mut order = Order::new(indices.len(), |pass| (pass > 0).then(|| seed.at(&[pass])));
    let batch = |places| {
        let taken = order.take(places).into_iter().map(|(_, place)| indices[place]).collect::<Vec<_>>();
        let tokens = taken.iter().map(|&text| targets.texts[text].len()).sum::<usize>() as f32;
        let micro_batch = |taken: &[usize]| {
            let text = |&text: &usize| [&[eoc], &targets.texts[text][..]].concat();
            let sequences = taken.iter().map(text).collect::<Vec<_>>();
            (TokenBatch::of(&sequences, &device), targets.top(taken, &plain).autodiff(), tokens)
        };
        Ok(taken.chunks(config.micro_batch_size).map(micro_batch).collect())
    };
    fit(student, &config.fit, samples, run, batch, |model, (batch, top, tokens)| {
        let divergence = top_k_kl(top, model.logits(&batch.inputs()));
        Loss::new(divergence.sum() / *tokens, batch.tokens() as u64)
    })
}

/// The student that does without `prompt` what it did with it: it [reads](teach) the texts after the prompt (`top_k` is 50 in the
/// paper), and [learns](distill) to say the same without.
///
/// Deviation: the paper puts generic text behind `Human:`; here texts stand as they are.
///
/// # Errors
/// As [`teach`] and [`distill`].
pub fn context_distill<M: CausalLm + Module + Send>(
    model: M,
    prompt: &[TokenId],
    texts: &[Vec<TokenId>],
    eoc: TokenId,
    top_k: usize,
    config: &Passes,
    run: Run<'_, M>,
) -> Result<M, Error> {
    let reading = Run::new(run.seed).workers(run.workers);
    let targets = teach(&model.valid(), prompt, texts, eoc, [top_k, config.micro_batch_size], reading)?;
    distill(model, &targets, eoc, config, run)
}
