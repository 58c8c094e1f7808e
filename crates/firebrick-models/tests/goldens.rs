//! The decoder against a hand-written one in PyTorch (firebrick-testkit/goldens/make.py).

use burn::tensor::Tensor;
use firebrick_models::{Architecture, Decoder, DecoderConfig};
use firebrick_tensor::{CausalLm, Incremental, PackedBatch, PackedLm, Parameters, TokenBatch};
use firebrick_testkit::goldens::TRANSFORMER;
use firebrick_testkit::{assert_close, cpu, golden};
use firebrick_types::Seed;

fn decoder() -> Decoder {
    let config = DecoderConfig {
        vocab: 11,
        context: 6,
        n_layer: 2,
        d_model: 8,
        heads: 2,
        d_ff: 32,
        architecture: Architecture::gpt(),
    };
    let weights = golden(TRANSFORMER, "weights");
    let mut parameters = Parameters::default();
    for name in weights.names() {
        let values = weights.floats(name).into_iter().map(|value| value as f32).collect();
        parameters.insert(name, weights.shape(name), values);
    }
    parameters.load(config.init(Seed::new(0), &cpu())).expect("every weight has its place")
}

#[test]
fn logits_are_the_references() {
    let case = golden(TRANSFORMER, "forward");
    let logits = decoder().logits(case.int_tensor("ids", &cpu()));
    assert_close(logits, case.floats("logits"), 1e-5);
}

/// What is filled in at the right changes nothing, and neither does sharing a row with other sequences.
#[test]
fn t08_padding_and_packing_change_nothing() {
    let model = decoder();
    let (short, long) = (vec![3_u32, 1, 4], vec![1_u32, 5, 9, 2, 6, 5]);
    let alone = model.logits(TokenBatch::from_ragged(&[&short], &cpu()).ids().clone());
    let padded = model.logits(TokenBatch::from_ragged(&[&short, &long], &cpu()).ids().clone());
    assert_close(padded.slice([0..1, 0..3, 0..11]), alone.clone(), 1e-5);
    let packed = PackedBatch::from_rows(&[vec![&[7_u32, 8, 9], &short]], 6, &cpu());
    let packed: Tensor<3> = model.packed_logits(&packed).slice([0..1, 3..6, 0..11]);
    assert_close(packed, alone, 1e-5);
}

/// Prompts of different lengths, then two more tokens each, equal one pass over the whole.
#[test]
fn cached_steps_equal_a_full_pass() {
    let model = decoder();
    let prompts = [vec![3_u32, 1], vec![1_u32, 5, 9, 2]];
    let (first, mut cache) = model.prefill(&TokenBatch::from_ragged(&prompts, &cpu()), 2);
    let next = Tensor::from_ints([4, 6], &cpu());
    let second = model.step(next, &mut cache);
    for (row, (prompt, token)) in prompts.iter().zip([4, 6]).enumerate() {
        let whole = [prompt.as_slice(), &[token]].concat();
        let logits = model.logits(TokenBatch::from_ragged(&[&whole], &cpu()).ids().clone());
        let at = |position: usize| logits.clone().slice([0..1, position..position + 1, 0..11]).reshape([1, 11]);
        assert_close(first.clone().slice([row..row + 1, 0..11]), at(prompt.len() - 1), 1e-5);
        assert_close(second.clone().slice([row..row + 1, 0..11]), at(prompt.len()), 1e-5);
    }
}
