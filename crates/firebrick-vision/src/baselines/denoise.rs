//! Denoising autoencoders: images drawn from what is left of them.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use firebrick_train::{Error, Loss, Order, Run};
use firebrick_types::Seed;

use crate::classifiers::{ClassifierConfig, Cnn, randomly_shifted};
use crate::images::{Images, pixels};

/// Images of which a part is hidden, as a model reads them: what is seen, 0 elsewhere, and after the colours whether it is seen.
///
/// # Shapes
/// - `images`: `[batch, height, width, channels]`
/// - `visible`: `[batch, height, width, 1]`, 1 where a pixel is seen
/// - returns `[batch, height, width, channels + 1]`
pub fn masked(images: &Tensor<4>, visible: &Tensor<4>) -> Tensor<4> {
    Tensor::cat(vec![images.clone() * visible.clone(), visible.clone()], 3)
}

/// What a model draws, `[batch, height, width, channels]`, of what [`masked`] gives.
pub fn reconstruction(model: &Cnn, masked: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = masked.dims();
    model.outputs(masked).reshape([batch, height, width, channels - 1])
}

/// A micro-batch.
struct Batch {
    images: Tensor<4>,
    visible: Tensor<4>,
    seeds: Vec<Seed>,
    /// Images of the whole batch.
    whole: f32,
}

/// A model that draws what a mask hides, after so many passes over the images, each under masks of its own (Vincent et al. 2008,
/// *Extracting and composing robust features with denoising autoencoders*).
///
/// ```text
/// loss = mean over images of Σ_hidden (x̂ − x)² / hidden
/// ```
///
/// The model reads [`masked`] images and has as many outputs as an image has numbers. Metrics: `loss`, `grad_norm`, `lr`.
///
/// # Errors
/// See [`firebrick_train::fit`]; also if there is no image.
///
/// # Panics
/// If the model reads images of another size or draws another number of pixels, or a mask is of another size.
pub fn fit(
    model: Cnn,
    images: &Images,
    mask: impl Fn(Seed) -> Vec<bool>,
    config: &ClassifierConfig,
    run: Run<'_, Cnn>,
) -> Result<Cnn, Error> {
    if images.is_empty() {
        return Err(Error::Empty { what: "the set of images".into(), fix: "give it at least one image".into() });
    }
    let device = model.devices().into_iter().next().expect("a module has parameters");
    let seed = run.seed;
    let order_seed = seed.derive("denoise/order");
    let mut order = Order::new(images.len(), |epoch| Some(order_seed.at(&[epoch])));
    let samples = config.samples(images.len());
    let batch = |places| {
        let chosen = order.take(places);
        let whole = chosen.len() as f32;
        let micro_batch = |chosen: &[(u64, usize)]| {
            let seeds = chosen.iter().map(|&(epoch, index)| seed.derive("denoise/image").at(&[epoch, index as u64]));
            let seeds = seeds.collect::<Vec<_>>();
            let shifted =
                |(&(_, index), &seed): (&(u64, usize), &Seed)| randomly_shifted(images, index, config.shift, seed);
            let bytes = chosen.iter().zip(&seeds).flat_map(shifted).collect::<Vec<_>>();
            let visible = masks(seeds.iter().map(|&seed| mask(seed)), images.size(), &device);
            Batch { images: pixels(&bytes, images.size(), &device), visible, seeds, whole }
        };
        Ok(chosen.chunks(config.micro_batch_size).map(micro_batch).collect())
    };
    firebrick_train::fit(model, &config.fit, samples, run, batch, |model, batch: &Batch| {
        let Batch { images, visible, seeds, whole } = batch;
        let dims = images.dims();
        let drawn = model.training_outputs(masked(images, visible), seeds).reshape(dims);
        let hidden = (visible.clone().neg() + 1.0).expand(dims);
        let each = dims[1] * dims[2] * dims[3];
        let sums = |x: Tensor<4>| x.reshape([dims[0], each]).sum_dim(1);
        let missed = sums((drawn - images.clone()).square() * hidden.clone()) / sums(hidden).clamp_min(1.0);
        Loss::new(missed.sum() / *whole, dims[0] as u64)
    })
}

/// Masks as a tensor, 1 where a pixel is seen.
fn masks(masks: impl Iterator<Item = Vec<bool>>, [height, width, _]: [usize; 3], device: &Device) -> Tensor<4> {
    let seen = masks.flatten().map(|seen| f32::from(u8::from(seen))).collect::<Vec<_>>();
    let batch = seen.len() / (height * width);
    Tensor::from_data(TensorData::new(seen, [batch, height, width, 1]), device)
}

#[cfg(test)]
mod tests {
    use firebrick_testkit::cpu;
    use firebrick_train::FitConfig;
    use rand::RngExt;

    use super::*;
    use crate::classifiers::CnnConfig;

    /// Two kinds of picture: the right half is the left one again, or its opposite.
    fn images(count: u64, salt: u64) -> Images {
        let mut images = Images::new([4, 4, 1]);
        for index in 0..count {
            let mut rng = Seed::new(salt).at(&[index]).rng();
            let left = [(); 8].map(|()| if rng.random_bool(0.5) { 255 } else { 0_u8 });
            let pixel = |place: usize| left[place / 4 * 2 + place % 2];
            images.push(&(0..16).map(pixel).collect::<Vec<_>>(), 0);
        }
        images
    }

    #[test]
    fn what_is_hidden_is_drawn_from_what_is_seen() {
        let plan = CnnConfig::image(4, 4, 2).linear(64).relu().linear(16);
        let model = plan.init(Seed::new(1), &cpu().autodiff()).unwrap();
        let optimisation = FitConfig { learning_rate: 5e-3, ..FitConfig::default() };
        let config = ClassifierConfig { epochs: 12, batch_size: 32, micro_batch_size: 16, shift: 0, fit: optimisation };
        let right_hidden = |_: Seed| (0..16).map(|place| place % 4 < 2).collect::<Vec<_>>();
        let model = fit(model, &images(600, 1), right_hidden, &config, Run::new(Seed::new(2))).unwrap().valid();
        let test = images(50, 2);
        let bytes = (0..50).flat_map(|index| test.image(index)).copied().collect::<Vec<_>>();
        let truth = pixels(&bytes, test.size(), &cpu());
        let visible = masks((0..50).map(|_| right_hidden(Seed::new(0))), test.size(), &cpu());
        let drawn = reconstruction(&model, masked(&truth, &visible));
        let hidden = visible.neg() + 1.0;
        let error = ((drawn - truth).square() * hidden.clone()).sum() / hidden.sum();
        let error = error.into_scalar::<f32>();
        assert!(error < 0.05, "{error}, where guessing leaves 0.25");
    }
}
