//! Supervised finetuning (SFT): next-token cross-entropy over the tokens that count.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_tensor::{CausalLm, TokenBatch, Workers, token_log_probs};
use firebrick_types::TokenId;
use rand::seq::SliceRandom;

use crate::{Error, Loss, Order, Passes, Run, Samples, fit};

/// A sequence, and which of its tokens are learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    tokens: Vec<TokenId>,
    counted: Vec<bool>,
}

impl Sample {
    /// A sequence with a mark for each of its tokens: whether it is learnt.
    ///
    /// # Panics
    /// If there are not as many marks as tokens.
    pub fn new(tokens: Vec<TokenId>, counted: Vec<bool>) -> Self {
        assert_eq!(tokens.len(), counted.len(), "a mark for each token");
        Self { tokens, counted }
    }

    /// Its first tokens, as many as a context holds.
    #[must_use]
    pub fn cut(mut self, context: usize) -> Self {
        self.tokens.truncate(context);
        self.counted.truncate(context);
        self
    }

    /// The tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Where the tokens stand that are learnt. Nothing predicts the first token, so it never is.
    fn learnt(&self) -> impl Iterator<Item = usize> {
        (1..self.tokens.len()).filter(|&place| self.counted[place])
    }

    /// How many tokens are learnt.
    pub fn learnt_tokens(&self) -> usize {
        self.learnt().count()
    }
}

/// The losses of the tokens that count, and whether each was the likeliest one.
#[derive(Clone, Debug)]
pub struct TokenLosses {
    /// `−log p(xₜ | x₁ … xₜ₋₁)` of every token that counts, in nats, `[counted]`.
    pub losses: Tensor<1>,
    /// How many of them were the likeliest.
    pub right: usize,
}

impl TokenLosses {
    /// Of some samples, in their order.
    ///
    /// # Panics
    /// If no token counts.
    pub fn of<M: CausalLm>(model: &M, samples: &[&Sample], device: &Device) -> Self {
        let batch = TokenBatch::of(&samples.iter().map(|sample| sample.tokens()).collect::<Vec<_>>(), device);
        let (mut positions, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
        for sample in samples {
            positions.extend(sample.learnt().map(|place| start + place - 1));
            targets.extend(sample.learnt().map(|place| i64::from(sample.tokens[place])));
            start += sample.tokens.len();
        }
        assert!(!targets.is_empty(), "no token of these samples counts");
        let targets: Tensor<1, Int> = Tensor::from_data(TensorData::new(targets.clone(), [targets.len()]), device);
        let logits = model.logits_at(&batch, &positions);
        let likeliest = logits.clone().without_autodiff().argmax(1).flatten::<1>(0, 1);
        let right = likeliest.equal(targets.clone().without_autodiff()).int().sum().into_scalar::<i64>();
        Self { losses: token_log_probs(logits, targets).neg(), right: usize::try_from(right).expect("a count") }
    }
}

/// The model after its passes over the samples in an order drawn from the seed.
///
/// ```text
/// L = Σₜ mₜ · −log p(xₜ | x₁ … xₜ₋₁) / Σₜ mₜ        over all tokens of a step
/// ```
///
/// Every token that counts weighs the same, in whichever sequence and micro-batch it stands. Sequences longer than the context keep
/// their beginning. Metrics: `loss` (nats a token), `mean_token_accuracy`, `grad_norm`, `lr`.
///
/// # Errors
/// See [`fit`]; also if no token counts.
pub fn train<M: CausalLm + Module + Send>(
    model: M,
    samples: &[Sample],
    config: &Passes,
    run: Run<'_, M>,
) -> Result<M, Error> {
    let context = model.context();
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let mut samples = samples.iter().cloned().map(|sample| sample.cut(context)).collect::<Vec<_>>();
    samples.retain(|sample| sample.learnt_tokens() > 0);
    if samples.is_empty() {
        let fix = format!("give rows of which something is to be learnt within a context of {context} tokens");
        return Err(Error::Empty { what: "the data to finetune on".into(), fix });
    }
    let seed = run.seed.derive("sft/order");
    samples.shuffle(&mut seed.rng());
    let count = (samples.len() * config.passes) as u64;
    let places = Samples { count, per_step: config.batch_size as u64, unit: "tokens" };
    let mut order = Order::new(samples.len(), |pass| (pass > 0).then(|| seed.at(&[pass])));
    let batch = |places| {
        let samples = order.take(places).into_iter().map(|(_, sample)| &samples[sample]).collect::<Vec<_>>();
        let counted = samples.iter().map(|sample| sample.learnt_tokens()).sum::<usize>() as f64;
        Ok(samples.chunks(config.micro_batch_size).map(|samples| (samples.to_vec(), counted)).collect())
    };
    fit(model, &config.fit, places, run, batch, |model, (samples, counted): &(Vec<&Sample>, f64)| {
        let TokenLosses { losses, right } = TokenLosses::of(model, samples, &device);
        let read = samples.iter().map(|sample| sample.tokens.len() as u64).sum();
        Loss::new(losses.sum() / *counted as f32, read).with("mean_token_accuracy", right as f64 / counted)
    })
}

/// What a model makes of samples that it did not learn from.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// The mean loss of each sample over its tokens that count, in nats.
    pub losses: Vec<f64>,
    /// How many tokens of each count.
    pub tokens: Vec<usize>,
    /// How many of all these tokens were the likeliest.
    pub right: usize,
}

impl HeldOut {
    /// The mean loss over all tokens, in nats.
    pub fn loss(&self) -> f64 {
        let sum = self.losses.iter().zip(&self.tokens).map(|(loss, &tokens)| loss * tokens as f64).sum::<f64>();
        sum / self.tokens.iter().sum::<usize>() as f64
    }

    /// The share of tokens that were the likeliest.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.tokens.iter().sum::<usize>() as f64
    }
}

/// The losses of samples that a model did not learn from, in groups of `micro_batch_size`; those of which nothing counts within the
/// context are left out.
pub fn held_out<M: CausalLm + Module + Send>(
    model: &M,
    samples: &[Sample],
    micro_batch_size: usize,
    workers: &Workers,
) -> HeldOut {
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let samples = samples.iter().cloned().map(|sample| sample.cut(model.context()));
    let samples = samples.filter(|sample| sample.learnt_tokens() > 0).collect::<Vec<_>>();
    let groups = samples.chunks(micro_batch_size).map(|samples| (model.clone(), samples)).collect();
    let measured = workers.map(groups, |(model, samples): (M, &[Sample])| {
        let samples = samples.iter().collect::<Vec<_>>();
        let TokenLosses { losses, right } = TokenLosses::of(&model, &samples, &device);
        (losses.into_data().try_to_vec::<f32>().expect("losses are f32"), right)
    });
    let right = measured.iter().map(|(_, right)| right).sum();
    let mut losses = measured.into_iter().flat_map(|(losses, _)| losses);
    let tokens = samples.iter().map(Sample::learnt_tokens).collect::<Vec<_>>();
    let mean = |&count: &usize| losses.by_ref().take(count).map(f64::from).sum::<f64>() / count as f64;
    HeldOut { losses: tokens.iter().map(mean).collect(), tokens, right }
}
