//! Adapters: off, on, merged, trained alone, beside weights of half width.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use firebrick_models::{Decoder, DecoderConfig, LoraConfig, Precision, ScoredDecoder};
use firebrick_tensor::{CausalLm, Feed, Incremental, Parameters, SequenceScorer, TokenBatch, Workers};
use firebrick_testkit::{assert_close, cpu};
use firebrick_train::{AdamW, AdamWConfig, Gradients};
use firebrick_types::Seed;

fn decoder(device: &Device) -> Decoder {
    DecoderConfig::family(2, 16, 40).init(Seed::new(1), device)
}

fn batch() -> TokenBatch {
    TokenBatch::of(&[vec![1, 2, 3, 4], vec![9, 8, 7]], &cpu())
}

fn logits(model: &Decoder) -> Tensor<2> {
    model.logits(&batch())
}

/// A decoder with adapters, after some steps.
fn trained(config: &LoraConfig) -> Decoder {
    let mut model = decoder(&cpu().autodiff()).with_lora(config, Seed::new(2));
    let mut optimizer = AdamW::new(AdamWConfig::default());
    for _ in 0..3 {
        let batch = TokenBatch::of(&[vec![1, 2, 3, 4]], &cpu().autodiff());
        let gradients = Gradients::of(&model, &model.logits(&batch).square().mean());
        model = optimizer.step(model, gradients, 1e-2, &Workers::default());
    }
    model
}

#[test]
fn new_adapters_change_nothing() {
    let with = decoder(&cpu()).with_lora(&LoraConfig::default(), Seed::new(2));
    assert_close(logits(&with), logits(&decoder(&cpu())), 0.0);
}

#[test]
fn only_adapters_are_trained_and_without_them_it_is_what_it_was() {
    let attention = LoraConfig { rank: 2, alpha: 4.0, attention: true, feed_forward: false };
    let feed_forward = LoraConfig { attention: false, feed_forward: true, ..attention };
    for (config, maps) in [(attention, ["attn.qkv", "attn.proj"]), (feed_forward, ["mlp.fc", "mlp.proj"])] {
        let model = trained(&config);
        let names = Parameters::trained(&model).iter().map(|(name, _, _)| name.to_owned()).collect::<Vec<_>>();
        let expected = (0..2).flat_map(|layer| {
            let mut maps = maps;
            maps.sort_unstable();
            maps.map(|map| ["a", "b"].map(|part| format!("blocks.{layer}.{map}.lora.{part}"))).concat()
        });
        assert_eq!(names, expected.collect::<Vec<_>>());
        let model = model.valid();
        assert_eq!(Parameters::of(&model.without_lora()), Parameters::of(&decoder(&cpu())));
        let moved = (logits(&model) - logits(&decoder(&cpu()))).abs().max().into_scalar::<f32>();
        assert!(moved > 1e-2, "{moved}");
    }
}

#[test]
fn merging_gives_the_same_function_in_the_same_shape() {
    let model = trained(&LoraConfig::default()).valid();
    let merged = model.clone().merged();
    assert_close(logits(&merged), logits(&model), 1e-5);
    let names = |model: &Decoder| Parameters::of(model).iter().map(|(name, _, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&merged), names(&decoder(&cpu())));
}

#[test]
fn a_checkpoint_of_the_trained_parameters_brings_the_model_back() {
    let model = trained(&LoraConfig::default());
    let kept = Parameters::trained(&model);
    let fresh = decoder(&cpu().autodiff()).with_lora(&LoraConfig::default(), Seed::new(2));
    let again = kept.clone().load_trained(fresh).unwrap();
    assert_eq!(Parameters::of(&again), Parameters::of(&model));
    assert_eq!(Parameters::trained(&again), kept);
}

/// A preference model's head is trained beside the adapters; its body may be as narrow in memory as it likes.
#[test]
fn weights_of_half_width_are_rounded_once_and_can_be_adapted() {
    let half = decoder(&cpu()).half_width();
    // Rounded weights, widened again: the same bits.
    let wide = Parameters::of(&half).load(decoder(&cpu())).unwrap();
    assert_close(logits(&half), logits(&wide), 0.0);
    assert_close(logits(&half), logits(&decoder(&cpu())), 0.05);

    let training = cpu().autodiff();
    let body = decoder(&training).half_width().with_lora(&LoraConfig::default(), Seed::new(2));
    let model = ScoredDecoder::from_body(body, Seed::new(3));
    let batch = TokenBatch::of(&[vec![1, 2, 3]], &training);
    let gradients = Gradients::of(&model, &model.scores(&batch).sum());
    assert!(gradients.named("head.weight").is_some());
    assert!(gradients.named("body.blocks.0.attn.qkv.lora.b").is_some());
    assert!(gradients.named("body.blocks.0.attn.qkv.weight").is_none());
    let scores = model.scores(&batch);
    assert_close(model.merged().scores(&batch), scores, 1e-5);
}

#[test]
fn adapters_keep_the_bits_of_a_whole_pass_through_the_cache() {
    let model = trained(&LoraConfig::default());
    let sequence = [1_u32, 2, 3, 4];
    let whole = model.logits(&TokenBatch::of(&[sequence], &cpu().autodiff()));
    let whole = whole.without_autodiff().narrow(0, 3, 1).into_data();
    let model = model.valid();
    let mut cache = model.cache(1, 4);
    model.extend(&mut cache, &[Feed { slot: 0, tokens: &sequence[..2] }]);
    model.extend(&mut cache, &[Feed { slot: 0, tokens: &sequence[2..3] }]);
    let last = model.extend(&mut cache, &[Feed { slot: 0, tokens: &sequence[3..] }]).into_data();
    let bits = |data: burn::tensor::TensorData| data.iter::<f32>().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(last), bits(whole));
}

#[test]
fn matrices_laid_out_for_sampling_give_the_same_bits_until_they_are_replaced() {
    let bits = |model: &Decoder| {
        let whole = logits(model).into_data();
        let mut cache = model.cache(1, 4);
        let last = model.extend(&mut cache, &[Feed { slot: 0, tokens: &[1, 2, 3] }]).into_data();
        [whole, last].map(|data| data.iter::<f32>().map(f32::to_bits).collect::<Vec<_>>())
    };
    let adapted = trained(&LoraConfig::default()).valid();
    let rounded = || decoder(&cpu()).in_precision(Precision::Bf16);
    for model in [decoder(&cpu()), decoder(&cpu()).half_width(), adapted, rounded(), rounded().half_width()] {
        assert_eq!(bits(&model.clone().prepacked()), bits(&model));
    }
    let other = DecoderConfig::family(2, 16, 40).init(Seed::new(8), &cpu());
    let replaced = Parameters::of(&other).load(decoder(&cpu()).prepacked()).unwrap();
    assert_eq!(bits(&replaced), bits(&other));
}
