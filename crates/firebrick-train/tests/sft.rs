//! Supervised finetuning: which tokens are learnt, and that nothing else bears on it.

use burn::module::Module;
use firebrick_models::{Architecture, Decoder, DecoderConfig};
use firebrick_tensor::{Parameters, TokenBatch, Workers};
use firebrick_testkit::{assert_close, cpu};
use firebrick_train::lm::token_losses;
use firebrick_train::sft::{Sample, TokenLosses, held_out, train};
use firebrick_train::{AdamWConfig, Error, FitConfig, Passes, Run};
use firebrick_types::{Seed, TokenId};

fn model() -> Decoder {
    let shape = DecoderConfig {
        vocab: 20,
        context: 12,
        n_layer: 1,
        d_model: 16,
        heads: 2,
        d_ff: 32,
        architecture: Architecture::gpt(),
    };
    shape.init(Seed::new(1), &cpu().autodiff())
}

fn tokens(index: u32, length: u32) -> Vec<TokenId> {
    (0..length).map(|place| (7 * index + 3 * place * place + place) % 20).collect()
}

/// Of each sequence the second half is learnt.
fn halves(count: u32) -> Vec<Sample> {
    let sample = |index: u32| {
        let tokens = tokens(index, 4 + index % 5);
        let counted = (0..tokens.len()).map(|place| 2 * place >= tokens.len()).collect();
        Sample::new(tokens, counted)
    };
    (0..count).map(sample).collect()
}

fn config(micro_batch_size: usize) -> Passes {
    Passes {
        batch_size: 6,
        micro_batch_size,
        passes: 2,
        fit: FitConfig { learning_rate: 1e-2, ..FitConfig::default() },
    }
}

#[test]
fn where_all_tokens_count_it_is_language_modeling() {
    let model = model().valid();
    let sequences = [tokens(0, 5), tokens(1, 9)];
    let samples = sequences.clone().map(|tokens| Sample::new(tokens.clone(), vec![true; tokens.len()]));
    let found = TokenLosses::of(&model, &samples.iter().collect::<Vec<_>>(), &cpu()).losses;
    let wanted = token_losses(&model, &TokenBatch::of(&sequences, &cpu())).into_data().try_to_vec::<f32>().unwrap();
    assert_eq!(found.into_data().try_to_vec::<f32>().unwrap(), wanted);
}

#[test]
fn the_loss_is_the_mean_over_the_tokens_that_count() {
    let model = model().valid();
    let samples = halves(7);
    let measured = held_out(&model, &samples, 3, &Workers::new(2));
    let (mut sum, mut count) = (0.0, 0);
    for sample in &samples {
        let all = token_losses(&model, &TokenBatch::of(&[sample.tokens()], &cpu()));
        let all = all.into_data().try_to_vec::<f32>().unwrap();
        // The loss at `t − 1` is that of token `t`.
        let length = sample.tokens().len();
        let learnt = all[length.div_ceil(2) - 1..].iter().map(|&loss| f64::from(loss));
        count += sample.learnt_tokens();
        sum += learnt.sum::<f64>();
    }
    assert_close(vec![measured.loss()], vec![sum / f64::from(count as u32)], 1e-6);
    // Cutting otherwise changes no bit.
    assert_eq!(measured, held_out(&model, &samples, 1, &Workers::new(1)));
}

#[test]
fn what_does_not_count_is_not_learnt() {
    // Two sets that differ in the last token of each sequence, which does not count and which nothing follows.
    let with = |last: TokenId| {
        let sample = |index: u32| {
            let tokens = [tokens(index, 6), vec![last]].concat();
            Sample::new(tokens, [vec![false; 3], vec![true; 3], vec![false]].concat())
        };
        (0..8).map(sample).collect::<Vec<_>>()
    };
    let trained = |samples: &[Sample]| {
        let model = train(model(), samples, &config(2), Run::new(Seed::new(3))).unwrap();
        Parameters::of(&model.valid()).to_bytes()
    };
    assert_eq!(trained(&with(3)), trained(&with(15)));
    let counted = |samples: Vec<Sample>| {
        let all = |sample: Sample| Sample::new(sample.tokens().to_vec(), vec![true; 7]);
        samples.into_iter().map(all).collect::<Vec<_>>()
    };
    assert_ne!(trained(&counted(with(3))), trained(&counted(with(15))));
}

#[test]
fn micro_batches_change_the_order_of_summation_alone() {
    // A step in proportion to the gradient: with a small ε the rounding of one near 0 would become a step of full length.
    let adamw = AdamWConfig { epsilon: 1.0, ..AdamWConfig::default() };
    let values = |micro_batch_size| {
        let fit = FitConfig { learning_rate: 1.0, adamw, ..FitConfig::default() };
        let config = Passes { fit, ..config(micro_batch_size) };
        let model = train(model(), &halves(13), &config, Run::new(Seed::new(3))).unwrap();
        let parameters = Parameters::of(&model.valid());
        parameters.iter().flat_map(|(_, _, values)| values.to_vec()).map(f64::from).collect::<Vec<_>>()
    };
    assert_close(values(1), values(6), 1e-5);
}

#[test]
fn what_is_learnt_gets_likelier() {
    let samples = halves(12);
    let before = held_out(&model().valid(), &samples, 4, &Workers::default());
    let config = Passes { passes: 60, ..config(3) };
    let trained = train(model(), &samples, &config, Run::new(Seed::new(3))).unwrap();
    let after = held_out(&trained.valid(), &samples, 4, &Workers::default());
    assert!(after.loss() < 0.3 * before.loss(), "{} to {}", before.loss(), after.loss());
    assert!(after.accuracy() > 0.8 && before.accuracy() < 0.4);
}

#[test]
fn data_of_which_nothing_counts_is_an_error() {
    let none = vec![Sample::new(tokens(1, 5), vec![false; 5]), Sample::new(vec![3], vec![true])];
    let error = train(model(), &none, &config(1), Run::new(Seed::new(3))).unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
    // What counts lies behind the context.
    let late = Sample::new(tokens(1, 14), (0..14).map(|place| place > 11).collect());
    assert!(train(model(), &[late], &config(1), Run::new(Seed::new(3))).is_err());
}
