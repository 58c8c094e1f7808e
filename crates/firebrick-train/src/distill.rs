//! Context distillation: a model learns to do without a prompt what it does with it.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_tensor::{CausalLm, TokenBatch, log_softmax};
use firebrick_types::TokenId;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::{Error, FitConfig, Loss, Order, Run, Samples, fit};

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
        assert!((1..=vocab).contains(&k), "k = {k} of a vocabulary of {vocab}");
        let device = logits.device();
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
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [tokens, k]), &device),
            log_probs: Tensor::from_data(TensorData::new(top, [tokens, k]), &device),
            rest: Tensor::from_data(TensorData::new(rest, [tokens, 1]), &device),
            inside: Tensor::from_data(TensorData::new(inside, [tokens, vocab]), &device),
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

/// How a prompt is distilled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// Sequences of one optimiser step (the papers': 32).
    pub batch_size: usize,
    /// Sequences computed at a time.
    pub micro_batch_size: usize,
    /// How often the texts are read.
    pub passes: usize,
    /// Tokens of the teacher's distribution that are kept (the papers': 50).
    pub top_k: usize,
    /// The optimiser; its schedule counts sequences.
    pub fit: FitConfig,
}

/// The student after its passes over the texts, each of which the teacher read after `prompt`.
///
/// The teacher is the model itself before the first step, with the prompt before it; the student sees the text alone. Both begin
/// with the end-of-context token.
///
/// Deviation: the paper stores the teacher's predictions once and puts generic text behind `Human:`; here the teacher is read
/// anew for every step, and texts stand as they are. Metrics: `loss` (mean divergence a token, nats), `grad_norm`, `lr`.
///
/// # Errors
/// See [`fit`]; also if there is no text, or the prompt leaves no room for one.
pub fn context_distill<M: CausalLm + Module + Send + Sync>(
    model: M,
    prompt: &[TokenId],
    texts: &[Vec<TokenId>],
    eoc: TokenId,
    config: &DistillConfig,
    run: Run<'_, M>,
) -> Result<M, Error> {
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let plain = device.clone().inner();
    let teacher = model.valid();
    let room = model.context().saturating_sub(prompt.len() + 1);
    let mut texts =
        texts.iter().filter(|text| !text.is_empty()).map(|text| &text[..text.len().min(room)]).collect::<Vec<_>>();
    if texts.is_empty() || room == 0 {
        return Err(Error::Empty {
            what: "the text to distil on".into(),
            fix: format!("the prompt of {} tokens leaves {room} of a context of {}", prompt.len(), model.context()),
        });
    }
    let seed = run.seed.derive("distill/order");
    texts.shuffle(&mut seed.rng());
    let vocab = model.vocab();
    let count = (texts.len() * config.passes) as u64;
    let samples = Samples { count, per_step: config.batch_size as u64, unit: "tokens" };
    let mut order = Order::new(texts.len(), |pass| (pass > 0).then(|| seed.at(&[pass])));
    let workers = run.workers;
    let batch = |places| {
        let texts = order.take(places).into_iter().map(|(_, text)| texts[text]).collect::<Vec<_>>();
        let tokens = texts.iter().map(|text| text.len()).sum::<usize>() as f32;
        let groups = texts.chunks(config.micro_batch_size).map(|texts| (teacher.clone(), texts)).collect();
        Ok(workers.map(groups, |(teacher, texts): (M, &[&[TokenId]])| {
            let top = teach(&teacher, prompt, texts, eoc, config.top_k.min(vocab), &plain);
            let sequences = texts.iter().map(|text| [&[eoc], *text].concat()).collect::<Vec<_>>();
            (TokenBatch::of(&sequences, &device), top.autodiff(), tokens)
        }))
    };
    fit(model, &config.fit, samples, run, batch, |model, (batch, top, tokens)| {
        let divergence = top_k_kl(top, model.logits(&batch.inputs()));
        Loss::new(divergence.sum() / *tokens, batch.tokens() as u64)
    })
}

/// The teacher's view of each text after the prompt; position t predicts the text's token t, as the student's does (T-29).
fn teach<M: CausalLm>(
    teacher: &M,
    prompt: &[TokenId],
    texts: &[&[TokenId]],
    eoc: TokenId,
    k: usize,
    device: &Device,
) -> TeacherTop {
    let sequences = texts.iter().map(|text| [&[eoc], prompt, *text].concat()).collect::<Vec<_>>();
    let inputs = TokenBatch::of(&sequences, device).inputs();
    let places = inputs.last().into_iter().zip(texts).flat_map(|(last, text)| last + 1 - text.len()..=last);
    TeacherTop::new(teacher.logits_at(&inputs, &places.collect::<Vec<_>>()), k)
}
