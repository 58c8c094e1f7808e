//! Several instances on a canvas larger than the classifier's images: found one after another, each explained away.

use burn::tensor::{Tensor, activation};

use super::uncover::{UncoverConfig, uncover};
use crate::Error;
use crate::classifiers::Classifier;
use crate::generative::evidence::Evidence;
use crate::generative::model::GenerativeModel;

/// The constants of a search; to be chosen on a validation split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectConfig {
    /// Pixels between windows of the first look; the best one is then moved by single pixels.
    pub stride: usize,
    /// Nats by which an instance must explain more than nothing does.
    pub threshold: f64,
    /// The most instances.
    pub instances: usize,
    /// What the log-likelihood of a label is divided by beside the classifier's score.
    pub temperature: f64,
    /// What tells an instance from what lies beside it.
    pub uncover: UncoverConfig,
}

impl Default for DetectConfig {
    fn default() -> Self {
        let uncover = UncoverConfig { covered: 0.05, coherence: 0.0, rounds: 2 };
        Self { stride: 4, threshold: 20.0, instances: 10, temperature: 20.0, uncover }
    }
}

/// An instance that was found.
#[derive(Clone, Debug)]
pub struct Detection {
    /// Of which class.
    pub label: usize,
    /// The row and the column of the upper left corner of its window.
    pub place: [usize; 2],
    /// Nats by which it explains more than nothing does.
    pub gain: f64,
    /// Its pixels in the window, `[1, height, width, 1]`.
    pub mask: Tensor<4>,
}

/// The instances on a canvas, the clearest first.
///
/// ```text
/// gain = log p(window, label, cover) − log p(window, nothing, cover)          the best label of each window
/// ```
///
/// The window of the greatest gain is an instance; the ink that it explains does not count any more, and the search goes on until no
/// window gains enough: explaining away, greedily. Spec: C-22.
///
/// # Errors
/// If the canvas has other channels than the classifier's images, or is smaller.
///
/// # Panics
/// If it is not one canvas, or windows do not move.
pub fn detect(model: &GenerativeModel, canvas: &Tensor<4>, config: &DetectConfig) -> Result<Vec<Detection>, Error> {
    /// Brightness from which on a pixel is ink.
    const INK: f64 = 0.2;
    let [one, rows, columns, channels] = canvas.dims();
    let [height, width, expected] = model.network().image();
    if rows < height || columns < width || channels != expected {
        return Err(Error::Size { found: [rows, columns, channels], expected: [height, width, expected] });
    }
    assert!(one == 1 && config.stride > 0, "one canvas, windows that move");
    let mut unexplained = Tensor::<4>::ones([1, rows, columns, 1], &canvas.device());
    let every = |length: usize, size: usize| {
        let places = (0..length - size).step_by(config.stride);
        places.chain([length - size]).collect::<Vec<_>>()
    };
    let grid =
        every(rows, height).into_iter().flat_map(|top| every(columns, width).into_iter().map(move |left| [top, left]));
    let grid = grid.collect::<Vec<_>>();
    let mut gains = window_gains(model, canvas, &unexplained, &grid, config)?;
    let mut found = Vec::new();
    while found.len() < config.instances {
        let best = (0..grid.len()).max_by(|&a, &b| gains[a].total_cmp(&gains[b])).expect("there is a window");
        let near =
            |place: usize, most: usize| place.saturating_sub(config.stride / 2)..=most.min(place + config.stride / 2);
        let [top, left] = grid[best];
        let moved = near(top, rows - height).flat_map(|top| near(left, columns - width).map(move |left| [top, left]));
        let moved = moved.collect::<Vec<_>>();
        let near = window_gains(model, canvas, &unexplained, &moved, config)?;
        let finest = (0..moved.len()).max_by(|&a, &b| near[a].total_cmp(&near[b])).expect("there is a window");
        let ([top, left], gain) = (moved[finest], near[finest]);
        if gain < config.threshold {
            break;
        }
        let window = Evidence {
            images: part(canvas, [top, left], [height, width]),
            visible: part(&unexplained, [top, left], [height, width]),
        };
        let uncovered = uncover(model, &window, &config.uncover)?;
        let own = uncovered.seen();
        let judged = activation::log_softmax(model.network().cnn().logits(window.images.clone() * own.clone()), 1);
        let judged = judged.into_data().iter::<f64>().collect::<Vec<_>>();
        let score = |label: usize| uncovered.log_scores[0][label] / config.temperature + judged[label];
        let label = (0..judged.len()).max_by(|&a, &b| score(a).total_cmp(&score(b))).expect("there is a class");
        let ink = own * window.images.mean_dim(3).greater_elem(INK).float();
        if ink.clone().sum().into_scalar::<f32>() <= 0.0 {
            break;
        }
        let place = [0..1, top..top + height, left..left + width, 0..1];
        let left_over = window.visible * (ink.clone().neg() + 1.0);
        unexplained = unexplained.slice_assign(place, left_over);
        found.push(Detection { label, place: [top, left], gain, mask: ink });
        // Only windows that hold some of what was explained have another gain now.
        let changed = (0..grid.len())
            .filter(|&index| grid[index][0].abs_diff(top) < height && grid[index][1].abs_diff(left) < width);
        let changed = changed.collect::<Vec<_>>();
        let again = changed.iter().map(|&index| grid[index]).collect::<Vec<_>>();
        for (index, gain) in changed.into_iter().zip(window_gains(model, canvas, &unexplained, &again, config)?) {
            gains[index] = gain;
        }
    }
    Ok(found)
}

/// What the best label of each window explains beyond what nothing does.
fn window_gains(
    model: &GenerativeModel,
    canvas: &Tensor<4>,
    unexplained: &Tensor<4>,
    places: &[[usize; 2]],
    config: &DetectConfig,
) -> Result<Vec<f64>, Error> {
    /// Windows that are looked at at a time.
    const CHUNK: usize = 100;
    let [height, width, _] = model.network().image();
    let mut gains = Vec::with_capacity(places.len());
    for places in places.chunks(CHUNK) {
        let all =
            |of: &Tensor<4>| Tensor::cat(places.iter().map(|&place| part(of, place, [height, width])).collect(), 0);
        let evidence = Evidence { images: all(canvas), visible: all(unexplained) };
        let found = uncover(model, &evidence, &config.uncover)?;
        gains.extend(found.gains.iter().map(|gains| gains.iter().copied().fold(f64::NEG_INFINITY, f64::max)));
    }
    Ok(gains)
}

fn part(of: &Tensor<4>, [top, left]: [usize; 2], [height, width]: [usize; 2]) -> Tensor<4> {
    let [_, _, _, channels] = of.dims();
    of.clone().slice([0..1, top..top + height, left..left + width, 0..channels])
}
