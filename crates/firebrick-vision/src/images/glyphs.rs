//! Pictures of strokes: ten kinds of lines and shapes, each drawn a little otherwise.

use firebrick_types::Seed;
use rand::RngExt;

use super::set::Images;

/// The names of the kinds, by class.
pub const KINDS: [&str; 10] =
    ["bar", "cross", "plus", "ring", "square", "triangle", "zigzag", "fork", "hook", "ladder"];

/// Pixels on each side.
pub const SIDE: usize = 28;

/// The strokes of a kind, as lines from point to point in a square from −1 to 1.
fn strokes(kind: usize) -> Vec<Vec<[f64; 2]>> {
    let line = |points: &[[f64; 2]]| points.to_vec();
    match KINDS[kind] {
        "bar" => vec![line(&[[0.0, -0.9], [0.0, 0.9]])],
        "cross" => vec![line(&[[-0.7, -0.8], [0.7, 0.8]]), line(&[[0.7, -0.8], [-0.7, 0.8]])],
        "plus" => vec![line(&[[0.0, -0.8], [0.0, 0.8]]), line(&[[-0.8, 0.0], [0.8, 0.0]])],
        "ring" => {
            let point = |step: u32| {
                let angle = std::f64::consts::TAU * f64::from(step) / 16.0;
                [0.65 * angle.cos(), 0.8 * angle.sin()]
            };
            vec![(0..=16).map(point).collect()]
        }
        "square" => vec![line(&[[-0.7, -0.7], [0.7, -0.7], [0.7, 0.7], [-0.7, 0.7], [-0.7, -0.7]])],
        "triangle" => vec![line(&[[0.0, -0.8], [0.8, 0.7], [-0.8, 0.7], [0.0, -0.8]])],
        "zigzag" => vec![line(&[[-0.6, -0.8], [0.6, -0.8], [-0.6, 0.8], [0.6, 0.8]])],
        "fork" => vec![line(&[[-0.6, -0.8], [-0.6, -0.1], [0.6, -0.1], [0.6, -0.8]]), line(&[[0.0, -0.1], [0.0, 0.9]])],
        "hook" => vec![line(&[[0.4, -0.8], [0.4, 0.4], [0.1, 0.8], [-0.4, 0.8], [-0.6, 0.3]])],
        _ => vec![
            line(&[[-0.5, -0.8], [-0.5, 0.8]]),
            line(&[[0.5, -0.8], [0.5, 0.8]]),
            line(&[[-0.5, -0.3], [0.5, -0.3]]),
            line(&[[-0.5, 0.3], [0.5, 0.3]]),
        ],
    }
}

/// A picture of a kind, [`SIDE`] x [`SIDE`] bytes: turned, stretched, slanted and moved a little, of some thickness, its points where a hand
/// might have put them.
///
/// # Panics
/// If there is no such kind.
pub fn glyph(kind: usize, seed: Seed) -> Vec<u8> {
    let mut rng = seed.derive("glyph").rng();
    let mut between = |low: f64, high: f64| rng.random_range(low..high);
    let angle = between(-0.25, 0.25);
    let (stretch, slant) = ([between(7.0, 10.0), between(7.5, 10.0)], between(-0.2, 0.2));
    let shift = [between(-2.0, 2.0), between(-2.0, 2.0)];
    let thickness = between(0.7, 1.5);
    let mut place = |[x, y]: [f64; 2]| {
        let (x, y) = (x + slant * y + between(-0.08, 0.08), y + between(-0.08, 0.08));
        let (x, y) = (stretch[0] * x, stretch[1] * y);
        let middle = (SIDE as f64 - 1.0) / 2.0;
        let turned = [x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()];
        [middle + shift[0] + turned[0], middle + shift[1] + turned[1]]
    };
    let drawn = strokes(kind).into_iter().map(|stroke| stroke.into_iter().map(&mut place).collect::<Vec<_>>());
    let drawn = drawn.collect::<Vec<_>>();
    let ink = |pixel: usize| {
        let here = [(pixel % SIDE) as f64, (pixel / SIDE) as f64];
        let lines = drawn.iter().flat_map(|stroke| stroke.windows(2));
        let nearest = lines.map(|line| distance(here, [line[0], line[1]])).fold(f64::INFINITY, f64::min);
        // Full within the stroke, and gone a pixel beyond its edge.
        (255.0 * (thickness + 1.0 - nearest).clamp(0.0, 1.0)) as u8
    };
    (0..SIDE * SIDE).map(ink).collect()
}

/// How far a point lies from a line between two others.
fn distance([x, y]: [f64; 2], [[x0, y0], [x1, y1]]: [[f64; 2]; 2]) -> f64 {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy).max(1e-12);
    let along = along.clamp(0.0, 1.0);
    (x - x0 - along * dx).hypot(y - y0 - along * dy)
}

/// Pictures of all kinds in turn.
///
/// ```
/// use firebrick_types::Seed;
/// use firebrick_vision::images::glyphs::glyphs;
///
/// let images = glyphs(20, Seed::new(1));
/// assert_eq!((images.size(), images.classes(), images.labels()[13]), ([28, 28, 1], 10, 3));
/// ```
pub fn glyphs(count: usize, seed: Seed) -> Images {
    let mut images = Images::new([SIDE, SIDE, 1]);
    for index in 0..count {
        let kind = index % KINDS.len();
        images.push(&glyph(kind, seed.at(&[index as u64])), kind as u8);
    }
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_ink_within_their_edges_and_differ() {
        for (kind, name) in KINDS.iter().enumerate() {
            for index in 0..30 {
                let picture = glyph(kind, Seed::new(1).at(&[index]));
                let ink = picture.iter().filter(|pixel| **pixel > 127).count();
                assert!((25..330).contains(&ink), "{name} of {ink} pixels");
                let edge = (0..SIDE)
                    .flat_map(|place| [place, SIDE * (SIDE - 1) + place, SIDE * place, SIDE * place + SIDE - 1]);
                let cut = edge.filter(|&pixel| picture[pixel] > 127).count();
                assert!(cut <= 4, "{name}: {cut} pixels of ink at the edge");
            }
            assert_ne!(glyph(kind, Seed::new(1)), glyph(kind, Seed::new(2)));
            assert_eq!(glyph(kind, Seed::new(1)), glyph(kind, Seed::new(1)));
        }
    }

    #[test]
    fn a_class_is_nearer_to_its_own_mean_than_to_others() {
        let (train, test) = (glyphs(2000, Seed::new(1)), glyphs(500, Seed::new(2)));
        let mut means = vec![vec![0.0; SIDE * SIDE]; KINDS.len()];
        for index in 0..train.len() {
            let mean = &mut means[usize::from(train.labels()[index])];
            mean.iter_mut().zip(train.image(index)).for_each(|(mean, &pixel)| *mean += f64::from(pixel) / 200.0);
        }
        let nearest = |image: &[u8]| {
            let far = |mean: &[f64]| mean.iter().zip(image).map(|(m, &p)| (m - f64::from(p)).powi(2)).sum::<f64>();
            (0..KINDS.len()).min_by(|&a, &b| far(&means[a]).total_cmp(&far(&means[b]))).unwrap()
        };
        let right = (0..500).filter(|&index| nearest(test.image(index)) == usize::from(test.labels()[index])).count();
        // More than guessing, less than a task without a challenge.
        assert!((250..500).contains(&right), "{right} of 500");
    }
}
