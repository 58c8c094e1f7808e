//! An evaluation task of one's own: how likely a model finds the last word of a sentence.
//!
//! The model here knows nothing, so that the number is known: −ln(vocabulary) nats a token.
//!
//! `cargo run -p firebrick-examples --example task`
#![allow(clippy::print_stdout)]

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use firebrick_eval::{Batching, Request, Response, Task, TaskError, evaluate};
use firebrick_models::{Architecture, DecoderConfig};
use firebrick_tensor::{Parameters, Workers};
use firebrick_text::{Renderer, Tokenizer};
use firebrick_types::{Measured, Seed};

/// Sentences without their last word, and the word.
struct LastWords {
    renderer: Renderer,
    sentences: Vec<(&'static str, &'static str)>,
}

impl Task for LastWords {
    fn name(&self) -> &str {
        "last_words"
    }

    fn requests(&self) -> Result<Vec<Request>, TaskError> {
        let request = |(sentence, word): &(&str, &str)| {
            let (context, continuation) = (self.renderer.text(sentence)?, self.renderer.document(word)?);
            Ok(Request::LogProb { context, continuation })
        };
        self.sentences.iter().map(request).collect()
    }

    fn measure(&self, responses: &[Response]) -> Result<Vec<Measured>, TaskError> {
        let mean = responses.iter().map(Response::log_prob).sum::<f64>() / responses.len() as f64;
        Ok(vec![Measured::new("last_words/log_prob", mean).unit("nats a word").higher_is_better()])
    }
}

fn main() -> Result<()> {
    let renderer = Renderer::dialogues(Tokenizer::train(["the sky is blue", "the grass is green"], 300)?);
    let (vocab, architecture) = (renderer.tokenizer().vocab_size(), Architecture::gpt());
    let shape = DecoderConfig { vocab, context: 64, n_layer: 1, d_model: 32, heads: 2, d_ff: 64, architecture };
    let model = shape.init(Seed::new(17), &Device::flex()).valid();
    let mut zeros = Parameters::default();
    Parameters::of(&model)
        .iter()
        .for_each(|(name, dims, values)| zeros.insert(name, dims.to_vec(), vec![0.0; values.len()]));
    let model = zeros.load(model)?;

    let tokens = |word| renderer.document(word).map(|tokens| tokens.len());
    let expected = -(vocab as f64).ln() * (tokens(" blue")? + tokens(" green")?) as f64 / 2.0;
    let task = LastWords { renderer, sentences: vec![("the sky is", " blue"), ("the grass is", " green")] };
    let batching = Batching { micro_batch_size: 8, workers: Workers::default() };
    let measured = evaluate(&task, &model, &batching).map_err(anyhow::Error::from_boxed)?;
    println!("{}: {} {}", measured[0].name, measured[0].show(3), measured[0].unit);
    assert!((measured[0].estimate - expected).abs() < 1e-4, "expected {expected}");
    Ok(())
}
