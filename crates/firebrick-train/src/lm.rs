//! Language modeling: next-token cross-entropy over packed documents.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_tensor::{CausalLm, TokenBatch, Workers, token_log_probs};
use firebrick_types::TokenId;
use rand::seq::SliceRandom;

use crate::{Error, Loss, Order, Passes, Run, Samples, fit};

/// The negative log-probability of every target token, in nats, `[targets]`.
///
/// ```text
/// −log p(xₜ₊₁ | x₁ … xₜ)
/// ```
///
/// # Panics
/// If no sequence has two tokens.
pub fn token_losses<M: CausalLm>(model: &M, batch: &TokenBatch) -> Tensor<1> {
    token_log_probs(model.logits(&batch.inputs()), batch.targets()).neg()
}

/// Documents as sequences that fit a context: the end-of-context token, the text, and the token again at its end.
///
/// Longer documents are cut, each further piece going on where the last one stopped.
pub fn pieces(documents: &[Vec<TokenId>], eoc: TokenId, context: usize) -> Vec<Vec<TokenId>> {
    let pieces = |document: &Vec<TokenId>| {
        let whole = [&[eoc], document.as_slice(), &[eoc]].concat();
        // A cut piece begins with the last token of the one before it, so that every token is predicted once.
        let starts = (0..whole.len() - 1).step_by(context - 1);
        starts.map(|start| whole[start..whole.len().min(start + context)].to_vec()).collect::<Vec<_>>()
    };
    documents.iter().filter(|document| !document.is_empty()).flat_map(pieces).collect()
}

/// Rows of sequences, each row at most `context` long: every sequence goes into the first open row that has room.
///
/// A row is closed when [`OPEN_ROWS`] younger ones are open, so that the order of a long corpus is roughly kept.
pub fn pack<S: AsRef<[TokenId]>>(sequences: &[S], context: usize) -> Vec<Vec<usize>> {
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let length = sequence.as_ref().len();
        let open = rows.len().saturating_sub(OPEN_ROWS);
        match rows[open..].iter_mut().find(|(used, _)| used + length <= context) {
            Some((used, row)) => {
                *used += length;
                row.push(index);
            }
            None => rows.push((length, vec![index])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The sequences of some rows as a batch.
fn batch_of<R: AsRef<[usize]>>(sequences: &[Vec<TokenId>], rows: &[R], device: &Device) -> TokenBatch {
    TokenBatch::of(&rows.iter().flat_map(AsRef::as_ref).map(|&index| &sequences[index]).collect::<Vec<_>>(), device)
}

/// How many rows [`pack`] keeps open.
pub const OPEN_ROWS: usize = 32;

/// The model after its passes over the documents, packed in an order drawn from the seed; samples are rows, and further passes take them in orders of
/// their own (A-02, T-28).
///
/// Metrics: `loss` (mean over tokens, nats), `grad_norm`, `lr`.
///
/// # Errors
/// See [`fit`]; also if there is no document.
pub fn pretrain<M: CausalLm + Module + Send>(
    model: M,
    documents: &[Vec<TokenId>],
    eoc: TokenId,
    config: &Passes,
    run: Run<'_, M>,
) -> Result<M, Error> {
    let context = model.context();
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let mut pieces = pieces(documents, eoc, context);
    if pieces.is_empty() {
        return Err(Error::Empty { what: "the corpus".into(), fix: "give it at least one document with text".into() });
    }
    let seed = run.seed.derive("lm/order");
    pieces.shuffle(&mut seed.rng());
    let rows = pack(&pieces, context);
    let count = (rows.len() * config.passes) as u64;
    let samples = Samples { count, per_step: config.batch_size as u64, unit: "tokens" };
    let mut order = Order::new(rows.len(), |pass| (pass > 0).then(|| seed.at(&[pass])));
    let batch = |places| {
        let rows = order.take(places).into_iter().map(|(_, row)| rows[row].as_slice()).collect::<Vec<_>>();
        let batches =
            rows.chunks(config.micro_batch_size).map(|rows| batch_of(&pieces, rows, &device)).collect::<Vec<_>>();
        let targets = batches.iter().map(|batch| batch.tokens() - batch.lengths().len()).sum::<usize>() as f32;
        Ok(batches.into_iter().map(|batch| (batch, targets)).collect())
    };
    fit(model, &config.fit, samples, run, batch, |model, (batch, targets)| {
        let total = token_losses(model, batch).sum();
        Loss::new(total / *targets, batch.tokens() as u64)
    })
}

/// The perplexity of held-out documents: the exponential of the mean loss over their tokens.
///
/// Computed in groups of `micro_batch_size` packed rows.
///
/// # Panics
/// If there is no document.
pub fn perplexity<M: CausalLm + Module + Send>(
    model: &M,
    documents: &[Vec<TokenId>],
    eoc: TokenId,
    micro_batch_size: usize,
    workers: &Workers,
) -> f64 {
    let context = model.context();
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let pieces = pieces(documents, eoc, context);
    assert!(!pieces.is_empty(), "perplexity needs at least one document");
    let rows = pack(&pieces, context);
    let groups = rows.chunks(micro_batch_size).map(|rows| (model.clone(), rows)).collect();
    let sums = workers.map(groups, |(model, rows)| {
        let losses = token_losses(&model, &batch_of(&pieces, rows, &device));
        let targets = losses.dims()[0] as f64;
        (f64::from(losses.sum().into_scalar::<f32>()), targets)
    });
    let (loss, tokens) = sums.into_iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    (loss / tokens).exp()
}
