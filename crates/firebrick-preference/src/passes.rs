//! Passes over pairs, which every objective on pairs takes alike.

use burn::module::Module;
use burn::tensor::Tensor;
use firebrick_train::{Error, Loss, Order, Passes, Run, Samples, fit};
use rand::seq::SliceRandom;

use crate::Pair;

/// The model after its passes over the pairs in an order drawn from the seed (T-28).
///
/// `loss` gives the mean loss of some pairs, `[1]`, and the means of its metrics over them.
///
/// # Errors
/// See [`fit`]; also if there is no pair.
pub(crate) fn fit_pairs<M: Module + Send, const METRICS: usize>(
    model: M,
    pairs: &[Pair],
    config: &Passes,
    run: Run<'_, M>,
    loss: impl Fn(&M, &[Pair]) -> (Tensor<1>, [(&'static str, f64); METRICS]) + Sync,
) -> Result<M, Error> {
    if pairs.is_empty() {
        return Err(Error::Empty { what: "the set of pairs".into(), fix: "give it at least one comparison".into() });
    }
    let seed = run.seed.derive("preference/order");
    let mut pairs = pairs.to_vec();
    pairs.shuffle(&mut seed.rng());
    let count = (pairs.len() * config.passes) as u64;
    let samples = Samples { count, per_step: config.batch_size as u64, unit: "tokens" };
    let mut order = Order::new(pairs.len(), |pass| (pass > 0).then(|| seed.at(&[pass])));
    let batch = |places| {
        let pairs = order.take(places).into_iter().map(|(_, pair)| pairs[pair].clone()).collect::<Vec<_>>();
        let share = |chunk: &[Pair]| (chunk.to_vec(), chunk.len() as f64 / pairs.len() as f64);
        Ok(pairs.chunks(config.micro_batch_size).map(share).collect())
    };
    let share_of = |model: &M, (pairs, share): &(Vec<Pair>, f64)| {
        let (mean, metrics) = loss(model, pairs);
        let loss = Loss::new(mean * *share, pairs.iter().map(Pair::tokens).sum());
        metrics.into_iter().fold(loss, |loss, (name, value)| loss.with(name, value * share))
    };
    fit(model, &config.fit, samples, run, batch, share_of)
}

/// The mean as a number, without a gradient.
pub(crate) fn mean(values: &Tensor<1>) -> f64 {
    f64::from(values.clone().without_autodiff().mean().into_scalar::<f32>())
}

/// The mean of outcomes from 0 to 1.
pub(crate) fn share_right(outcomes: &[f32]) -> f64 {
    outcomes.iter().map(|&right| f64::from(right)).sum::<f64>() / outcomes.len() as f64
}
