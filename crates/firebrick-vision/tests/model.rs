//! The backward pass of a small network that tells bars from crosses and frames.

use std::sync::LazyLock;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use firebrick_tensor::{Parameters, Workers};
use firebrick_testkit::{assert_close, cpu};
use firebrick_train::{FitConfig, Run};
use firebrick_types::Seed;
use firebrick_vision::Error;
use firebrick_vision::baselines::{self, ActivationModel, Inpainting, NoisyOr, PixelFactors, RectifiedGaussian};
use firebrick_vision::classifiers::{self, Classifier, ClassifierConfig, CnnConfig, accuracy};
use firebrick_vision::generative::{
    Belief, CompleteConfig, Composition, DecoderMode, Descent, DetectConfig, Detection, Evidence, Exemplars,
    GenerativeConfig, GenerativeModel, ImputeConfig, MapConfig, PriorConfig, Query, SweepConfig, UncoverConfig,
    complete, descend, detect, impute, most_probable_explanation, separate, sweep, uncover, uncover_by_exemplars,
    upward,
};
use firebrick_vision::images::degradations::{Clutter, Cover};
use firebrick_vision::images::{Images, pixels};
use rand::RngExt;

const SIZE: [usize; 3] = [12, 12, 1];
const CLASSES: usize = 3;

/// Standing bars, lying bars and frames, somewhere, with a little noise.
fn shapes(count: u64, salt: u64) -> Images {
    let mut images = Images::new(SIZE);
    for index in 0..count {
        let mut rng = Seed::new(salt).at(&[index]).rng();
        let label = (index % CLASSES as u64) as u8;
        let [top, left] = [(); 2].map(|()| rng.random_range(1..4_usize));
        let ink = |row: usize, column: usize| {
            let (inside, row, column) =
                ((top..top + 8).contains(&row) && (left..left + 8).contains(&column), row, column);
            inside
                && match label {
                    0 => (left + 3..left + 5).contains(&column),
                    1 => (top + 3..top + 5).contains(&row),
                    _ => row == top || row == top + 7 || column == left || column == left + 7,
                }
        };
        let image =
            (0..144).map(|pixel| if ink(pixel / 12, pixel % 12) { 230 } else { 0 } + rng.random_range(0..10_u8));
        images.push(&image.collect::<Vec<_>>(), label);
    }
    images
}

fn plan() -> CnnConfig {
    let features = CnnConfig::image(12, 12, 1).conv(6, 3, 1, 1).relu().max_pool(2, 2, 0);
    features.conv(10, 3, 1, 1).relu().max_pool(2, 2, 0).linear(24).relu().linear(CLASSES)
}

static MODEL: LazyLock<GenerativeModel> = LazyLock::new(|| {
    let fit = FitConfig { learning_rate: 5e-3, ..FitConfig::default() };
    let config = ClassifierConfig { epochs: 3, batch_size: 30, micro_batch_size: 15, shift: 0, fit };
    let cnn = plan().init(Seed::new(1), &cpu().autodiff()).unwrap();
    let cnn = classifiers::fit(cnn, &shapes(900, 1), &config, Run::new(Seed::new(2))).unwrap().valid();
    assert!(accuracy(&cnn, &shapes(300, 9), 100, &Workers::default()) > 0.99);
    let prior = PriorConfig { factors: 8, components: 2, em_iterations: 4 };
    let config = GenerativeConfig { prior, shift: 0, decoder: DecoderMode::Ridge { alpha: 1e-4 }, images: 600 };
    GenerativeModel::fit(cnn, &shapes(900, 1), &config, Seed::new(3)).unwrap()
});

fn batch(images: &Images) -> Tensor<4> {
    let bytes = (0..images.len()).flat_map(|index| images.image(index)).copied().collect::<Vec<_>>();
    pixels(&bytes, images.size(), &cpu())
}

fn seen(images: Tensor<4>) -> Evidence {
    let [batch, height, width, _] = images.dims();
    Evidence { images, visible: Tensor::ones([batch, height, width, 1], &cpu()) }
}

