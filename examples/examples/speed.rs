//! Speed.
use burn::tensor::Device;
use firebrick_models::DecoderConfig;
use firebrick_train::{Silent, lm};
use firebrick_types::Seed;
fn main() {
    let layers: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let micro: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let mut config = DecoderConfig::family(layers, 192, 512);
    if layers == 4 { config.d_model = 128; config.heads = 4; config.d_ff = 512; }
    let model = config.init(Seed::new(1), &Device::flex().autodiff());
    let docs = (0..64).map(|i| (0..190u32).map(|t| (t * 7 + i) % 500).collect()).collect::<Vec<Vec<u32>>>();
    let lmc = lm::LmConfig { batch_size: 8, micro_batch_size: micro, fit: Default::default() };
    let start = std::time::Instant::now();
    let model = lm::pretrain(model, &docs, 0, &lmc, Seed::new(2), None, &mut Silent).unwrap();
    let t = start.elapsed().as_secs_f64();
    println!("{} tok/s, {t}", 64.0 * 192.0 / t);
    let start = std::time::Instant::now();
    let plain = burn::module::Module::valid(&model);
    println!("ppl {} {:?}", lm::perplexity(&plain, &docs, 0, 4), start.elapsed());
}
