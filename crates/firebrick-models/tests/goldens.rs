//! The decoder against a hand-written one in PyTorch (firebrick-testkit/goldens/make.py).

use burn::tensor::Tensor;
use firebrick_models::{Architecture, Decoder, DecoderConfig};
use firebrick_tensor::{CausalLm, Feed, Incremental, PackedBatch, PackedLm, Parameters, TokenBatch};
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
    let packed = PackedBatch::of(&[&vec![7_u32, 8, 9], &short], &cpu());
    let packed: Tensor<2> = model.packed_logits(&packed).slice([2..4, 0..11]);
    assert_close(packed, alone.slice([0..1, 0..2]).reshape([2, 11]), 1e-5);
}

/// Prompts of different lengths, read in pieces, then another token each: the bits of one pass over the whole, in any batch.
#[test]
fn cached_steps_are_a_full_pass_to_the_bit() {
    let model = decoder();
    let sequences = [vec![3_u32, 1, 4], vec![1_u32, 5, 9, 2, 6], vec![8_u32, 8, 2, 1]];
    let mut cache = model.cache(4, 6);
    let feed = |slot: usize, tokens| Feed { slot, tokens };
    let first = model.extend(&mut cache, &[feed(2, &sequences[0][..2]), feed(0, &sequences[1][..2])]);
    let second = model
        .extend(&mut cache, &[feed(0, &sequences[1][2..4]), feed(3, &sequences[2][..3]), feed(2, &sequences[0][2..])]);
    model.copy(&mut cache, 0, 1);
    let third = model.extend(&mut cache, &[feed(1, &sequences[1][4..]), feed(3, &sequences[2][3..])]);
    model.forget(&mut cache, 2);
    let fourth = model.extend(&mut cache, &[feed(0, &sequences[1][4..]), feed(2, &sequences[0])]);
    let batch = TokenBatch::from_ragged(&sequences, &cpu());
    let whole = model.logits(batch.ids().clone()).into_data().try_to_vec::<f32>().unwrap();
    let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
    for (found, rows) in [
        (first, vec![(0, 1), (1, 1)]),
        (second, vec![(1, 3), (2, 2), (0, 2)]),
        (third, vec![(1, 4), (2, 3)]),
        (fourth, vec![(1, 4), (0, 2)]),
    ] {
        let found = found.into_data().try_to_vec::<f32>().unwrap();
        for (found, (row, position)) in found.chunks(11).zip(rows) {
            assert_eq!(bits(found), bits(&whole[(row * 5 + position) * 11..][..11]), "row {row}, position {position}");
        }
    }
}
