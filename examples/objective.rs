//! An objective of one's own: a closure over the log-probabilities of both responses.
//!
//! The hinge loss of a policy on pairs, as long as the chosen response has not gained more than a margin over the rejected one.
//!
//! `cargo run -p firebrick-examples --example objective`
#![allow(clippy::print_stdout)]

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_models::{Architecture, Decoder, DecoderConfig};
use firebrick_preference::policy;
use firebrick_preference::{Pair, PairLogProbs};
use firebrick_train::{AdamWConfig, FitConfig, Passes, Run};
use firebrick_types::Seed;

/// How far the chosen response is to get ahead, in nats.
const MARGIN: f64 = 2.0;

fn main() -> Result<()> {
    let (seed, device) = (Seed::new(17), Device::flex().autodiff());
    let architecture = Architecture::gpt();
    let shape = DecoderConfig { vocab: 20, context: 8, n_layer: 1, d_model: 32, heads: 2, d_ff: 64, architecture };
    let model = shape.init(seed, &device);
    let reference = model.valid();
    // Whatever the prompt, a response that begins with 2 is chosen over one that begins with 3.
    let pair = |index: u32| Pair::new(vec![4 + index % 16], vec![2, 5 + index % 7, 1], vec![3, 6 + index % 5, 1]);
    let (training, held_out) = ((0..256).map(pair).collect::<Vec<_>>(), (256..300).map(pair).collect::<Vec<_>>());

    let hinge = |pairs: &PairLogProbs| -> Tensor<1> {
        let margins = pairs.chosen_log_ratios() - pairs.rejected_log_ratios();
        (margins.neg() + MARGIN).clamp_min(0.0)
    };
    let adamw = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
    let fit = FitConfig { learning_rate: 3e-3, adamw, ..FitConfig::default() };
    let config = Passes { batch_size: 16, micro_batch_size: 8, passes: 2, fit };
    let model = policy::train(model, &hinge, &training, &config, Run::new(seed))?.valid();

    let ahead = |model: &Decoder| {
        let pairs = PairLogProbs::of(model, &reference, &held_out, &Device::flex());
        (pairs.chosen_log_ratios() - pairs.rejected_log_ratios()).mean().into_scalar::<f32>()
    };
    let (before, after) = (ahead(&reference), ahead(&model));
    println!("the chosen response is ahead by {before:.2} nats before, {after:.2} after, of held-out pairs");
    assert!(before == 0.0 && f64::from(after) > 0.9 * MARGIN, "the objective was not learnt");
    Ok(())
}
