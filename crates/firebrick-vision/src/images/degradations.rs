//! What is done to pictures before they are to be explained: occluders, overlays, blends.

use burn::tensor::{Device, Tensor, TensorData};
use firebrick_types::Seed;
use rand::RngExt;

/// A family of masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occluder {
    /// A square of so many pixels on each side, somewhere near the middle.
    Square(usize),
    /// One half: upper, lower, left or right.
    Half,
    /// Bars of three pixels every six, standing or lying.
    Bars,
    /// Three quarters of the pixels, each by itself.
    Drop,
}

impl Occluder {
    /// The families that completion is measured with.
    pub const ALL: [Self; 6] =
        [Self::Square(8), Self::Square(12), Self::Square(16), Self::Half, Self::Bars, Self::Drop];

    /// Its name in tables.
    pub fn name(self) -> String {
        match self {
            Self::Square(size) => format!("{size}x{size}"),
            Self::Half => "half".to_owned(),
            Self::Bars => "bars".to_owned(),
            Self::Drop => "drop75".to_owned(),
        }
    }

    /// The mask of one picture: whether each pixel is seen, row after row.
    ///
    /// # Panics
    /// If a square is larger than the picture.
    pub fn mask(self, height: usize, width: usize, seed: Seed) -> Vec<bool> {
        let mut rng = seed.derive("occluder").rng();
        let mut near_middle = |length: usize, size: usize| {
            let middle = (length - size) / 2;
            let reach = middle.min(4);
            rng.random_range(middle - reach..=middle + reach)
        };
        let mask = |seen: &dyn Fn(usize, usize) -> bool| {
            (0..height * width).map(|pixel| seen(pixel / width, pixel % width)).collect()
        };
        match self {
            Self::Square(size) => {
                assert!(size <= height.min(width), "a square of {size} in {height} x {width}");
                let (top, left) = (near_middle(height, size), near_middle(width, size));
                mask(&|row, column| !((top..top + size).contains(&row) && (left..left + size).contains(&column)))
            }
            Self::Half => {
                let side = rng.random_range(0..4);
                mask(&|row, column| match side {
                    0 => row >= height / 2,
                    1 => row < height / 2,
                    2 => column >= width / 2,
                    _ => column < width / 2,
                })
            }
            Self::Bars => {
                let (lie, first) = (rng.random_bool(0.5), rng.random_range(0..6));
                mask(&|row, column| (if lie { row } else { column } + first) % 6 >= 3)
            }
            Self::Drop => (0..height * width).map(|_| rng.random_bool(0.25)).collect(),
        }
    }

    /// The masks of some pictures, each of its own seed, `[batch, height, width, 1]`: 1 where a pixel is seen.
    ///
    /// # Panics
    /// As [`mask`](Self::mask).
    pub fn masks(self, height: usize, width: usize, seeds: &[Seed], device: &Device) -> Tensor<4> {
        let seen = seeds.iter().flat_map(|&seed| self.mask(height, width, seed));
        let seen = seen.map(|seen| f32::from(u8::from(seen))).collect::<Vec<_>>();
        Tensor::from_data(TensorData::new(seen, [seeds.len(), height, width, 1]), device)
    }
}

/// What lies over a square of a picture, where nobody says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// An even gray.
    Gray,
    /// Each pixel of any brightness.
    Noise,
    /// A piece of another picture.
    Debris,
}

impl Cover {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gray, Self::Noise, Self::Debris];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gray => "gray",
            Self::Noise => "noise",
            Self::Debris => "debris",
        }
    }

    /// The pictures with a square of `size` pixels covered, each of its own seed, and 1 where they are not, `[batch, height, width, 1]`.
    ///
    /// # Shapes
    /// - `images`, `others`: `[batch, height, width, channels]`; pieces are of `others`
    ///
    /// # Panics
    /// If there is not one seed of each picture, or the square is larger than the picture.
    pub fn apply(self, images: &Tensor<4>, others: &Tensor<4>, size: usize, seeds: &[Seed]) -> (Tensor<4>, Tensor<4>) {
        let ([_, height, width, channels], device) = (images.dims(), images.device());
        let visible = Occluder::Square(size).masks(height, width, seeds, &device);
        let over = match self {
            Self::Gray => images.zeros_like() + 0.5,
            Self::Noise => uniform(seeds, [height, width, channels], &device),
            Self::Debris => others.clone(),
        };
        (images.clone() * visible.clone() + over * (visible.clone().neg() + 1.0), visible)
    }
}

/// Numbers from 0 to 1, of each seed its own.
fn uniform(seeds: &[Seed], [height, width, channels]: [usize; 3], device: &Device) -> Tensor<4> {
    let numbers = seeds.iter().flat_map(|seed| {
        let mut rng = seed.derive("uniform").rng();
        (0..height * width * channels).map(move |_| rng.random::<f32>())
    });
    let numbers = numbers.collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(numbers, [seeds.len(), height, width, channels]), device)
}

/// Several pictures on a larger one, the brighter before the darker.
#[derive(Clone, Debug)]
pub struct Clutter {
    /// `[1, side, side, channels]`
    pub canvas: Tensor<4>,
    /// Which picture lies where: its place among those that were given, and the row and column of its upper left corner.
    pub placed: Vec<(usize, [usize; 2])>,
}

