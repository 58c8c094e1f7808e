//! The built-in pipeline as a library: its smallest recipe up to the tokenizer.

use burn::tensor::Device;
use firebrick_stages::Env;
use firebrick_stages::pipeline::{Options, read_record};
use firebrick_stages::pipelines;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let run = std::env::temp_dir().join(format!("firebrick-alone-{}", std::process::id()));
    let env = Env::new(Device::flex());
    let rlhf = pipelines::named("rlhf").expect("it is built in");
    let recipe = rlhf.load("smoke", &["tokenizer.vocab=400".to_owned()])?;
    let until = Options { until: Some("tokenizer".to_owned()), ..Options::default() };
    recipe.pipeline(&env)?.run(&run, &env, &until, &mut |_| {})?;
    assert_eq!(read_record(&run, "tokenizer")?.identity.recipe["vocab"], 400);
    std::fs::remove_dir_all(&run)?;
    Ok(())
}
