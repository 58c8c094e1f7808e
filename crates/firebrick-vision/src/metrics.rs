//! How good masks and reconstructions are. Pictures are slices of brightness, row after row.

/// The mean square difference where `counted` is not 0; not a number if it is nowhere.
///
/// # Panics
/// If the slices differ in length, as all functions here.
pub fn mean_square(found: &[f32], truth: &[f32], counted: &[f32]) -> f64 {
    same_length(&[found.len(), truth.len(), counted.len()]);
    let squares = found.iter().zip(truth).zip(counted).filter(|(_, counted)| **counted != 0.0);
    let (sum, count) =
        squares.fold((0.0, 0_usize), |(sum, count), ((a, b), _)| (sum + f64::from(a - b).powi(2), count + 1));
    sum / count as f64
}

/// The peak signal-to-noise ratio of numbers from 0 to 1, in decibels.
///
/// ```text
/// −10 log₁₀ MSE
/// ```
pub fn psnr(mean_square: f64) -> f64 {
    -10.0 * mean_square.log10()
}

/// What two masks share of what either covers, 1 if both are empty.
///
/// # Panics
/// If they differ in length.
pub fn intersection_over_union(found: &[bool], truth: &[bool]) -> f64 {
    same_length(&[found.len(), truth.len()]);
    let count = |f: fn(bool, bool) -> bool| found.iter().zip(truth).filter(|(a, b)| f(**a, **b)).count();
    let either = count(|a, b| a || b);
    if either == 0 { 1.0 } else { count(|a, b| a && b) as f64 / either as f64 }
}

/// The pointing game: whether the greatest number lies on the truth, or within so many pixels of it in each direction.
///
/// Zhang et al. 2016, [arXiv:1608.00507](https://arxiv.org/abs/1608.00507), section 4.2.
///
/// # Panics
/// If the slices are no rows of this width, or hold nothing.
pub fn points_at(map: &[f32], truth: &[bool], width: usize, tolerance: usize) -> bool {
    same_length(&[map.len(), truth.len()]);
    assert!(width > 0 && map.len().is_multiple_of(width), "{} pixels are not rows of {width}", map.len());
    let greatest = (0..map.len()).max_by(|&a, &b| map[a].total_cmp(&map[b]).then(b.cmp(&a))).expect("a pixel");
    let (row, column) = (greatest / width, greatest % width);
    let near =
        |pixel: usize| (pixel / width).abs_diff(row) <= tolerance && (pixel % width).abs_diff(column) <= tolerance;
    (0..truth.len()).any(|pixel| truth[pixel] && near(pixel))
}

/// The share of pixels that belong to one of two instances alone which the maps give to the right one; a tie is half right.
///
/// Not a number if there is no such pixel.
///
/// # Panics
/// If the slices differ in length.
pub fn ink_assignment(maps: [&[f32]; 2], truths: [&[bool]; 2]) -> f64 {
    same_length(&[maps[0].len(), maps[1].len(), truths[0].len(), truths[1].len()]);
    let (mut right, mut count) = (0.0, 0.0);
    for pixel in 0..maps[0].len() {
        if truths[0][pixel] == truths[1][pixel] {
            continue;
        }
        count += 1.0;
        let [own, other] = if truths[0][pixel] { [maps[0], maps[1]] } else { [maps[1], maps[0]] };
        right += match own[pixel].total_cmp(&other[pixel]) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
    }
    right / count
}

