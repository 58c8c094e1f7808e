//! The decoder against a hand-written one in PyTorch (firebrick-testkit/goldens/make.py).

use burn::tensor::Tensor;
use firebrick_models::{Architecture, Decoder, DecoderConfig};
use firebrick_tensor::{CausalLm, Feed, Incremental, Parameters, TokenBatch};
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
    let ids = case.floats("ids").into_iter().map(|id| id as u32).collect::<Vec<_>>();
    let sequences = ids.chunks(case.shape("ids")[1]).collect::<Vec<_>>();
    let logits = decoder().logits(&TokenBatch::of(&sequences, &cpu()));
    assert_close(logits, case.floats("logits"), 1e-5);
}

#[test]
fn t08_what_else_is_in_the_batch_changes_nothing() {
    let model = decoder();
    let (short, long) = (vec![3_u32, 1, 4], vec![1_u32, 5, 9, 2, 6, 5]);
    let bits = |logits: Tensor<2>| logits.into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>();
    let alone = bits(model.logits(&TokenBatch::of(&[&short], &cpu())));
    for (sequences, place) in [([&short, &long], 0), ([&long, &short], 6)] {
        let together = model.logits(&TokenBatch::of(&sequences, &cpu()));
        assert_eq!(bits(together.narrow(0, place, 3)), alone);
    }
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
    let batch = TokenBatch::of(&sequences, &cpu());
    let starts = [0, 3, 8];
    let whole = model.logits(&batch).into_data().try_to_vec::<f32>().unwrap();
    let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
    for (found, rows) in [
        (first, vec![(0, 1), (1, 1)]),
        (second, vec![(1, 3), (2, 2), (0, 2)]),
        (third, vec![(1, 4), (2, 3)]),
        (fourth, vec![(1, 4), (0, 2)]),
    ] {
        let found = found.into_data().try_to_vec::<f32>().unwrap();
        for (found, (row, position)) in found.chunks(11).zip(rows) {
            assert_eq!(
                bits(found),
                bits(&whole[(starts[row] + position) * 11..][..11]),
                "row {row}, position {position}"
            );
        }
    }
}