/// A square of 4 x 4 in the middle is not seen.
fn occluded(images: Tensor<4>) -> Evidence {
    let [batch, ..] = images.dims();
    let visible = Tensor::ones([batch, 12, 12, 1], &cpu());
    let visible = visible.slice_assign([0..batch, 4..8, 4..8, 0..1], Tensor::zeros([batch, 4, 4, 1], &cpu()));
    Evidence { images, visible }
}

fn numbers(x: Tensor<4>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

#[test]
fn p1_what_is_seen_stays() {
    let images = batch(&shapes(6, 5));
    let found = sweep(&MODEL, &seen(images.clone()), &Query::Free, &SweepConfig::default()).unwrap();
    assert_close(found.images, images, 0.0);
    assert_eq!(found.labels, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_sweep_fills_in_what_is_hidden() {
    let images = batch(&shapes(90, 5));
    let evidence = occluded(images.clone());
    let found = sweep(&MODEL, &evidence, &Query::Free, &SweepConfig::default()).unwrap();
    let right = found.labels.iter().enumerate().filter(|(index, label)| index % CLASSES == **label).count();
    assert!(right >= 85, "{right} of 90");
    let error = |filled: Tensor<4>| (filled - images.clone()).square().sum().into_scalar::<f32>();
    let blank = error(images.clone() * evidence.visible.clone());
    let swept = error(found.images);
    assert!(swept < 0.5 * blank, "{swept}, left blank {blank}");
    let iterated = complete(
        &MODEL,
        &evidence,
        &CompleteConfig { candidates: 2, ..CompleteConfig::default() },
        &SweepConfig::default(),
    )
    .unwrap();
    assert!(error(iterated.images) < 0.5 * blank);
}

#[test]
fn a_label_that_is_given_is_rendered_whether_its_class_was_asked_or_not() {
    let evidence = occluded(batch(&shapes(30, 5)));
    // Of the first half the labels are right.
    let labels = (0..30).map(|index| (index + index / 15) % CLASSES).collect::<Vec<_>>();
    let with = |temperature: f64| {
        let config = SweepConfig { temperature, ..SweepConfig::default() };
        sweep(&MODEL, &evidence, &Query::Clamp(labels.clone()), &config).unwrap()
    };
    // At the one none but the likeliest class is asked, at the other every one is.
    let (few, all) = (with(1e-3), with(1e6));
    assert_close(few.rendered, all.rendered, 0.0);
    assert_close(few.images, all.images, 0.0);
    assert!(few.log_scores.into_data().iter::<f32>().all(f32::is_finite));
}

#[test]
fn p7_the_true_label_fills_in_better_than_another() {
    let images = batch(&shapes(60, 5));
    let evidence = occluded(images.clone());
    let error = |turn: usize| {
        let labels = (0..60).map(|index| (index + turn) % CLASSES).collect();
        let found = sweep(&MODEL, &evidence, &Query::Clamp(labels), &SweepConfig::default()).unwrap();
        (found.images - images.clone()).square().sum().into_scalar::<f32>()
    };
    let [truth, others @ ..] = [0, 1, 2].map(error);
    assert!(others.iter().all(|other| truth < 0.7 * other), "{truth}, as others {others:?}");
}

#[test]
fn fillings_of_every_class_are_right_in_the_mean() {
    let images = batch(&shapes(90, 5));
    let evidence = occluded(images.clone());
    let known = shapes(600, 1);
    let exemplars = Exemplars::new(&batch(&known), known.labels());
    let config = ImputeConfig { neighbours: 20, ..ImputeConfig::default() };
    let found = impute(&MODEL, &evidence, &exemplars, &Query::Free, &config).unwrap();
    let right = found.labels.iter().enumerate().filter(|(index, label)| index % CLASSES == **label).count();
    assert!(right >= 85, "{right} of 90");
    let sums = found.log_scores.exp().sum_dim(1).into_data();
    assert!(sums.iter::<f32>().all(|sum| (sum - 1.0).abs() < 1e-5));
    let error = |filled: Tensor<4>| (filled - images.clone()).square().sum().into_scalar::<f32>();
    assert!(error(found.images.clone()) < 0.5 * error(images.clone() * evidence.visible.clone()));
    assert_close(found.images * evidence.visible.clone(), images.clone() * evidence.visible.clone(), 0.0);
    // With the right label it is filled in as that class would have it, better than with another; of one that nobody remembers it is not.
    let labels = |turn: usize| Query::Clamp((0..90).map(|index| (index + turn) % CLASSES).collect());
    let [truth, other] =
        [0, 1].map(|turn| error(impute(&MODEL, &evidence, &exemplars, &labels(turn), &config).unwrap().images));
    assert!(truth < 0.7 * other, "{truth} {other}");
    let unknown = impute(&MODEL, &evidence, &exemplars, &Query::Clamp(vec![7; 90]), &config);
    assert!(matches!(unknown, Err(Error::EmptyClass { class: 7 })));
    // Where nothing is hidden there is one way to fill it in.
    let alone = impute(&MODEL, &seen(images.clone()), &exemplars, &Query::Free, &config).unwrap();
    let logits = MODEL.network().cnn().logits(images.clone());
    assert_close(alone.log_scores.exp(), burn::tensor::activation::softmax(logits, 1), 1e-5);
    assert_close(alone.images, images, 0.0);
}

#[test]
fn where_nothing_is_hidden_the_classifier_answers_alone() {
    let whole = seen(batch(&shapes(30, 5)));
    let again = complete(
        &MODEL,
        &whole,
        &CompleteConfig { candidates: 3, sweeps: 2, ..CompleteConfig::default() },
        &SweepConfig::default(),
    )
    .unwrap();
    let answers = MODEL.network().cnn().logits(whole.images.clone()).argmax(1).into_data();
    assert_eq!(again.labels, answers.iter::<i64>().map(|label| label as usize).collect::<Vec<_>>());
    assert_close(again.images, whole.images, 0.0);
    let evidence = seen(batch(&shapes(30, 5)));
    let found = sweep(&MODEL, &evidence, &Query::Free, &SweepConfig::default()).unwrap();
    let alone = burn::tensor::activation::log_softmax(MODEL.network().cnn().logits(evidence.images), 1);
    assert_close(found.log_scores, alone, 1e-5);
}

#[test]
fn p2_energy_never_rises_under_backtracking() {
    let evidence = occluded(batch(&shapes(6, 5)));
    let config = MapConfig { steps: 15, learning_rate: 0.01, descent: Descent::Backtracking, ..MapConfig::default() };
    let labels = [(0..6).map(|index| index % CLASSES).collect::<Vec<_>>()];
    let found = descend(&MODEL, &evidence, &labels, Composition::Max, &SweepConfig::default(), &config).unwrap();
    assert!(found.curve.windows(2).all(|pair| pair[1] <= pair[0] + 1e-4 * pair[0].abs()), "{:?}", found.curve);
    assert!(found.curve[15] < 0.9 * found.curve[0], "{:?}", found.curve);
}

#[test]
fn the_label_that_explains_best_is_that_of_the_image() {
    let evidence = occluded(batch(&shapes(30, 5)));
    let config = MapConfig { steps: 30, ..MapConfig::default() };
    let found = most_probable_explanation(&MODEL, &evidence, &Query::Free, &SweepConfig::default(), &config).unwrap();
    let right = found.labels.iter().enumerate().filter(|(index, label)| index % CLASSES == **label).count();
    assert!(right >= 28, "{right} of 30");
}

#[test]
fn two_instances_share_a_picture() {
    let (a, b) = (shapes(12, 5), shapes(24, 6));
    let a = batch(&a.chosen((0..12).filter(|index| index % CLASSES == 0)));
    let b = batch(&b.chosen((0..12).filter(|index| index % CLASSES == 2)));
    let both = seen(a.clone().max_pair(b.clone()));
    let config = MapConfig { steps: 60, ..MapConfig::default() };
    let labels = [vec![0; 4], vec![2; 4]];
    let found = descend(&MODEL, &both, &labels, Composition::Max, &SweepConfig::default(), &config).unwrap();
    let error = |x: Tensor<4>, y: &Tensor<4>| (x - y.clone()).square().mean().into_scalar::<f32>();
    let ours = error(found.rendered[0].clone(), &a) + error(found.rendered[1].clone(), &b);
    let composite = error(both.images.clone(), &a) + error(both.images.clone(), &b);
    assert!(ours < 0.5 * composite, "{ours}, the composite {composite}");
    // A pixel belongs to one of them at most.
    let masks = found.mask(0, 0.3) + found.mask(1, 0.3);
    assert!(masks.max().into_scalar::<f32>() <= 1.0);
    let pairs = separate(&MODEL, &both, None, 3, Composition::Max, &SweepConfig::default(), &config).unwrap();
    let right = (0..4).filter(|&picture| {
        let pair = [pairs.labels[0][picture], pairs.labels[1][picture]];
        pair.contains(&0) && pair.contains(&2)
    });
    assert!(right.count() >= 3, "{:?}", pairs.labels);
    // With one label known only the other is searched.
    let known = separate(&MODEL, &both, Some(&[2; 4]), 3, Composition::Max, &SweepConfig::default(), &config).unwrap();
    assert_eq!(known.labels[0], [2; 4]);
    assert!(known.labels[1].iter().filter(|label| **label == 0).count() >= 3, "{:?}", known.labels);
    let none = separate(&MODEL, &both, Some(&[CLASSES; 4]), 3, Composition::Max, &SweepConfig::default(), &config);
    assert!(matches!(none, Err(Error::Class { class: CLASSES, classes: CLASSES })));
}

#[test]
fn p5_p6_images_are_explained_alike_in_any_order_and_again() {
    let images = batch(&shapes(5, 5));
    let evidence = occluded(images.clone());
    let swept = |evidence: &Evidence| sweep(&MODEL, evidence, &Query::Free, &SweepConfig::default()).unwrap();
    let found = swept(&evidence);
    assert_eq!(numbers(found.images.clone()), numbers(swept(&evidence).images));
    let backwards = swept(&Evidence { images: images.flip([0]), ..evidence });
    assert_eq!(numbers(backwards.images), numbers(found.images.flip([0])));
    assert_eq!(backwards.labels, found.labels.into_iter().rev().collect::<Vec<_>>());
}

#[test]
fn p8_hiding_background_changes_nothing_but_it() {
    let images = batch(&shapes(3, 5));
    let visible = Tensor::ones([3, 12, 12, 1], &cpu());
    // The last row holds no ink of any image.
    let visible = visible.slice_assign([0..3, 11..12, 0..12, 0..1], Tensor::zeros([3, 1, 12, 1], &cpu()));
    let found =
        sweep(&MODEL, &Evidence { images: images.clone(), visible }, &Query::Free, &SweepConfig::default()).unwrap();
    assert_eq!(found.labels, [0, 1, 2]);
    let above = [0..3, 0..11, 0..12, 0..1];
    assert_close(found.images.slice(above.clone()), images.slice(above), 0.0);
}

#[test]
fn everything_hidden_leaves_the_prior() {
    let evidence = Evidence { images: batch(&shapes(1, 5)), visible: Tensor::zeros([1, 12, 12, 1], &cpu()) };
    let other = Evidence { images: batch(&shapes(2, 7)).slice([1..2, 0..12, 0..12, 0..1]), ..evidence.clone() };
    let swept = |evidence| sweep(&MODEL, evidence, &Query::Clamp(vec![1]), &SweepConfig::default()).unwrap();
    assert_eq!(numbers(swept(&evidence).images), numbers(swept(&other).images));
}

#[test]
fn strange_questions_are_told() {
    let images = batch(&shapes(2, 5));
    let wrong =
        |evidence: &Evidence, query: &Query| sweep(&MODEL, evidence, query, &SweepConfig::default()).unwrap_err();
    let small = seen(images.clone().slice([0..2, 0..8, 0..12, 0..1]));
    assert_eq!(
        wrong(&small, &Query::Free).to_string(),
        "images of [8, 12, 1] (height, width, channels), the classifier reads [12, 12, 1]"
    );
    let mask = Evidence { visible: Tensor::ones([2, 6, 12, 1], &cpu()), ..seen(images.clone()) };
    assert_eq!(wrong(&mask, &Query::Free).to_string(), "a mask of [6, 12] for images of [12, 12] (height, width)");
    assert!(matches!(wrong(&seen(images), &Query::Clamp(vec![0, 3])), Error::Class { class: 3, classes: 3 }));
    let told = |plan: CnnConfig| {
        let cnn = plan.init(Seed::new(1), &cpu()).unwrap();
        GenerativeModel::fit(cnn, &shapes(9, 1), &GenerativeConfig::default(), Seed::new(1)).unwrap_err().to_string()
    };
    let image = || CnnConfig::image(12, 12, 1);
    let stride = told(image().conv(2, 3, 1, 1).relu().conv(2, 3, 2, 1).relu().linear(3));
    assert_eq!(stride, "layer 2 (convolution) cannot be modelled: it must move by 1 and keep height and width");
    assert!(told(image().conv(2, 3, 1, 1).relu().avg_pool(2, 2, 0).linear(3)).starts_with("layer 2 (mean pool)"));
    assert!(
        told(image().conv(2, 3, 1, 1).relu().max_pool(3, 2, 0).linear(3))
            .contains("windows of 3 must lie side by side")
    );
    assert!(told(image().conv(2, 3, 1, 1).linear(3)).contains("no rectifier follows it"));
    assert!(told(image().linear(3)).contains("no convolution"));
    let none = Images::of(SIZE, vec![0; 144], vec![0]);
    let cnn = plan().init(Seed::new(1), &cpu()).unwrap();
    let fitted = GenerativeModel::fit(cnn, &none, &GenerativeConfig::default(), Seed::new(1));
    assert!(matches!(fitted, Err(Error::EmptyClass { class: 1 })));
}

#[test]
fn a_model_comes_back_from_its_folder_and_damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    MODEL.save(dir.path()).unwrap();
    let again = GenerativeModel::open(dir.path(), &cpu()).unwrap();
    let evidence = occluded(batch(&shapes(3, 5)));
    let swept = |model: &GenerativeModel| sweep(model, &evidence, &Query::Free, &SweepConfig::default()).unwrap();
    assert_eq!(numbers(swept(&again).images), numbers(swept(&MODEL).images));

    let path = dir.path().join("model.safetensors");
    let whole = Parameters::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
    let told = |change: &dyn Fn(&mut Parameters)| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        std::fs::write(&path, tensors.to_bytes()).unwrap();
        GenerativeModel::open(dir.path(), &cpu()).unwrap_err().to_string()
    };
    assert!(told(&|tensors| _ = tensors.remove("prior.3.mean")).contains("missing tensor `prior.3.mean`"));
    assert!(told(&|tensors| tensors.insert("more", vec![1], vec![0.0])).contains("surplus tensor `more`"));
    let other = told(&|tensors| tensors.insert("decoders.0.bias", vec![2], vec![0.0; 2]));
    assert!(other.contains("`decoders.0.bias` has shape [2], the model needs [1]"), "{other}");
    std::fs::write(&path, b"cut").unwrap();
    assert!(GenerativeModel::open(dir.path(), &cpu()).unwrap_err().to_string().contains("model.safetensors"));
}

/// O6: without variance the way up is the plain pass to the bit.
#[test]
fn o6_without_variance_the_way_up_is_the_plain_pass() {
    let images = batch(&shapes(4, 5));
    let belief = Belief { variance: images.zeros_like(), mean: images.clone() };
    let up = upward(MODEL.network(), belief);
    let plain = MODEL.network().cnn().activations(images.clone());
    for (level, layers) in up.levels.iter().zip([[1, 2], [4, 5]]) {
        assert_eq!(numbers(level.before.mean.clone()), numbers(plain[layers[0]].clone()));
        assert_eq!(numbers(level.after.mean.clone()), numbers(plain[layers[1]].clone()));
        assert!(numbers(level.after.variance.clone()).iter().all(|variance| *variance == 0.0));
    }
    let expected = burn::tensor::activation::log_softmax(MODEL.network().cnn().logits(images), 1);
    assert_close(up.logits, expected, 1e-6);
}

/// O6: means and variances are those of many drawn images, through one convolution and its rectifier.
#[test]
fn o6_moments_are_those_of_many_draws() {
    let draws = 10_000;
    let (mean, variance) = (batch(&shapes(1, 5)), 0.09_f32);
    let mut rng = Seed::new(4).rng();
    let mut noise = Vec::with_capacity(draws * 144);
    while noise.len() < draws * 144 {
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        let radius = (-2.0 * u.ln()).sqrt() * f64::from(variance.sqrt());
        noise.extend(
            [radius * (std::f64::consts::TAU * v).cos(), radius * (std::f64::consts::TAU * v).sin()].map(|x| x as f32),
        );
    }
    let noise = Tensor::<4>::from_data(TensorData::new(noise, [draws, 12, 12, 1]), &cpu());
    let belief = Belief { variance: mean.zeros_like() + variance, mean: mean.clone() };
    let level = upward(MODEL.network(), belief).levels.swap_remove(0).before;
    let drawn = MODEL.network().cnn().activations(noise + mean).swap_remove(1);
    let expected = drawn.clone().mean_dim(0);
    let spread = (drawn - expected.clone()).square().mean_dim(0);
    let scale = |x: &Tensor<4>| x.clone().abs().max().into_scalar::<f32>();
    assert_close(level.mean / scale(&expected), expected.clone() / scale(&expected), 0.02);
    assert_close(level.variance / scale(&spread), spread.clone() / scale(&spread), 0.04);
}

/// How often the labels are right, and the mean square error of what was hidden beside that of leaving it black.
fn told(inpaint: impl Fn(&Evidence, &Query) -> Result<Inpainting, Error>) -> (usize, f32, f32) {
    let images = batch(&shapes(60, 5));
    let evidence = occluded(images.clone());
    let found = inpaint(&evidence, &Query::Free).unwrap();
    let right = found.labels.iter().enumerate().filter(|(index, label)| index % CLASSES == **label).count();
    assert_close(found.images.clone() * evidence.visible.clone(), images.clone() * evidence.visible.clone(), 0.0);
    let clamped = inpaint(&evidence, &Query::Clamp(vec![1; 60])).unwrap();
    assert_eq!(clamped.labels, [1; 60]);
    let refused = inpaint(&evidence, &Query::Clamp(vec![CLASSES; 60]));
    assert!(matches!(refused, Err(Error::Class { class: CLASSES, classes: CLASSES })));
    let small = Evidence {
        images: images.clone().slice([0..60, 0..11]),
        visible: evidence.visible.clone().slice([0..60, 0..11]),
    };
    assert!(matches!(inpaint(&small, &Query::Free), Err(Error::Size { .. })));
    let error = |filled: Tensor<4>| (filled - images.clone()).square().sum().into_scalar::<f32>();
    (right, error(found.images), error(images.clone() * evidence.visible.clone()))
}

#[test]
fn every_model_of_activations_answers() {
    let (right, error, black) = told(|evidence, query| {
        let found = sweep(&MODEL, evidence, query, &SweepConfig::default())?;
        Ok(Inpainting { labels: found.labels, scores: found.log_scores, images: found.images })
    });
    assert!(right >= 55 && error < 0.5 * black, "sweeps: {right} of 60, {error} of {black}");
    let known = shapes(300, 1);
    let binary = NoisyOr::fit(&MODEL, &batch(&known), known.labels()).unwrap();
    let (right, error, black) = told(|evidence, query| binary.inpaint(evidence, query));
    assert!(right >= 55 && error < black, "noisy-OR: {right} of 60, {error} of {black}");
    // Its weights are so small that hidden pixels stay near their mean: it answers what the classifier does of those.
    let known = batch(&known);
    let rectified = RectifiedGaussian::of(MODEL.network(), &known.clone().mean_dim(0), 2).unwrap();
    let (right, error, _) = told(|evidence, query| rectified.inpaint(evidence, query));
    let images = batch(&shapes(60, 5));
    let filled = baselines::mean(&occluded(images.clone()), &known);
    let answers = MODEL.network().cnn().logits(filled.clone()).argmax(1).into_data();
    let of_mean = answers.iter::<i64>().enumerate().filter(|(index, label)| index % CLASSES == *label as usize).count();
    assert!(right.abs_diff(of_mean) <= 6, "rectified Gaussians: {right} of 60, of the mean {of_mean}");
    let mean = (filled - images).square().sum().into_scalar::<f32>();
    assert!((error / mean - 1.0).abs() < 0.1, "{error}, of the mean {mean}");
}

#[test]
fn something_that_lies_over_a_picture_is_found() {
    let images = batch(&shapes(30, 5));
    let seeds = (0..30).map(|index| Seed::new(3).at(&[index])).collect::<Vec<_>>();
    let (covered, visible) = Cover::Gray.apply(&images, &images, 4, &seeds);
    let whole = seen(covered.clone());
    let found = uncover(&MODEL, &whole, &UncoverConfig::default()).unwrap();
    let numbers = |x: &Tensor<4>| x.clone().into_data().iter::<f32>().collect::<Vec<_>>();
    let (truth, probability) = (numbers(&visible), numbers(&found.visible));
    let share = |of: f32| {
        let chosen = truth.iter().zip(&probability).filter(|(truth, _)| **truth == of).map(|(_, found)| *found);
        chosen.clone().sum::<f32>() / chosen.count() as f32
    };
    assert!(share(0.0) < 0.2 && share(1.0) > 0.9, "seen of the covered {}, of the rest {}", share(0.0), share(1.0));
    // What nobody covered is left alone, and explains more than nothing would.
    let clean = uncover(&MODEL, &seen(images), &UncoverConfig::default()).unwrap();
    assert!(clean.visible.mean().into_scalar::<f32>() > 0.97);
    assert!(clean.gains.iter().enumerate().all(|(index, gains)| gains[index % CLASSES] > 50.0), "{:?}", clean.gains);
    let nothing = uncover(&MODEL, &seen(Tensor::zeros([1, 12, 12, 1], &cpu())), &UncoverConfig::default()).unwrap();
    assert!(nothing.gains[0].iter().all(|gain| *gain < 0.0), "{:?}", nothing.gains);
    let wrong = Evidence { images: covered, visible: Tensor::ones([30, 11, 12, 1], &cpu()) };
    assert!(matches!(uncover(&MODEL, &wrong, &UncoverConfig::default()), Err(Error::Mask { .. })));
}

#[test]
fn remembered_images_tell_what_lies_over_a_picture() {
    let (known, images) = (shapes(300, 1), batch(&shapes(30, 5)));
    let exemplars = Exemplars::new(&batch(&known), known.labels());
    let seeds = (0..30).map(|index| Seed::new(3).at(&[index])).collect::<Vec<_>>();
    let (covered, visible) = Cover::Gray.apply(&images, &images, 4, &seeds);
    let found = uncover_by_exemplars(&exemplars, &seen(covered.clone()), 0.2, 1.0);
    let numbers = |x: &Tensor<4>| x.clone().into_data().iter::<f32>().collect::<Vec<_>>();
    let (truth, probability) = (numbers(&visible), numbers(&found));
    let share = |of: f32| {
        let chosen = truth.iter().zip(&probability).filter(|(truth, _)| **truth == of).map(|(_, found)| *found);
        chosen.clone().sum::<f32>() / chosen.count() as f32
    };
    assert!(share(0.0) < 0.2 && share(1.0) > 0.9, "seen of the covered {}, of the rest {}", share(0.0), share(1.0));
    let evidence = Evidence { images: covered.clone(), visible: found.greater_elem(0.5).float() };
    let imputed = impute(&MODEL, &evidence, &exemplars, &Query::Free, &ImputeConfig::default()).unwrap();
    let right = imputed.labels.iter().enumerate().filter(|(index, label)| index % CLASSES == **label).count();
    assert!(right >= 28, "{right} of 30");
    // What nobody covered is left alone; what nobody sees is not seen.
    assert!(uncover_by_exemplars(&exemplars, &seen(images), 0.2, 1.0).mean().into_scalar::<f32>() > 0.97);
    let hidden = Evidence { visible: visible.zeros_like(), images: covered };
    assert_eq!(uncover_by_exemplars(&exemplars, &hidden, 0.2, 1.0).max().into_scalar::<f32>(), 0.0);
}

#[test]
fn every_baseline_fills_in_better_than_black() {
    let (known, images) = (shapes(300, 1), batch(&shapes(60, 5)));
    let evidence = occluded(images.clone());
    let error = |filled: Tensor<4>| {
        assert_close(filled.clone() * evidence.visible.clone(), images.clone() * evidence.visible.clone(), 0.0);
        (filled - images.clone()).square().sum().into_scalar::<f32>()
    };
    let black = error(baselines::zero(&evidence));
    let prior = PriorConfig { factors: 10, components: 1, em_iterations: 4 };
    let factors = PixelFactors::fit(&batch(&known), known.labels(), &prior, Seed::new(1)).unwrap();
    let mean = error(baselines::mean(&evidence, &batch(&known)));
    let (factors, predictive) =
        (error(factors.fill(&evidence)), error(baselines::predictive_coding(&MODEL, &evidence, 10)));
    assert!(factors < 0.5 * mean && mean < black && predictive < black, "{factors} {predictive} {mean} {black}");
}

#[test]
fn instances_on_a_canvas_are_found_where_they_lie() {
    let pictures = shapes(12, 5);
    let mut right = 0;
    for first in [0, 3, 6] {
        let chosen = batch(&pictures.chosen(first..first + 3));
        let clutter = Clutter::scatter(&chosen, 30, 12, Seed::new(first as u64));
        assert!(clutter.placed.len() > 1);
        let found = detect(&MODEL, &clutter.canvas, &DetectConfig::default()).unwrap();
        for (index, place) in &clutter.placed {
            let near = |found: &Detection| (0..2).all(|axis| found.place[axis].abs_diff(place[axis]) <= 3);
            right += usize::from(found.iter().any(|one| one.label == index % CLASSES && near(one)));
        }
        assert!(found.len() <= clutter.placed.len() + 1, "{} of {}", found.len(), clutter.placed.len());
    }
    assert!(right >= 6, "{right} of 9");
    let empty = Tensor::zeros([1, 30, 30, 1], &cpu());
    assert!(detect(&MODEL, &empty, &DetectConfig::default()).unwrap().is_empty());
    let small = Tensor::zeros([1, 30, 11, 1], &cpu());
    assert!(matches!(detect(&MODEL, &small, &DetectConfig::default()), Err(Error::Size { .. })));
}

#[test]
fn decoders_fitted_under_masks_render_better_under_masks() {
    let images = batch(&shapes(90, 5));
    let evidence = occluded(images.clone());
    let labels = (0..90).map(|index| index % CLASSES).collect::<Vec<_>>();
    let hidden = evidence.visible.clone().neg() + 1.0;
    let error = |model: &GenerativeModel| {
        let found = sweep(model, &evidence, &Query::Clamp(labels.clone()), &SweepConfig::default()).unwrap();
        ((found.rendered - images.clone()).square() * hidden.clone()).sum().into_scalar::<f32>()
    };
    let prior = PriorConfig { factors: 8, components: 2, em_iterations: 4 };
    let decoder = DecoderMode::Robust { alpha: 1e-4, rounds: 2 };
    let config = GenerativeConfig { prior, shift: 0, decoder, images: 600 };
    let robust = GenerativeModel::fit(MODEL.network().cnn().clone(), &shapes(900, 1), &config, Seed::new(3)).unwrap();
    let (robust, ridge) = (error(&robust), error(&MODEL));
    assert!(robust < 0.9 * ridge, "{robust}, by ridge alone {ridge}");
}
