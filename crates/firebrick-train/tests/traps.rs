//! Traps of language modeling and distillation, through the whole training with small models.

use std::time::Duration;

use burn::module::Module;
use burn::tensor::Device;
use firebrick_models::{Architecture, Decoder, DecoderConfig};
use firebrick_tensor::{CausalLm, Parameters, TokenBatch, Workers};
use firebrick_testkit::{assert_close, cpu};
use firebrick_train::distill::{Targets, context_distill, distill, teach};
use firebrick_train::lm::{pack, perplexity, pieces, pretrain, token_losses};
use firebrick_train::{
    AdamWConfig, Checkpoints, Error, Event, FitConfig, Observer, ObserverError, Passes, Run, Schedule, Values,
};
use firebrick_types::{Seed, TokenId};

const EOC: TokenId = 1;
const VOCAB: usize = 20;
const CONTEXT: usize = 14;

/// A decoder whose distributions are far from uniform: a fresh one gives every token nearly the same probability.
fn model_on(device: &Device) -> Decoder {
    let shape = DecoderConfig {
        vocab: VOCAB,
        context: CONTEXT,
        n_layer: 1,
        d_model: 16,
        heads: 2,
        d_ff: 32,
        architecture: Architecture::gpt(),
    };
    scaled(shape.init(Seed::new(1), device), |name| if name == "wte.weight" { 8.0 } else { 1.0 })
}

fn scaled(model: Decoder, factor: impl Fn(&str) -> f32) -> Decoder {
    let mut scaled = Parameters::default();
    for (name, dims, values) in Parameters::of(&model).iter() {
        scaled.insert(name, dims.to_vec(), values.iter().map(|value| value * factor(name)).collect());
    }
    scaled.load(model).unwrap()
}

fn model() -> Decoder {
    model_on(&cpu().autodiff())
}

/// Some shorter than the context, some longer.
fn documents(count: u32) -> Vec<Vec<TokenId>> {
    let document = |index: u32| (0..2 + 5 * index % 17).map(|place| 2 + (7 * index + 3 * place * place) % 18).collect();
    (0..count).map(document).collect()
}

/// Texts that fit the context behind [`PROMPT`].
fn texts(count: u32) -> Vec<Vec<TokenId>> {
    documents(count).into_iter().map(|document| document[..document.len().min(7)].to_vec()).collect()
}

const PROMPT: [TokenId; 4] = [5, 11, 7, 19];

/// An optimiser whose step is proportional to the gradient: with a small ε the rounding of a gradient near 0 would become a step
/// of full length.
fn linear() -> FitConfig {
    FitConfig {
        learning_rate: 0.5,
        clip_norm: 100.0,
        adamw: AdamWConfig { epsilon: 1.0, weight_decay: 0.0, ..AdamWConfig::default() },
        ..FitConfig::default()
    }
}

/// What a run has told, up to the step at which it is killed.
#[derive(Default)]
struct Record {
    promised: u64,
    units: u64,
    steps: Vec<Values>,
    killed_at: Option<u64>,
}

impl Record {
    fn value(&self, step: usize, name: &str) -> f64 {
        self.steps[step].iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no metric `{name}`")).1
    }
}

impl Observer for Record {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Begin { steps, .. } => self.promised = steps,
            Event::Step { done, units, values, .. } => {
                self.steps.push(values.clone());
                self.units += units;
                if self.killed_at == Some(done) {
                    return Err("killed".into());
                }
            }
        }
        Ok(())
    }
}

/// Language modeling of these documents.
fn read(documents: &[Vec<TokenId>], batch_size: usize, micro_batch_size: usize, fit: FitConfig) -> (Decoder, Record) {
    let config = Passes { batch_size, micro_batch_size, passes: 1, fit };
    let mut record = Record::default();
    let run = Run::new(Seed::new(5)).observer(&mut record);
    let model = pretrain(model(), documents, EOC, &config, run).unwrap();
    (model, record)
}

/// Distillation of this prompt on these texts.
fn distil(prompt: &[TokenId], texts: &[Vec<TokenId>], top_k: usize, config: &Passes) -> (Decoder, Record) {
    let mut record = Record::default();
    let run = Run::new(Seed::new(5)).observer(&mut record);
    let model = context_distill(model(), prompt, texts, EOC, top_k, config, run).unwrap();
    (model, record)
}

