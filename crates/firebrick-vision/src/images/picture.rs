//! Pictures of PNG and JPEG files: upright, and without transparency.

use std::io::Cursor;
use std::path::Path;

use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageReader, Limits, RgbImage};

use super::file;
use crate::Error;

/// The most pixels on a side.
const MAX_SIDE: u32 = 8192;
/// The most bytes of a file, and of its pixels.
const MAX_BYTES: u64 = 256 << 20;

/// A picture as a person sees it: turned as its EXIF orientation says, its transparent pixels over a background.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    image: DynamicImage,
    /// Whether some of its pixels are not opaque in the file: they lie over the background.
    pub composited: bool,
}

/// Why bytes are no picture that shows something.
pub(super) enum Unreadable {
    /// They cannot be decoded.
    Format(image::ImageError),
    /// Every pixel is of this value over the background.
    OnlyAlpha { value: u8 },
}

impl Picture {
    /// The picture of a PNG or JPEG file over a background of this gray.
    ///
    /// ```text
    /// x = α c + (1 − α) background          of the values that the file holds, which are not linear in light
    /// ```
    ///
    /// # Errors
    /// If the file cannot be read or is no such file, or all that it shows is in its alpha channel: over the background every pixel is the
    /// same.
    pub fn read(path: &Path, background: u8) -> Result<Self, Error> {
        Self::decode(&file::read(path, MAX_BYTES)?, background).map_err(|error| match error {
            Unreadable::Format(source) => Error::Picture { path: path.into(), source },
            Unreadable::OnlyAlpha { value } => Error::OnlyAlpha { path: path.into(), value, background },
        })
    }

    pub(super) fn decode(bytes: &[u8], background: u8) -> Result<Self, Unreadable> {
        let decode = || {
            let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
            let mut limits = Limits::default();
            (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
            limits.max_alloc = Some(MAX_BYTES);
            reader.limits(limits);
            let mut decoder = reader.into_decoder()?;
            let orientation = decoder.orientation()?;
            let mut image = DynamicImage::from_decoder(decoder)?;
            image.apply_orientation(orientation);
            Ok(image)
        };
        let image: DynamicImage = decode().map_err(Unreadable::Format)?;
        if !image.color().has_alpha() {
            return Ok(Self { image, composited: false });
        }
        let composited = (image.to_luma_alpha16().pixels()).any(|pixel| pixel.0[1] < u16::MAX);
        let image = over(&image, background);
        let mut values = image.as_bytes().iter();
        match values.next() {
            Some(&value) if composited && values.all(|other| *other == value) => Err(Unreadable::OnlyAlpha { value }),
            _ => Ok(Self { image, composited }),
        }
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.image.height(), self.image.width()].map(|side| side as usize)
    }

    /// Whether every pixel is gray, be it in three equal colours.
    pub fn is_gray(&self) -> bool {
        let gray = |pixel: &image::Rgb<u8>| pixel.0.iter().all(|part| *part == pixel.0[0]);
        !self.image.color().has_color() || self.image.to_rgb8().pixels().all(gray)
    }

    /// A byte of every pixel, row after row: its luma where it has colours.
    pub fn into_gray(self) -> Vec<u8> {
        self.image.into_luma8().into_raw()
    }

    /// Three bytes of every pixel, row after row.
    pub fn into_rgb(self) -> Vec<u8> {
        self.image.into_rgb8().into_raw()
    }
}