impl Clutter {
    /// The pictures, laid somewhere on a canvas so that their middles are `apart` pixels or more from each other, in rows or columns. Those
    /// for which no place is found in many tries are left out.
    ///
    /// # Shapes
    /// - `pictures`: `[count, height, width, channels]`
    ///
    /// # Panics
    /// If the canvas is smaller than a picture.
    pub fn scatter(pictures: &Tensor<4>, side: usize, apart: usize, seed: Seed) -> Self {
        const TRIES: usize = 200;
        let ([count, height, width, channels], device) = (pictures.dims(), pictures.device());
        assert!(side >= height && side >= width, "pictures of {height} x {width} on a canvas of {side}");
        let mut rng = seed.derive("clutter").rng();
        let mut placed: Vec<(usize, [usize; 2])> = Vec::new();
        let mut canvas = Tensor::zeros([1, side, side, channels], &device);
        for index in 0..count {
            let place = (0..TRIES).map(|_| [rng.random_range(0..=side - height), rng.random_range(0..=side - width)]);
            let free = |place: &[usize; 2]| {
                placed.iter().all(|(_, other)| (0..2).any(|axis| place[axis].abs_diff(other[axis]) >= apart))
            };
            let Some([top, left]) = place.into_iter().find(free) else { continue };
            let picture = pictures.clone().slice([index..index + 1, 0..height, 0..width, 0..channels]);
            let part = [0..1, top..top + height, left..left + width, 0..channels];
            let both = canvas.clone().slice(part.clone()).max_pair(picture);
            canvas = canvas.slice_assign(part, both);
            placed.push((index, [top, left]));
        }
        Self { canvas, placed }
    }
}

/// What is wrong with a picture all over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// A quarter of the pixels black or white.
    Impulse,
    /// Normal numbers of deviation 0.3 added.
    Gaussian,
    /// The mean of 5 x 5 pixels.
    Blur,
}

impl Corruption {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Impulse, Self::Gaussian, Self::Blur];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Impulse => "impulse",
            Self::Gaussian => "gaussian",
            Self::Blur => "blur",
        }
    }

    /// The pictures so corrupted, each of its own seed.
    ///
    /// # Panics
    /// If there is not one seed of each picture.
    pub fn apply(self, images: &Tensor<4>, seeds: &[Seed]) -> Tensor<4> {
        const SIDE: usize = 5;
        let ([batch, height, width, channels], device) = (images.dims(), images.device());
        let drawn = |name| {
            let seeds = seeds.iter().map(|seed| seed.derive(name)).collect::<Vec<_>>();
            uniform(&seeds, [height, width, channels], &device)
        };
        match self {
            Self::Impulse => {
                let struck = drawn("struck").lower_elem(0.25);
                images.clone().mask_where(struck, drawn("colour").greater_elem(0.5).float())
            }
            Self::Gaussian => {
                // Box and Muller's normal numbers.
                let radius = (drawn("radius").clamp_min(1e-7).log() * -2.0).sqrt();
                let normal = radius * (drawn("angle") * std::f64::consts::TAU).cos();
                (images.clone() + normal * 0.3).clamp(0.0, 1.0)
            }
            Self::Blur => {
                let reach = SIDE / 2;
                let rows = Tensor::zeros([batch, reach, width, channels], &device);
                let x = Tensor::cat(vec![rows.clone(), images.clone(), rows], 1);
                let columns = Tensor::zeros([batch, height + 2 * reach, reach, channels], &device);
                let x = Tensor::cat(vec![columns.clone(), x, columns], 2);
                let part = |place: usize| {
                    let (row, column) = (place / SIDE, place % SIDE);
                    x.clone().slice([0..batch, row..row + height, column..column + width, 0..channels])
                };
                let sum = (1..SIDE * SIDE).fold(part(0), |sum, place| sum + part(place));
                sum / (SIDE * SIDE) as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_hide_what_their_names_say() {
        for index in 0..20 {
            let seed = Seed::new(1).at(&[index]);
            let hidden = |occluder: Occluder| {
                let mask = occluder.mask(28, 28, seed);
                assert_eq!(mask, occluder.mask(28, 28, seed));
                mask.iter().filter(|seen| !**seen).count()
            };
            assert_eq!([8, 12, 16, 28].map(|size| hidden(Occluder::Square(size))), [64, 144, 256, 784]);
            assert_eq!(hidden(Occluder::Half), 392);
            assert!([14, 13, 15].map(|bars| bars * 28).contains(&hidden(Occluder::Bars)));
            assert!((480..700).contains(&hidden(Occluder::Drop)));
        }
        let names = Occluder::ALL.map(Occluder::name);
        assert_eq!(names, ["8x8", "12x12", "16x16", "half", "bars", "drop75"]);
    }

    #[test]
    fn masks_of_a_batch_are_those_of_its_pictures() {
        let seeds = [Seed::new(1), Seed::new(2)];
        let masks = Occluder::Bars.masks(6, 9, &seeds, &Device::flex()).into_data();
        let expected = seeds.iter().flat_map(|&seed| Occluder::Bars.mask(6, 9, seed));
        assert_eq!(masks.iter::<f32>().map(|seen| seen == 1.0).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}
