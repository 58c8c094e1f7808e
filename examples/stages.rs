//! A pipeline of two library stages over a folder of one's own: comparisons to a tokenizer.
//!
//! `cargo run -p firebrick-examples --example stages`
#![allow(clippy::print_stdout)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use firebrick_pipeline::{Options, Pipeline, open};
use firebrick_stages::Env;
use firebrick_stages::artifacts::{Corpus, Vocabulary};
use firebrick_stages::data::Data;
use firebrick_stages::language::TrainTokenizer;
use firebrick_stages::pipelines::{Recipe, rlhf};

/// Forty comparisons as HH-RLHF has them.
fn write_comparisons(folder: &Path) -> Result<()> {
    let row = |index: usize| {
        let side = |answer: &str| format!("\\n\\nHuman: What is {index} and one?\\n\\nAssistant: {answer}");
        format!("{{\"chosen\": \"{}\", \"rejected\": \"{}\"}}\n", side(&(index + 1).to_string()), side("No idea."))
    };
    fs::create_dir_all(folder)?;
    Ok(fs::write(folder.join("train.jsonl"), (0..40).map(row).collect::<String>())?)
}

fn main() -> Result<()> {
    let place = std::env::temp_dir().join(format!("firebrick-stages-{}", std::process::id()));
    let (folder, run) = (place.join("sums"), place.join("run"));
    write_comparisons(&folder)?;

    let recipe: rlhf::Recipe = firebrick_stages::recipe::load("tiny", rlhf::Recipe::BUILT_IN, &[])?;
    let mut pipeline = Pipeline::new("sums");
    let data = pipeline.add("data", Data { seed: 17, from_folder: true, recipe: recipe.data }, ());
    pipeline.add("tokenizer", TrainTokenizer { vocab: 300 }, (data,));
    pipeline.run(&run, &Env::new(Device::flex()).data(&folder), &Options::default(), &mut |_| {})?;

    let corpus: Corpus = open(&run, "data")?;
    let (training, test) = (corpus.train_comparisons()?.len(), corpus.test_comparisons()?.len());
    let vocabulary: Vocabulary = open(&run, "tokenizer")?;
    let tokens = vocabulary.renderer().tokenizer().encode("What is 3 and one?").len();
    println!("{training} comparisons to learn from, {test} held out; a question has {tokens} tokens");
    assert!(training + test == 40 && test > 0 && tokens < "What is 3 and one?".len());
    fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))
}
