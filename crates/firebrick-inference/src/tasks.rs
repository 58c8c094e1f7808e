//! What is done to pictures before they are to be explained: occluders, overlays, blends.

use burn::tensor::{Device, Tensor, TensorData};
use firebrick_types::Seed;
use rand::Rng;

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
