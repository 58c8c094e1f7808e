//! Ours alone: the kernels and a training step.
//!
//! Timed here rather than by a crate: one that is known for it would give dependencies of the framework other features, and
//! the framework would be compiled a second time.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Distribution, Int, Tensor};
use firebrick_kernels::{Heads, SequenceStarts, attention, embedding, layer_norm, linear, token_log_probs};
use firebrick_models::{Architecture, DecoderConfig};
use firebrick_tensor::{TokenBatch, Workers};
use firebrick_train::{FitConfig, Learner, Loss, gradients_of, lm};
use firebrick_types::{Seed, TokenId};

use crate::spread::Spread;

/// Samples of a benchmark, each at least so many seconds long.
const SAMPLES: usize = 15;
const SAMPLE_SECONDS: f64 = 0.02;

/// Tokens, width, heads and vocabulary: those of the cell `lm-small`.
const TOKENS: usize = 1024;
const SEQ: usize = 128;
const WIDTH: usize = 256;
const VOCAB: usize = 4096;

struct Kernel {
    name: &'static str,
    /// Floating-point operations, of products alone.
    operations: f64,
    run: Box<dyn FnMut()>,
}

/// Times those whose name holds the filter; the table tells how they differ from the last run, which the file keeps.
///
/// # Errors
/// If none does, or the file cannot be written.
pub fn run(filter: &str, kept: &Path) -> Result<String> {
    firebrick_kernels::keep_freed_memory();
    let last = fs::read(kept).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let mut known: BTreeMap<String, f64> = last.unwrap_or_default();
    let mut chosen = kernels();
    let names = chosen.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
    chosen.retain(|kernel| kernel.name.contains(filter));
    if chosen.is_empty() {
        bail!("no benchmark has `{filter}` in its name; there are {names}");
    }
    let mut table = String::from("benchmark                    median µs   middle half         GFLOP/s   change\n");
    for Kernel { name, operations, mut run } in chosen {
        let seconds = timed(&mut run);
        let change = known.insert(name.to_owned(), seconds.median).map(|before| seconds.median / before - 1.0);
        table += &line(name, seconds, operations, change);
    }
    if let Some(parent) = kept.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let json = serde_json::to_vec_pretty(&known).expect("numbers can be written as JSON");
    fs::write(kept, json).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(table)
}

/// A row of the table.
fn line(name: &str, seconds: Spread, operations: f64, change: Option<f64>) -> String {
    let [low, median, high] = [seconds.low, seconds.median, seconds.high].map(|seconds| 1e6 * seconds);
    let range = format!("{low:.0} – {high:.0}");
    let mut text = format!("{name:<26} {median:>11.0}   {range:<17}");
    _ = match operations {
        0.0 => write!(text, " {:>9}", ""),
        operations => write!(text, " {:>9.0}", operations / seconds.median / 1e9),
    };
    if let Some(change) = change {
        _ = write!(text, "   {:+.0} %", 100.0 * change);
    }
    text.trim_end().to_owned() + "\n"
}

/// The seconds of a call.
fn timed(run: &mut dyn FnMut()) -> Spread {
    let mut seconds = |calls: usize| {
        let start = Instant::now();
        (0..calls).for_each(|_| run());
        start.elapsed().as_secs_f64() / calls as f64
    };
    // The first call makes what later ones find.
    seconds(1);
    let calls = (SAMPLE_SECONDS / seconds(1)).ceil().clamp(1.0, 1e6) as usize;
    Spread::of(&(0..SAMPLES).map(|_| seconds(calls)).collect::<Vec<_>>())
}

fn kernels() -> Vec<Kernel> {
    let (plain, learning) = (Device::flex(), Device::flex().autodiff());
    let product = 2.0 * (TOKENS * WIDTH * 4 * WIDTH) as f64;
    let seen = (SEQ * (SEQ + 1) / 2) as f64;
    let read = 4.0 * WIDTH as f64 * seen * (TOKENS / SEQ) as f64;
    vec![
        Kernel { name: "linear", operations: product, run: linear_of(&plain, false) },
        Kernel { name: "linear and its gradient", operations: 3.0 * product, run: linear_of(&learning, true) },
        Kernel { name: "attention", operations: read, run: attention_of(&plain, false) },
        // Backwards the scores are computed anew: seven products instead of two times two.
        Kernel { name: "attention and its gradient", operations: 3.5 * read, run: attention_of(&learning, true) },
        Kernel { name: "layer norm", operations: 0.0, run: layer_norm_of(&plain, false) },
        Kernel { name: "layer norm and gradient", operations: 0.0, run: layer_norm_of(&learning, true) },
        Kernel { name: "log-probs", operations: 0.0, run: log_probs_of(&plain, false) },
        Kernel { name: "log-probs and gradient", operations: 0.0, run: log_probs_of(&learning, true) },
        Kernel { name: "embedding", operations: 0.0, run: embedding_of(&plain, false) },
        Kernel { name: "embedding and gradient", operations: 0.0, run: embedding_of(&learning, true) },
        Kernel { name: "training step", operations: 0.0, run: training_step() },
    ]
}