/// Of the teacher's distribution.
const TOP_K: usize = 5;

fn distillation() -> Passes {
    Passes { batch_size: 8, micro_batch_size: 8, passes: 1, fit: linear() }
}

fn numbers(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// The steps and the parameters of two runs agree. Sums of some hundred numbers of size 1 in f32 differ by some 10⁻⁶ when they are
/// cut otherwise.
#[track_caller]
fn assert_same_but_for_rounding(found: &(Decoder, Record), expected: &(Decoder, Record)) {
    assert!(Parameters::of(&expected.0) != Parameters::of(&model()), "nothing was learnt");
    assert_eq!(found.1.steps.len(), expected.1.steps.len());
    for (step, (found, expected)) in found.1.steps.iter().zip(&expected.1.steps).enumerate() {
        for ((name, found), (_, expected)) in found.iter().zip(expected) {
            let allowed = 1e-5 * expected.abs().max(1.0);
            assert!((found - expected).abs() <= allowed, "`{name}` of step {step}: {found}, expected {expected}");
        }
    }
    for ((_, _, found), (_, _, expected)) in Parameters::of(&found.0).iter().zip(Parameters::of(&expected.0).iter()) {
        assert_close(numbers(found), numbers(expected), 1e-5);
    }
}

/// log softmax of each row of logits.
fn log_softmax(logits: &[f32]) -> Vec<Vec<f64>> {
    let row = |row: &[f32]| {
        let row = numbers(row);
        let total = row.iter().map(|logit| logit.exp()).sum::<f64>();
        row.into_iter().map(|logit| logit - total.ln()).collect()
    };
    logits.chunks(VOCAB).map(row).collect()
}

/// Log-probabilities of the next token after each token of one sequence, read alone.
fn log_probs_alone(sequence: &[TokenId]) -> Vec<Vec<f64>> {
    let logits = model_on(&cpu()).logits(&TokenBatch::of(&[sequence], &cpu()));
    log_softmax(&logits.into_data().try_to_vec::<f32>().unwrap())
}

#[test]
fn every_token_of_a_document_is_predicted_once() {
    for document in documents(12) {
        let pieces = pieces(std::slice::from_ref(&document), EOC, CONTEXT);
        assert!(pieces.iter().all(|piece| (2..=CONTEXT).contains(&piece.len())), "{pieces:?}");
        assert!(pieces.windows(2).all(|pair| pair[0].last() == pair[1].first()), "{pieces:?}");
        let targets = pieces.iter().flat_map(|piece| piece[1..].to_vec()).collect::<Vec<_>>();
        assert_eq!(pieces[0][0], EOC);
        assert_eq!(targets, [&document[..], &[EOC]].concat());
    }
}

#[test]
fn every_sequence_is_packed_once_and_no_row_overflows() {
    let pieces = pieces(&documents(60), EOC, CONTEXT);
    let rows = pack(&pieces, CONTEXT);
    let mut packed = rows.concat();
    packed.sort_unstable();
    assert_eq!(packed, (0..pieces.len()).collect::<Vec<_>>());
    assert!(rows.iter().all(|row| row.iter().map(|&index| pieces[index].len()).sum::<usize>() <= CONTEXT));
    assert!(rows.len() < pieces.len(), "nothing shares a row");
}

/// A sequence alone and between others: the losses of its tokens are the same, and no sequence predicts the first token of the
/// next.
#[test]
fn t08_what_else_is_in_the_batch_changes_no_loss() {
    let model = model_on(&cpu());
    let (short, long) = (vec![EOC, 5, 6, EOC], vec![EOC, 9, 8, 7, 6, 5, 4, 3, EOC]);
    let losses = |sequences: &[&Vec<TokenId>]| token_losses(&model, &TokenBatch::of(sequences, &cpu()));
    let together = losses(&[&long, &short, &short]);
    assert_eq!(together.dims(), [14]);
    for (from, expected) in [(0, losses(&[&long])), (8, losses(&[&short])), (11, losses(&[&short]))] {
        let [targets] = expected.dims();
        assert_close(together.clone().narrow(0, from, targets), expected, 0.0);
    }
}

/// From the log-probabilities of each piece alone, computed by hand.
#[test]
fn the_loss_of_a_batch_is_the_mean_over_its_tokens() {
    let documents = documents(9);
    let (_, record) = read(&documents, 64, 2, linear());
    let losses = pieces(&documents, EOC, CONTEXT).into_iter().flat_map(|piece| {
        let log_probs = log_probs_alone(&piece);
        piece[1..].iter().zip(log_probs).map(|(&target, row)| -row[target as usize]).collect::<Vec<_>>()
    });
    let losses = losses.collect::<Vec<_>>();
    assert_close(record.value(0, "loss"), losses.iter().sum::<f64>() / losses.len() as f64, 1e-5);
}

#[test]
fn micro_batches_of_language_modeling_change_nothing_but_the_rounding() {
    let documents = documents(30);
    let whole = read(&documents, 8, 8, linear());
    for micro_batch_size in [1, 3, 5] {
        assert_same_but_for_rounding(&read(&documents, 8, micro_batch_size, linear()), &whole);
    }
}

/// In another order the documents share rows with others, too.
#[test]
fn the_order_of_documents_inside_a_batch_changes_nothing_but_the_rounding() {
    let documents = documents(12);
    let backwards = documents.iter().rev().cloned().collect::<Vec<_>>();
    assert_same_but_for_rounding(&read(&backwards, 64, 3, linear()), &read(&documents, 64, 3, linear()));
}

#[test]
fn micro_batches_of_distillation_change_nothing_but_the_rounding() {
    let texts = texts(20);
    let run = |micro_batch_size| distil(&PROMPT, &texts, TOP_K, &Passes { micro_batch_size, ..distillation() });
    let whole = run(8);
    for micro_batch_size in [1, 3, 5] {
        assert_same_but_for_rounding(&run(micro_batch_size), &whole);
    }
}

#[test]
fn the_order_of_texts_inside_a_batch_changes_nothing_but_the_rounding() {
    let texts = texts(12);
    let config = Passes { batch_size: 12, micro_batch_size: 5, ..distillation() };
    let backwards = texts.iter().rev().cloned().collect::<Vec<_>>();
    assert_same_but_for_rounding(
        &distil(&PROMPT, &backwards, TOP_K, &config),
        &distil(&PROMPT, &texts, TOP_K, &config),
    );
}

#[test]
fn t20_the_learning_rate_counts_samples_not_steps() {
    let schedule = Schedule::Linear { warmup: 0, total: 32 };
    for batch_size in [2, 4] {
        let (_, record) = read(&documents(30), batch_size, 2, FitConfig { schedule, ..linear() });
        assert!(record.steps.len() >= 4);
        for step in 0..record.steps.len() {
            let samples = (step * batch_size) as f64;
            assert_close(record.value(step, "lr"), 0.5 * (1.0 - samples / 32.0).max(0.0), 1e-12);
        }
    }
}

#[test]
fn t28_every_document_and_every_text_is_read_once() {
    let pieces = pieces(&documents(30), EOC, CONTEXT);
    let tokens = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
    let rows = read(&documents(30), 1, 1, linear()).1.promised;
    for batch_size in [1, 4, 64] {
        let (_, record) = read(&documents(30), batch_size, 4, linear());
        let steps = rows.div_ceil(batch_size as u64);
        assert_eq!((record.promised, record.steps.len() as u64, record.units), (steps, steps, tokens));
    }
    for (count, steps) in [(16, 2), (17, 3)] {
        let (_, record) = distil(&PROMPT, &texts(count), TOP_K, &distillation());
        // With the end of context that each begins with.
        let tokens = texts(count).iter().map(|text| text.len() as u64 + 1).sum::<u64>();
        assert_eq!((record.promised, record.steps.len() as u64, record.units), (steps, steps, tokens));
    }
}

/// A model that says the same with the prompt and without: the divergence is 0 over the whole vocabulary, and rounding over the
/// likeliest tokens, whose rest is summed in two ways.
#[test]
fn t29_an_empty_prompt_teaches_nothing() {
    let first_loss = |prompt: &[TokenId], top_k| {
        distil(prompt, &texts(8), top_k, &Passes { micro_batch_size: 3, ..distillation() }).1.value(0, "loss")
    };
    assert_eq!(first_loss(&[], VOCAB), 0.0);
    assert_close(first_loss(&[], 5), 0.0, 1e-6);
    assert!(first_loss(&PROMPT, VOCAB) > 1e-3, "this prompt changes nothing, so an empty one shows nothing");
}

/// The teacher's distribution of a token is read behind the prompt and the tokens before it, computed by hand.
#[test]
fn t29_the_teacher_reads_the_text_behind_the_prompt() {
    let texts = texts(8);
    let (_, record) = distil(&PROMPT, &texts, VOCAB, &Passes { micro_batch_size: 3, ..distillation() });
    let divergences = texts.iter().flat_map(|text| {
        let teacher = log_probs_alone(&[&[EOC], &PROMPT[..], text].concat());
        let student = log_probs_alone(&[&[EOC], &text[..]].concat());
        let divergence = move |place: usize| {
            let pairs = teacher[PROMPT.len() + place].iter().zip(&student[place]);
            pairs.map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
        };
        (0..text.len()).map(divergence).collect::<Vec<_>>()
    });
    let divergences = divergences.collect::<Vec<_>>();
    assert_close(record.value(0, "loss"), divergences.iter().sum::<f64>() / divergences.len() as f64, 1e-5);
}

/// The student comes nearer to what the prompted model says of the texts it has read.
#[test]
fn t29_distillation_brings_the_student_to_the_prompted_teacher() {
    let texts = texts(8).iter().cycle().take(240).cloned().collect::<Vec<_>>();
    let fit = FitConfig { learning_rate: 3e-3, ..FitConfig::default() };
    let (_, record) = distil(&PROMPT, &texts, TOP_K, &Passes { fit, ..distillation() });
    let (first, last) = (record.value(0, "loss"), record.value(29, "loss"));
    assert!(last < 0.5 * first, "{last} nats a token at the end, {first} at the start");
}

#[test]
fn a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large() {
    let blank = scaled(model_on(&cpu()), |_| 0.0);
    assert_close(perplexity(&blank, &documents(12), EOC, 4, &Workers::default()), VOCAB as f64, 1e-5);
}

#[test]
fn perplexity_does_not_depend_on_how_rows_are_grouped() {
    let whole = perplexity(&model_on(&cpu()), &documents(30), EOC, 64, &Workers::default());
    for micro_batch_size in [1, 3] {
        let workers = Workers::new(micro_batch_size);
        assert_close(perplexity(&model_on(&cpu()), &documents(30), EOC, micro_batch_size, &workers), whole, 1e-5);
    }
}

/// Kills a run after some step, runs it again, and compares with one that was left alone.
fn check_resume(killed_at: u64, train: impl Fn(Run<'_, Decoder>) -> Result<Decoder, Error>) {
    let run = || Run::new(Seed::new(5));
    let mut record = Record::default();
    let whole = train(run().observer(&mut record)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = || Checkpoints::new(dir.path(), Duration::ZERO);
    let mut killed = Record { killed_at: Some(killed_at), ..Record::default() };
    let result = train(run().checkpoints(checkpoints()).observer(&mut killed));
    assert!(matches!(result.map(|_| ()), Err(Error::Observer(_))));
    let mut rest = Record::default();
    let again = train(run().checkpoints(checkpoints()).observer(&mut rest)).unwrap();
    // The step that was told last had no checkpoint yet.
    assert_eq!(rest.steps, record.steps[killed_at as usize - 1..], "killed at {killed_at}");
    assert!(Parameters::of(&again).to_bytes() == Parameters::of(&whole).to_bytes(), "killed at {killed_at}");
}

#[test]
fn killed_runs_go_on_to_the_same_bits() {
    let (documents, texts) = (documents(30), texts(30));
    let lm = Passes { batch_size: 4, micro_batch_size: 3, passes: 2, fit: FitConfig::default() };
    let distillation = Passes { micro_batch_size: 3, passes: 2, fit: FitConfig::default(), ..distillation() };
    for killed_at in [1, 2, 4, 6] {
        check_resume(killed_at, |run| pretrain(model(), &documents, EOC, &lm, run));
        check_resume(killed_at, |run| context_distill(model(), &PROMPT, &texts, EOC, TOP_K, &distillation, run));
    }
}

#[test]
fn how_many_threads_compute_changes_no_bit() {
    let documents = documents(30);
    let lm = Passes { batch_size: 4, micro_batch_size: 1, passes: 1, fit: FitConfig::default() };
    let of = |threads| {
        let run = Run::new(Seed::new(5)).workers(Workers::new(threads));
        Parameters::of(&pretrain(model(), &documents, EOC, &lm, run).unwrap()).to_bytes()
    };
    let one = of(1);
    assert!(of(2) == one && of(5) == one);
}

/// Two passes read every token twice, and the second in another order.
#[test]
fn a_second_pass_reads_everything_again_in_another_order() {
    let documents = documents(30);
    let lm =
        Passes { batch_size: 1, micro_batch_size: 1, passes: 2, fit: FitConfig { learning_rate: 0.0, ..linear() } };
    let mut record = Record::default();
    pretrain(model(), &documents, EOC, &lm, Run::new(Seed::new(5)).observer(&mut record)).unwrap();
    // Without learning the loss tells which row was read.
    let losses = (0..record.steps.len()).map(|step| record.value(step, "loss").to_bits()).collect::<Vec<_>>();
    let (first, second) = losses.split_at(losses.len() / 2);
    assert_ne!(first, second);
    let sorted = |losses: &[u64]| {
        let mut losses = losses.to_vec();
        losses.sort_unstable();
        losses
    };
    assert_eq!(sorted(first), sorted(second));
}

/// After every 8 samples, and at the end.
#[test]
fn a_probe_sees_the_model_while_it_learns() {
    let documents = documents(30);
    let rows = read(&documents, 1, 1, linear()).1.promised;
    let lm = Passes { batch_size: 3, micro_batch_size: 3, passes: 1, fit: linear() };
    let (mut record, mut seen) = (Record::default(), Vec::new());
    let run = Run::new(Seed::new(5)).observer(&mut record).probe(8, |model: &Decoder| {
        seen.push(Parameters::of(model).to_bytes());
        Ok(vec![("probe".to_owned(), seen.len() as f64)])
    });
    let last = pretrain(model(), &documents, EOC, &lm, run).unwrap();
    let measured = record.steps.iter().enumerate().filter(|(_, values)| values.iter().any(|(name, _)| name == "probe"));
    let measured = measured.map(|(step, _)| 3 * (step as u64 + 1)).collect::<Vec<_>>();
    let mut expected = (1..=rows / 8).map(|count| (8 * count).div_ceil(3) * 3).collect::<Vec<_>>();
    expected.push(rows.div_ceil(3) * 3);
    expected.dedup();
    assert_eq!(measured, expected);
    assert!(seen[0] != seen[1] && *seen.last().unwrap() == Parameters::of(&last).to_bytes());
}

#[test]
fn a_prompt_that_fills_the_context_leaves_nothing_to_distil() {
    let prompt = [5; CONTEXT];
    let result = context_distill(model(), &prompt, &texts(3), EOC, TOP_K, &distillation(), Run::new(Seed::new(5)));
    assert!(matches!(result.map(|_| ()), Err(Error::Empty { .. })));
}

#[test]
fn what_a_teacher_said_can_be_kept_and_is_used_to_the_bit() {
    let texts = texts(9);
    let config = distillation();
    let once = context_distill(model(), &PROMPT, &texts, EOC, TOP_K, &config, Run::new(Seed::new(5))).unwrap();
    let [k, by] = [TOP_K, config.micro_batch_size];
    let targets = teach(&model().valid(), &PROMPT, &texts, EOC, [k, by], Run::new(Seed::new(1))).unwrap();
    // Read otherwise, written and read again.
    let one_by_one = teach(&model().valid(), &PROMPT, &texts, EOC, [k, 1], Run::new(Seed::new(2))).unwrap();
    assert_eq!(targets, one_by_one);
    let kept = Targets::from_bytes(&targets.to_bytes()).unwrap();
    assert_eq!(kept, targets);
    let again = distill(model(), &kept, EOC, &config, Run::new(Seed::new(5))).unwrap();
    assert_eq!(Parameters::of(&again.valid()), Parameters::of(&once.valid()));

    let mut bytes = targets.to_bytes();
    bytes.truncate(bytes.len() - 4);
    assert!(Targets::from_bytes(&bytes).is_err());
}