/// The structural similarity of two pictures of numbers from 0 to 1: the mean over all places of a Gaussian window of 7 x 7 with a
/// deviation of 1.5.
///
/// ```text
/// (2 μₓ μ_y + C₁)(2 σₓ_y + C₂) / ((μₓ² + μ_y² + C₁)(σₓ² + σ_y² + C₂))        C₁ = 0.01²        C₂ = 0.03²
/// ```
///
/// Wang et al. 2004, *Image quality assessment: from error visibility to structural similarity*, eq. 13.
///
/// # Panics
/// If the slices differ in length, or are smaller than the window.
pub fn ssim(a: &[f32], b: &[f32], width: usize) -> f64 {
    const SIDE: usize = 7;
    const DEVIATION: f64 = 1.5;
    const CONSTANTS: [f64; 2] = [0.0001, 0.0009];
    same_length(&[a.len(), b.len()]);
    let height = a.len() / width.max(1);
    assert!(height * width == a.len() && height.min(width) >= SIDE, "pictures of at least {SIDE} x {SIDE}");
    let gauss = |place: usize| (-(place as f64 - 3.0).powi(2) / (2.0 * DEVIATION * DEVIATION)).exp();
    let whole = (0..SIDE).map(gauss).sum::<f64>().powi(2);
    let mut sum = 0.0;
    for top in 0..=height - SIDE {
        for left in 0..=width - SIDE {
            // Weighted sums of a, b, a², b² and ab.
            let mut moments = [0.0; 5];
            for row in 0..SIDE {
                for column in 0..SIDE {
                    let weight = gauss(row) * gauss(column) / whole;
                    let pixel = (top + row) * width + left + column;
                    let (a, b) = (f64::from(a[pixel]), f64::from(b[pixel]));
                    let of = [a, b, a * a, b * b, a * b];
                    moments.iter_mut().zip(of).for_each(|(moment, of)| *moment += weight * of);
                }
            }
            let [mean_a, mean_b, square_a, square_b, product] = moments;
            let (variance_a, variance_b) = (square_a - mean_a * mean_a, square_b - mean_b * mean_b);
            let luminance = (2.0 * mean_a * mean_b + CONSTANTS[0]) / (mean_a.powi(2) + mean_b.powi(2) + CONSTANTS[0]);
            let covariance = product - mean_a * mean_b;
            sum += luminance * (2.0 * covariance + CONSTANTS[1]) / (variance_a + variance_b + CONSTANTS[1]);
        }
    }
    sum / ((height - SIDE + 1) * (width - SIDE + 1)) as f64
}

fn same_length(lengths: &[usize]) {
    assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "pictures of different sizes: {lengths:?} pixels");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_count_where_they_are_counted() {
        let found = mean_square(&[0.0, 0.5, 1.0], &[1.0, 0.0, 1.0], &[0.0, 1.0, 1.0]);
        assert!((found - 0.125).abs() < 1e-12);
        assert!((psnr(0.01) - 20.0).abs() < 1e-12);
        assert!(mean_square(&[1.0], &[0.0], &[0.0]).is_nan());
    }

    #[test]
    fn masks_by_hand() {
        let [a, b] = [[true, true, false, false], [false, true, true, false]];
        assert!((intersection_over_union(&a, &b) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(intersection_over_union(&[false], &[false]), 1.0);
        // Of the two pixels that one alone owns the first is given to the right one, the third to neither.
        let found = ink_assignment([&[0.9, 0.0, 0.5, 0.0], &[0.1, 0.0, 0.5, 0.0]], [&a, &b]);
        assert!((found - 0.75).abs() < 1e-12);
    }

    #[test]
    fn the_greatest_number_points() {
        let truth = [false, false, false, false, true, false];
        assert!(points_at(&[0.0, 0.0, 0.0, 0.0, 1.0, 0.0], &truth, 3, 0));
        assert!(!points_at(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0], &truth, 3, 0));
        assert!(points_at(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0], &truth, 3, 1));
    }

    #[test]
    fn a_picture_is_like_itself_and_unlike_its_negative() {
        let picture = (0..64).map(|pixel| (pixel * 37 % 64) as f32 / 64.0).collect::<Vec<_>>();
        let negative = picture.iter().map(|pixel| 1.0 - pixel).collect::<Vec<_>>();
        assert!((ssim(&picture, &picture, 8) - 1.0).abs() < 1e-12);
        assert!(ssim(&picture, &negative, 8) < 0.0);
        // Two even pictures differ in luminance alone.
        let expected = (2.0 * 0.25 * 0.75 + 0.0001) / (0.0625 + 0.5625 + 0.0001);
        assert!((ssim(&[0.25; 64], &[0.75; 64], 8) - expected).abs() < 1e-6);
    }
}