/// Numbers of a normal distribution, whose gradient is wanted if they learn.
fn normal<const D: usize>(shape: [usize; D], device: &Device, learns: bool) -> Tensor<D> {
    let numbers = Tensor::random(shape, Distribution::Normal(0.0, 0.1), device);
    if learns { numbers.require_grad() } else { numbers }
}

fn ids(device: &Device) -> Tensor<1, Int> {
    Tensor::random([TOKENS], Distribution::Uniform(0.0, VOCAB as f64 - 1.0), device)
}

/// The result, or its gradient.
fn finish<const D: usize>(result: Tensor<D>, learns: bool) {
    if learns {
        black_box(result.sum().backward());
    } else {
        black_box(result);
    }
}

fn linear_of(device: &Device, learns: bool) -> Box<dyn FnMut()> {
    let (x, weight) = (normal([TOKENS, WIDTH], device, learns), normal([WIDTH, 4 * WIDTH], device, learns));
    let bias = normal([4 * WIDTH], device, learns);
    Box::new(move || finish(linear(x.clone(), weight.clone(), Some(bias.clone())), learns))
}

fn attention_of(device: &Device, learns: bool) -> Box<dyn FnMut()> {
    let qkv = normal([TOKENS / SEQ, SEQ, 3 * WIDTH], device, learns);
    let (heads, sequences) = (Heads::same(WIDTH / 64), SequenceStarts::causal(TOKENS / SEQ, SEQ));
    Box::new(move || finish(attention(qkv.clone(), heads, &sequences), learns))
}

fn layer_norm_of(device: &Device, learns: bool) -> Box<dyn FnMut()> {
    let x = normal([TOKENS, WIDTH], device, learns);
    let (weight, bias) = (normal([WIDTH], device, learns), normal([WIDTH], device, learns));
    Box::new(move || finish(layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5), learns))
}

fn log_probs_of(device: &Device, learns: bool) -> Box<dyn FnMut()> {
    let (logits, targets) = (normal([TOKENS, VOCAB], device, learns), ids(device));
    Box::new(move || finish(token_log_probs(logits.clone(), targets.clone()), learns))
}

fn embedding_of(device: &Device, learns: bool) -> Box<dyn FnMut()> {
    let (table, indices) = (normal([VOCAB, WIDTH], device, learns), ids(device));
    Box::new(move || finish(embedding(table.clone(), indices.clone()), learns))
}

/// Two rows of two layers: gradient, clipping, optimiser.
fn training_step() -> Box<dyn FnMut()> {
    let device = Device::flex().autodiff();
    let (n_layer, heads, d_ff, architecture) = (2, WIDTH / 64, 4 * WIDTH, Architecture::gpt());
    let config = DecoderConfig { vocab: VOCAB, context: SEQ, n_layer, d_model: WIDTH, heads, d_ff, architecture };
    let row = (0..SEQ as TokenId).collect::<Vec<_>>();
    let fit = FitConfig::default();
    let mut kept = Some(Learner::new(config.init(Seed::new(1), &device), fit.adamw, fit.clip_norm));
    let workers = Workers::default();
    Box::new(move || {
        let learner = kept.take().expect("there is a learner between two steps");
        let batches = (0..2).map(|_| TokenBatch::of(&[&row], &device)).collect();
        let (gradients, values, _) = gradients_of(learner.model(), batches, &workers, |model, batch: &TokenBatch| {
            Loss::new(lm::token_losses(model, batch).mean() / 2.0, batch.tokens() as u64)
        });
        let stepped = learner.step(values[0].1, gradients, fit.learning_rate, &workers);
        kept = Some(stepped.expect("the losses of a small learning rate are finite").0);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 µs for 4000 operations are 2 GFLOP/s; a fifth slower than before.
    #[test]
    fn a_line_tells_rate_and_change() {
        let seconds = Spread { low: 1e-6, median: 2e-6, high: 3e-6 };
        let told = line("linear", seconds, 4000.0, Some(0.2));
        let words = told.split_whitespace().collect::<Vec<_>>();
        assert_eq!(words, ["linear", "2", "1", "–", "3", "2", "+20", "%"]);
        assert_eq!(line("x", seconds, 0.0, None).split_whitespace().collect::<Vec<_>>(), ["x", "2", "1", "–", "3"]);
    }

    #[test]
    fn a_filter_that_fits_nothing_is_answered_with_the_names() {
        let dir = tempfile::tempdir().unwrap();
        let error = run("convolution", &dir.path().join("kept")).unwrap_err().to_string();
        assert!(error.contains("there are linear, "), "{error}");
    }
}
