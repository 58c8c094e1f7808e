//! Which two labels lie over each other, by the images that are remembered?

use firebrick_tensor::indices;

use crate::Error;
use crate::generative::evidence::Evidence;
use crate::generative::exemplars::{Exemplars, flat, least, sum};
use crate::generative::passes::Composition;

/// The labels of the two remembered images, of two classes, that make each picture best together; where one label of each picture is
/// known, it is the first.
///
/// ```text
/// argmin Σ_seen (compose(a, b) − x)²        a, b: of the images of each class with the least
/// Σ_seen (min_u (compose(a, u) − x)² + ¼ (compose(a, 0) − x)²)        0 ≤ u ≤ 1
/// ```
///
/// So an image is asked if something else may lie over it, and it leaves little to that.
///
/// # Errors
/// If no image of a known label is remembered, or of no two classes.
///
/// # Panics
/// If the images are of another size, or there is not one known label of each picture.
pub fn overlapping_labels(
    exemplars: &Exemplars,
    evidence: &Evidence,
    compose: Composition,
    known: Option<&[usize]>,
) -> Result<[Vec<usize>; 2], Error> {
    let [batch, ..] = evidence.images.dims();
    let [_, pixels] = exemplars.rows.dims();
    let remembered = |class: &usize| exemplars.classes.get(*class).is_some_and(|images| !images.is_empty());
    if let Some(known) = known {
        assert_eq!(known.len(), batch, "one known label of each picture");
        if let Some(&class) = known.iter().find(|class| !remembered(class)) {
            return Err(Error::EmptyClass { class });
        }
    }
    let classes = (0..exemplars.classes.len()).filter(remembered).collect::<Vec<_>>();
    if classes.len() < 2 {
        let class = (0..).find(|class| !remembered(class)).expect("there are as many as one likes");
        return Err(Error::EmptyClass { class });
    }
    let [seen, visible] = flat(evidence).map(|x| x.into_data().iter::<f32>().collect::<Vec<_>>());
    assert_eq!(seen.len(), batch * pixels, "pixels of pictures of the remembered size");
    let pictures = seen.chunks_exact(pixels).zip(visible.chunks_exact(pixels));
    let pictures = pictures.map(|(x, seen)| Picture { x, seen }).collect::<Vec<_>>();
    // Of each picture the pairs that may be.
    let pairs = |picture: usize| {
        let pairs = classes.iter().flat_map(|&first| classes.iter().map(move |&second| [first, second]));
        let asked = pairs.filter(|&[first, second]| match known {
            Some(known) => first == known[picture] && first != second,
            None => first < second,
        });
        asked.collect::<Vec<_>>()
    };
    let found = match compose {
        Composition::Max => best_pairs(exemplars, &pictures, |a, b| if a > b { a } else { b }, pairs),
        Composition::Mean => best_pairs(exemplars, &pictures, |a, b| (a + b) / 2.0, pairs),
        Composition::Sum => best_pairs(exemplars, &pictures, |a, b| a + b, pairs),
        Composition::Over => best_pairs(exemplars, &pictures, |a, b| a + (1.0 - a) * b, pairs),
    };
    Ok([0, 1].map(|side| found.iter().map(|pair| pair[side]).collect()))
}