/// The colours of a picture over a background.
fn over(image: &DynamicImage, background: u8) -> DynamicImage {
    let blend = |color: u8, alpha: u8| {
        let [color, alpha, below] = [color, alpha, background].map(u32::from);
        ((color * alpha + below * (255 - alpha) + 127) / 255) as u8
    };
    let (width, height) = (image.width(), image.height());
    match image.color() {
        ColorType::La8 | ColorType::La16 => {
            let pixels = image.to_luma_alpha8().pixels().map(|pixel| blend(pixel.0[0], pixel.0[1])).collect();
            GrayImage::from_raw(width, height, pixels).expect("a byte of each pixel").into()
        }
        _ => {
            let colors = |pixel: &image::Rgba<u8>| [0, 1, 2].map(|part| blend(pixel.0[part], pixel.0[3]));
            let pixels = image.to_rgba8().pixels().flat_map(colors).collect();
            RgbImage::from_raw(width, height, pixels).expect("three bytes of each pixel").into()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    /// A PNG file of these pixels.
    pub(crate) fn png(pixels: &[u8], width: u32, color: ExtendedColorType) -> Vec<u8> {
        let mut bytes = Vec::new();
        let height = pixels.len() as u32 * 8 / u32::from(color.bits_per_pixel()) / width;
        PngEncoder::new(&mut bytes).write_image(pixels, width, height, color).unwrap();
        bytes
    }

    /// The EXIF block of an orientation: a big-endian TIFF directory with the one entry 0x0112, a short.
    fn exif(orientation: u8) -> Vec<u8> {
        let entry = [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0];
        [&b"MM\0*\0\0\0\x08\0\x01"[..], &entry, &[0; 4]].concat()
    }

    fn gray(bytes: &[u8], background: u8) -> (Vec<u8>, bool) {
        let picture = Picture::decode(bytes, background).unwrap_or_else(|_| panic!("a picture"));
        (picture.clone().into_gray(), picture.composited)
    }

    #[test]
    fn transparent_pixels_lie_over_the_background() {
        // 200 · 128/255 + b · 127/255: 100.39 over black, 227.39 over white, 150.2 over 100.
        let pixels = [9, 0, 200, 128, 70, 255, 0, 255];
        let mixed = png(&pixels, 2, ExtendedColorType::La8);
        assert_eq!(gray(&mixed, 0), (vec![0, 100, 70, 0], true));
        assert_eq!(gray(&mixed, 255), (vec![255, 227, 70, 0], true));
        assert_eq!(gray(&mixed, 100), (vec![100, 150, 70, 0], true));
        // Colours keep theirs, whatever stands below what cannot be seen; 16 bits are as good as 8.
        let colors = png(&[255, 0, 10, 255, 1, 2, 3, 0], 1, ExtendedColorType::Rgba8);
        let picture = Picture::decode(&colors, 30).unwrap_or_else(|_| panic!("a picture"));
        assert!(!picture.is_gray() && picture.composited);
        assert_eq!(picture.into_rgb(), [255, 0, 10, 30, 30, 30]);
        let wide = pixels.iter().flat_map(|&byte| (u16::from(byte) * 257).to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(gray(&png(&wide, 2, ExtendedColorType::La16), 0), (vec![0, 100, 70, 0], true));
    }

    #[test]
    fn what_is_opaque_is_left_alone() {
        let opaque = png(&[9, 255, 9, 255], 2, ExtendedColorType::La8);
        assert_eq!(gray(&opaque, 77), (vec![9, 9], false));
        assert_eq!(gray(&png(&[5, 5], 1, ExtendedColorType::L8), 77), (vec![5, 5], false));
    }

    #[test]
    fn what_only_alpha_shows_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ink.png");
        // Black ink on nothing, as drawing programs save it.
        std::fs::write(&path, png(&[0, 255, 0, 0, 0, 0, 0, 128], 2, ExtendedColorType::La8)).unwrap();
        let told = Picture::read(&path, 0).unwrap_err().to_string();
        assert!(told.contains("ink.png: every pixel is 0") && told.contains("alpha"), "{told}");
        assert!(told.contains("`--background`"), "{told}");
        assert_eq!(Picture::read(&path, 255).unwrap().into_gray(), [0, 255, 255, 127]);
        std::fs::write(&path, "no picture").unwrap();
        assert!(Picture::read(&path, 0).unwrap_err().to_string().contains("cannot be read as a PNG or JPEG picture"));
    }

    /// Of 2 x 3 pixels `ab/cd/ef` as they lie in the file, as each orientation of EXIF shows them.
    #[test]
    fn pictures_are_turned_as_their_exif_says() {
        let (a, b, c, d, e, f) = (0, 50, 100, 150, 200, 250);
        let turned: [(u8, [usize; 2], [u8; 6]); 8] = [
            (1, [3, 2], [a, b, c, d, e, f]),
            (2, [3, 2], [b, a, d, c, f, e]),
            (3, [3, 2], [f, e, d, c, b, a]),
            (4, [3, 2], [e, f, c, d, a, b]),
            (5, [2, 3], [a, c, e, b, d, f]),
            (6, [2, 3], [e, c, a, f, d, b]),
            (7, [2, 3], [f, d, b, e, c, a]),
            (8, [2, 3], [b, d, f, a, c, e]),
        ];
        // JPEG keeps blocks of 8 x 8 of one value exactly, but for rounding.
        let block = |place: usize| [a, b, c, d, e, f][place / 128 * 2 + place % 16 / 8];
        let blocks = (0..24 * 16).map(block).collect::<Vec<_>>();
        for (orientation, size, expected) in turned {
            let mut bytes = Vec::new();
            let mut encoder = PngEncoder::new(&mut bytes);
            encoder.set_exif_metadata(exif(orientation)).unwrap();
            encoder.write_image(&[a, b, c, d, e, f], 2, 3, ExtendedColorType::L8).unwrap();
            let picture = Picture::decode(&bytes, 0).unwrap_or_else(|_| panic!("a picture"));
            assert_eq!((picture.size(), picture.into_gray()), (size, expected.to_vec()), "PNG, {orientation}");

            let mut bytes = Vec::new();
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
            encoder.set_exif_metadata(exif(orientation)).unwrap();
            encoder.write_image(&blocks, 16, 24, ExtendedColorType::L8).unwrap();
            let picture = Picture::decode(&bytes, 0).unwrap_or_else(|_| panic!("a picture"));
            assert_eq!(picture.size(), size.map(|side| 8 * side), "JPEG, {orientation}");
            let (found, width) = (picture.into_gray(), 8 * size[1]);
            for (place, expected) in expected.into_iter().enumerate() {
                let found = found[(8 * (place / size[1]) + 4) * width + 8 * (place % size[1]) + 4];
                assert!(found.abs_diff(expected) <= 2, "JPEG, {orientation}: {found} for {expected}");
            }
        }
    }
}
