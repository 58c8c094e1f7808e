//! Properties of log-probabilities that hold for logits of any size.

use burn::tensor::{Int, Tensor, TensorData};
use firebrick_tensor::{entropy, kl, log_softmax, token_log_probs};
use firebrick_testkit::{assert_close, cpu};
use proptest::prelude::*;

const VOCAB: usize = 6;

/// log softmax in f64.
fn expected(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |largest, &logit| largest.max(f64::from(logit)));
    let total = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum::<f64>().ln() + largest;
    logits.iter().map(|&logit| f64::from(logit) - total).collect()
}

fn check(logits: &[f32]) {
    let rows = logits.len() / VOCAB;
    let tensor = Tensor::<2>::from_data(TensorData::new(logits.to_vec(), [rows, VOCAB]), &cpu());
    let expected = logits.chunks(VOCAB).map(expected).collect::<Vec<_>>();
    // Absolute below 1 nat, relative above: a difference of 2 · 10⁴ has no more digits in f32.
    assert_close(log_softmax(tensor.clone()), expected.concat(), 1e-4);
    for token in 0..VOCAB {
        let targets = Tensor::<1, Int>::full([rows], token as i64, &cpu());
        let chosen = expected.iter().map(|row| row[token]).collect::<Vec<_>>();
        assert_close(token_log_probs(tensor.clone(), targets), chosen, 1e-4);
    }
    let entropies = expected.iter().map(|row| -row.iter().map(|log_p| log_p.exp() * log_p).sum::<f64>());
    assert_close(entropy(tensor.clone()), entropies.collect::<Vec<_>>(), 1e-4);
    assert_close(kl(tensor.clone(), tensor), vec![0.0; rows], 0.0);
}

/// Logits of size 10⁴: exp overflows in f32 from 89 on, and 10⁴ itself is stored to 10⁻³.
#[test]
fn t37_large_logits_give_finite_and_exact_log_probs() {
    check(&[1e4, 1e4 - 1.0, 1e4 - 2.5, 0.0, -1e4, 1e4 - 0.25]);
    check(&[-1e4, -1e4 - 1.0, -1e4 + 0.5, -1e4, -1e4, -1e4]);
    check(&[1e4, -1e4, -1e4, -1e4, -1e4, -1e4, 0.0, 1e4, 1e4, 1e4, 1e4, 1e4]);
    check(&[1e4; VOCAB]);
}

proptest! {
    #[test]
    fn t37_log_probs_are_exact_at_every_scale(
        logits in prop::collection::vec(-1.0_f32..1.0, 2 * VOCAB),
        scale in prop::sample::select(vec![1e-3_f32, 1.0, 30.0, 1e3, 1e4]),
        shift in prop::sample::select(vec![0.0_f32, -1e4, 1e4]),
    ) {
        check(&logits.iter().map(|logit| logit * scale + shift).collect::<Vec<_>>());
    }
}
