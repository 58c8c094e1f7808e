//! Labelled images.

use burn::tensor::{Device, Tensor, TensorData};

/// Images of one size, each of a class, as the bytes of files.
///
/// ```
/// use firebrick_vision::images::Images;
///
/// let mut images = Images::new([2, 2, 1]);
/// images.push(&[0, 255, 0, 0], 7);
/// assert_eq!(images.shifted(0, 1, 0), [0, 0, 0, 255]);
/// assert_eq!((images.len(), images.classes()), (1, 8));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    size: [usize; 3],
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Images {
    /// None yet, of this height, width and number of channels.
    ///
    /// # Panics
    /// If there are no pixels.
    pub fn new(size: [usize; 3]) -> Self {
        assert!(!size.contains(&0), "images of {size:?} have no pixels");
        Self { size, pixels: Vec::new(), labels: Vec::new() }
    }

    /// Those of the bytes, image after image, row after row, the channels of a pixel side by side.
    ///
    /// # Panics
    /// If there are no pixels, or they are not one image of each label.
    pub fn of(size: [usize; 3], pixels: Vec<u8>, labels: Vec<u8>) -> Self {
        let images = Self { size, pixels, labels };
        assert_eq!(images.pixels.len(), images.len() * images.each(), "pixels of {} images of {size:?}", images.len());
        assert!(images.each() > 0, "images of {size:?} have no pixels");
        images
    }

    /// Adds an image.
    ///
    /// # Panics
    /// If it is of another size.
    pub fn push(&mut self, image: &[u8], label: u8) {
        assert_eq!(image.len(), self.each(), "an image of {:?}", self.size);
        self.pixels.extend_from_slice(image);
        self.labels.push(label);
    }

    /// Height, width and channels.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    /// Bytes of an image.
    fn each(&self) -> usize {
        self.size.iter().product()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The classes, one of each image.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// One more than the greatest class, 0 of none.
    pub fn classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |&label| usize::from(label) + 1)
    }

    /// An image, row after row.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.each()..][..self.each()]
    }

    /// An image moved down and to the right by so many pixels; what comes in is 0.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn shifted(&self, index: usize, down: isize, right: isize) -> Vec<u8> {
        let [height, width, channels] = self.size;
        let image = self.image(index);
        let mut shifted = vec![0; image.len()];
        let from = |to: usize, by: isize, length: usize| to.checked_add_signed(-by).filter(|from| *from < length);
        for row in 0..height {
            let Some(from_row) = from(row, down, height) else { continue };
            for column in 0..width {
                let Some(from_column) = from(column, right, width) else { continue };
                let to = &mut shifted[(row * width + column) * channels..][..channels];
                to.copy_from_slice(&image[(from_row * width + from_column) * channels..][..channels]);
            }
        }
        shifted
    }

    /// Those of these indices.
    ///
    /// # Panics
    /// If there is no such image.
    #[must_use]
    pub fn chosen(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let mut chosen = Self::new(self.size);
        indices.into_iter().for_each(|index| chosen.push(self.image(index), self.labels[index]));
        chosen
    }
}

/// Pixels of bytes as numbers from 0 to 1, `[batch, height, width, channels]`.
///
/// # Panics
/// If the pixels are not whole images.
pub fn pixels(bytes: &[u8], [height, width, channels]: [usize; 3], device: &Device) -> Tensor<4> {
    let batch = bytes.len() / (height * width * channels);
    let values = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(values, [batch, height, width, channels]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_move_pixels_with_their_channels_and_lose_what_leaves() {
        let images = Images::of([2, 3, 2], (1..=12).collect(), vec![0]);
        assert_eq!(images.shifted(0, 0, 0), images.image(0));
        assert_eq!(images.shifted(0, 0, -1), [3, 4, 5, 6, 0, 0, 9, 10, 11, 12, 0, 0]);
        assert_eq!(images.shifted(0, 1, 1), [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(images.shifted(0, 2, 0), [0; 12]);
        assert_eq!(images.shifted(0, -5, 9), [0; 12]);
    }

    #[test]
    fn chosen_images_keep_their_labels() {
        let images = Images::of([1, 2, 1], vec![1, 2, 3, 4, 5, 6], vec![9, 8, 7]);
        let chosen = images.chosen([2, 0]);
        assert_eq!((chosen.image(0), chosen.image(1), chosen.labels()), (&[5, 6][..], &[1, 2][..], &[7, 9][..]));
        assert_eq!((images.classes(), Images::new([1, 1, 1]).classes()), (10, 0));
    }

    #[test]
    #[should_panic(expected = "pixels of 2 images of [1, 2, 1]")]
    fn pixels_of_another_count_are_refused() {
        Images::of([1, 2, 1], vec![0; 3], vec![0; 2]);
    }
}
