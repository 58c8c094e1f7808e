//! A preference model, from comparisons to its accuracy on conversations it has not seen.
//!
//! The comparisons are those of the built-in world, with annotators who are right nine times in ten, or of a folder in
//! the layout of HH-RLHF: rows of `chosen` and `rejected` in `NAME/train.jsonl`, plain or as `.gz`. From what real people
//! chose, a model so small that was not pretrained learns little.
//!
//! `cargo run -p firebrick-examples --example preference_model [FOLDER]`
#![allow(clippy::print_stdout)]

use std::path::Path;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use firebrick_data::{comparisons, folder, split};
use firebrick_eval::{LengthBaseline, accuracy};
use firebrick_models::{Architecture, DecoderConfig};
use firebrick_preference::Pair;
use firebrick_preference::reward_model::{RewardModelConfig, train};
use firebrick_tensor::{Workers, scores};
use firebrick_text::{ComparisonTokens, Renderer, Tokenizer, dialogue};
use firebrick_train::{Event, FitConfig, Observer, ObserverError, Run, Schedule};
use firebrick_types::{LabelledComparison, Message, Seed};
use firebrick_world::{World, WorldConfig};

/// At most so many comparisons are taken.
const COMPARISONS: usize = 10_000;

fn main() -> Result<()> {
    let seed = Seed::new(17);
    let world = World::new(WorldConfig { agreement: 0.9, ..Default::default() }, seed)?;
    let comparisons = match std::env::args_os().nth(1) {
        Some(dir) => of_folder(Path::new(&dir))?,
        None => (0..COMPARISONS as u64).map(|index| world.comparison(seed.at(&[index])).labelled).collect(),
    };
    let split = split::by_conversation(comparisons, 0.1, |one: &LabelledComparison| {
        one.prompt().opening().unwrap_or_default()
    })?;
    let renderer = Renderer::dialogues(Tokenizer::train(split.train.iter().flat_map(texts), 512)?);
    let pairs = |part: &[LabelledComparison]| part.iter().map(|one| pair(&renderer, one)).collect::<Result<Vec<_>>>();
    let (training, held_out) = (pairs(&split.train)?, pairs(&split.held_out)?);
    println!("{} comparisons to learn from, {} held out", training.len(), held_out.len());

    let vocab = renderer.tokenizer().vocab_size();
    let shape = DecoderConfig {
        vocab,
        context: 128,
        n_layer: 1,
        d_model: 64,
        heads: 2,
        d_ff: 256,
        architecture: Architecture::gpt(),
    };
    let model = shape.init_scored(seed, &Device::flex().autodiff());
    let schedule = Schedule::Linear { warmup: 64, total: training.len() as u64 };
    let fit = FitConfig { learning_rate: 3e-3, schedule, ..FitConfig::default() };
    let config =
        RewardModelConfig { batch_size: 32, micro_batch_size: 16, passes: 1, ranked_weight: 1.0, lm_weight: 1.0, fit };
    let model = train(model, &training, &config, Run::new(seed).observer(Progress(Vec::new())))?.valid();

    let sequences = held_out.iter().flat_map(|pair| pair.sequences(128)).collect::<Vec<_>>();
    let scored = scores(&model, &sequences, 32, &Workers::default());
    let scored = scored.chunks(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>();
    let lengths =
        |pairs: &[Pair]| pairs.iter().map(|pair| (pair.chosen.len(), pair.rejected.len())).collect::<Vec<_>>();
    let by_length = LengthBaseline::fit(&lengths(&training)).outcomes(&lengths(&held_out));
    println!("held-out pairs right (a coin: 50 %):");
    let (by_model, by_length) = (percent(&accuracy(&scored)), percent(&by_length));
    println!("  by the model     {by_model:.0} %");
    println!("  by length alone  {by_length:.0} %");
    let of_world = std::env::args_os().nth(1).is_none();
    assert!(!of_world || by_model > by_length + 10.0, "what the annotators choose by was not learnt");
    Ok(())
}

/// Comparisons from all files of the folder, evenly.
fn of_folder(dir: &Path) -> Result<Vec<LabelledComparison>> {
    let mut all = Vec::new();
    for tranche in folder::discover(dir)?.tranches {
        for file in [&tranche.train, &tranche.test].into_iter().flatten() {
            all.extend(comparisons::read(file, &tranche.name)?.0);
        }
    }
    let step = all.len().div_ceil(COMPARISONS).max(1);
    Ok(all.into_iter().step_by(step).collect())
}

/// The conversation with the chosen and with the rejected answer.
fn texts(one: &LabelledComparison) -> [String; 2] {
    let (chosen, rejected) = one.chosen_and_rejected().expect("no row of this layout is a tie");
    [chosen, rejected].map(|answer| dialogue::render(&one.prompt().with(Message::assistant(answer))))
}

/// Both conversations as a preference model reads them; the score is read on the last token.
fn pair(renderer: &Renderer, one: &LabelledComparison) -> Result<Pair> {
    let ComparisonTokens { prompt, chosen, rejected } = renderer.comparison(one)?.expect("nobody was undecided");
    Ok(Pair::new(prompt, chosen, rejected))
}

/// The mean of outcomes from 0 to 1.
fn percent(outcomes: &[f64]) -> f64 {
    100.0 * outcomes.iter().sum::<f64>() / outcomes.len() as f64
}

/// Prints every 40 steps in how many pairs the preferred answer had the higher score.
struct Progress(Vec<f64>);

impl Observer for Progress {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        let Event::Step { done, values, .. } = event else { return Ok(()) };
        self.0.extend(values.iter().filter(|(name, _)| name == "accuracy").map(|(_, value)| value));
        if done % 40 == 0 {
            println!("step {done:3}: {:.0} % of the training pairs right", percent(&self.0));
            self.0.clear();
        }
        Ok(())
    }
}