fn best_pairs(
    exemplars: &Exemplars,
    pictures: &[Picture<'_>],
    compose: impl Fn(f32, f32) -> f32,
    pairs: impl Fn(usize) -> Vec<[usize; 2]>,
) -> Vec<[usize; 2]> {
    /// Images of each class that are asked.
    const ASKED: usize = 60;
    let [_, pixels] = exemplars.rows.dims();
    // Of each picture, of each class, the pixels of those images.
    let mut asked = vec![Vec::with_capacity(exemplars.classes.len()); pictures.len()];
    for of_class in &exemplars.classes {
        let rows = exemplars.rows.clone().select(0, indices(of_class, &exemplars.rows.device()));
        let rows = rows.into_data().iter::<f32>().collect::<Vec<_>>();
        for (picture, asked) in pictures.iter().zip(&mut asked) {
            let cost = rows.chunks_exact(pixels).map(|image| picture.left_by(image, &compose)).collect::<Vec<_>>();
            let chosen = least(&cost, &(0..of_class.len()).collect::<Vec<_>>(), ASKED);
            let chosen = chosen.iter().flat_map(|&image| &rows[image * pixels..][..pixels]);
            asked.push(chosen.copied().collect::<Vec<_>>());
        }
    }
    let best = |(index, (picture, asked)): (usize, (&Picture<'_>, &Vec<Vec<f32>>))| {
        let pairs = pairs(index);
        let mut best = (f32::INFINITY, pairs[0]);
        for [first, second] in pairs {
            let misfit = picture.least_misfit([&asked[first], &asked[second]], &compose, best.0);
            if misfit < best.0 {
                best = (misfit, [first, second]);
            }
        }
        best.1
    };
    pictures.iter().zip(&asked).enumerate().map(best).collect()
}

/// A picture of which some pixels are seen.
struct Picture<'a> {
    x: &'a [f32],
    /// 1 where a pixel is seen, else 0.
    seen: &'a [f32],
}

impl Picture<'_> {
    /// What an image leaves of the picture, something else over it or nothing.
    fn left_by(&self, image: &[f32], compose: impl Fn(f32, f32) -> f32) -> f32 {
        sum(image, self.x, self.seen, |a, x| {
            let (alone, beside) = (compose(a, 0.0), compose(a, 1.0));
            let nearest = if x < alone { alone } else { x };
            let nearest = if nearest > beside { beside } else { nearest };
            (nearest - x) * (nearest - x) + 0.25 * (alone - x) * (alone - x)
        })
    }

    /// The least square error of an image of the first with one of the second, if it is below `most`.
    fn least_misfit(&self, [first, second]: [&[f32]; 2], compose: impl Fn(f32, f32) -> f32, most: f32) -> f32 {
        /// Pixels after which it is seen whether the error is too great already.
        const LOOKED_AT: usize = 112;
        let each = self.x.len();
        let mut least = most;
        for a in first.chunks_exact(each) {
            for b in second.chunks_exact(each) {
                let mut misfit = 0.0;
                for begin in (0..each).step_by(LOOKED_AT) {
                    let part = begin..each.min(begin + LOOKED_AT);
                    let mut together = [0.0; LOOKED_AT];
                    let pairs = a[part.clone()].iter().zip(&b[part.clone()]);
                    together.iter_mut().zip(pairs).for_each(|(together, (&a, &b))| *together = compose(a, b));
                    misfit +=
                        sum(&together[..part.len()], &self.x[part.clone()], &self.seen[part], |a, x| (a - x) * (a - x));
                    if misfit >= least {
                        break;
                    }
                }
                least = least.min(misfit);
            }
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;

    fn images(pixels: &[[f32; 4]]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(pixels.concat(), [pixels.len(), 2, 2, 1]), &Device::flex())
    }

    /// Two images of class 0, one each of 1 and 3; none of 2.
    fn exemplars() -> Exemplars {
        let known = [[1.0, 0.5, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.9, 0.0, 0.0, 0.8]];
        Exemplars::new(&images(&known), &[0, 0, 1, 3])
    }

    #[test]
    fn remembered_images_tell_the_pair_that_makes_a_picture() {
        let exemplars = exemplars();
        let visible = images(&[[1.0; 4]; 2]);
        let pairs = |pixels: [[f32; 4]; 2], compose, known: Option<&[usize]>| {
            let evidence = Evidence { images: images(&pixels), visible: visible.clone() };
            overlapping_labels(&exemplars, &evidence, compose, known).unwrap()
        };
        // The brighter of the second image of class 0 and that of 3; of the first and that of 1.
        assert_eq!(
            pairs([[0.9, 0.5, 0.0, 0.8], [1.0, 0.5, 1.0, 0.0]], Composition::Max, None),
            [vec![0, 0], vec![3, 1]]
        );
        assert_eq!(pairs([[0.45, 0.0, 0.5, 0.4]; 2], Composition::Mean, None), [vec![1, 1], vec![3, 3]]);
        assert_eq!(pairs([[0.9, 0.0, 1.0, 0.8]; 2], Composition::Sum, None), [vec![1, 1], vec![3, 3]]);
        assert_eq!(pairs([[0.9, 0.05, 1.0, 0.8]; 2], Composition::Over, None), [vec![1, 1], vec![3, 3]]);
        // Where one is known it is the first, though another pair would be better.
        assert_eq!(pairs([[1.0, 0.5, 1.0, 0.0]; 2], Composition::Max, Some(&[3, 1])), [vec![3, 1], vec![1, 0]]);
    }

    #[test]
    fn hidden_pixels_do_not_count() {
        let evidence = Evidence { images: images(&[[0.9, 0.5, 1.0, 0.8]]), visible: images(&[[1.0, 1.0, 0.0, 1.0]]) };
        assert_eq!(overlapping_labels(&exemplars(), &evidence, Composition::Max, None).unwrap(), [vec![0], vec![3]]);
        let evidence = Evidence { images: images(&[[0.9, 0.5, f32::NAN, 0.8]]), ..evidence };
        assert_eq!(overlapping_labels(&exemplars(), &evidence, Composition::Max, None).unwrap(), [vec![0], vec![3]]);
    }

    #[test]
    #[should_panic(expected = "pixels of pictures of the remembered size")]
    fn pictures_of_another_size_are_refused() {
        let images = Tensor::zeros([1, 1, 2, 1], &Device::flex());
        overlapping_labels(&exemplars(), &Evidence { visible: images.ones_like(), images }, Composition::Max, None)
            .unwrap();
    }

    #[test]
    fn a_class_that_nobody_remembers_is_told() {
        let evidence = Evidence { images: images(&[[0.0; 4]]), visible: images(&[[1.0; 4]]) };
        for class in [2, 7] {
            let told = overlapping_labels(&exemplars(), &evidence, Composition::Max, Some(&[class])).unwrap_err();
            assert_eq!(told.to_string(), format!("no image of class {class} to learn it from"));
        }
        let one = Exemplars::new(&images(&[[0.0; 4]]), &[0]);
        assert!(matches!(
            overlapping_labels(&one, &evidence, Composition::Max, None),
            Err(Error::EmptyClass { class: 1 })
        ));
    }
}
