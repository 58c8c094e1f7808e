//! Picture files, as a classifier reads them and as a person looks at them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor, TensorData};
use firebrick_vision::images::Picture;
use image::{GrayImage, RgbImage};

/// A picture of this height, width and number of channels, `[1, height, width, channels]`, numbers from 0 to 1, over a background; and
/// whether it has transparent pixels.
///
/// # Errors
/// If it cannot be read, is of another size, or shows something in its alpha channel alone.
pub(crate) fn read(
    path: &Path,
    [height, width, channels]: [usize; 3],
    background: u8,
    device: &Device,
) -> Result<(Tensor<4>, bool)> {
    let found = Picture::read(path, background)?;
    let size = found.size();
    if size != [height, width] {
        bail!(
            "{} is {} pixels high and {} wide, the model reads {height} x {width}; scale or cut it to that size first",
            path.display(),
            size[0],
            size[1]
        );
    }
    let composited = found.composited;
    let bytes = match channels {
        1 => found.into_gray(),
        3 => found.into_rgb(),
        other => bail!("the model reads pictures of {other} channels; files have 1 or 3"),
    };
    let numbers = bytes.into_iter().map(|byte| f32::from(byte) / 255.0).collect::<Vec<_>>();
    Ok((Tensor::from_data(TensorData::new(numbers, [1, height, width, channels]), device), composited))
}

/// Writes a picture `[1, height, width, channels]`, one channel as grey, three as colours; the name's ending says the format.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(path: &Path, picture: Tensor<4>) -> Result<()> {
    let [_, height, width, channels] = picture.dims();
    let data = picture.into_data();
    let bytes = data.iter::<f32>().map(|number| (255.0 * number.clamp(0.0, 1.0)).round() as u8).collect::<Vec<_>>();
    let [height, width] = [height, width].map(|side| side as u32);
    let saved = if channels == 3 {
        RgbImage::from_raw(width, height, bytes).expect("three bytes of each pixel").save(path)
    } else {
        GrayImage::from_raw(width, height, bytes).expect("a byte of each pixel").save(path)
    };
    saved.with_context(|| format!("cannot write {}; its name ends in .png or .jpg", path.display()))
}

/// A map of signed numbers as a picture of the same size: red where they are positive, blue where negative, the greatest brightest.
pub(crate) fn heat(map: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, _] = map.dims();
    let sums = map.sum_dim(3);
    let most = sums.clone().abs().max().into_scalar::<f32>().max(f32::MIN_POSITIVE);
    let positive = sums.clone().clamp_min(0.0) / most;
    let negative = sums.neg().clamp_min(0.0) / most;
    let green = Tensor::zeros([batch, height, width, 1], &positive.device());
    Tensor::cat(vec![positive, green, negative], 3)
}

/// A map of fewer places as one of this size, between neighbours by bilinear interpolation.
pub(crate) fn stretched(map: Tensor<4>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [_, rows, columns, _] = map.dims();
    let device = map.device();
    let numbers = map.into_data().iter::<f32>().collect::<Vec<_>>();
    let buffer = image::ImageBuffer::<image::Luma<f32>, _>::from_raw(columns as u32, rows as u32, numbers);
    let buffer = buffer.expect("a number of each place");
    let wide = image::imageops::resize(&buffer, width as u32, height as u32, image::imageops::FilterType::Triangle);
    Tensor::from_data(TensorData::new(wide.into_raw(), [1, height, width, 1]), &device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::flex();
        for (name, channels) in [("grey.png", 1), ("colours.png", 3)] {
            let numbers = (0..4 * 5 * channels).map(|index| (index % 52) as f32 / 51.0).collect::<Vec<_>>();
            let picture = Tensor::<4>::from_data(TensorData::new(numbers.clone(), [1, 4, 5, channels]), &device);
            let path = dir.path().join(name);
            write(&path, picture).unwrap();
            let (found, composited) = read(&path, [4, 5, channels], 0, &device).unwrap();
            let found = found.into_data();
            let near = found.iter::<f32>().zip(&numbers).all(|(found, number)| (found - number).abs() < 1e-6);
            assert!(near && !composited, "{name}");
            let wrong = read(&path, [5, 4, channels], 0, &device).unwrap_err().to_string();
            assert!(wrong.contains("is 4 pixels high and 5 wide, the model reads 5 x 4"), "{wrong}");
        }
        let none = dir.path().join("none.png");
        std::fs::write(&none, "no picture").unwrap();
        assert!(read(&none, [4, 5, 1], 0, &device).unwrap_err().to_string().contains("cannot be read as a PNG"));
    }

    #[test]
    fn maps_are_red_where_positive_and_blue_where_negative() {
        let map = Tensor::<4>::from_floats([[[[2.0]], [[-1.0]], [[0.0]]]], &Device::flex());
        let found = heat(map).into_data().iter::<f32>().collect::<Vec<_>>();
        assert_eq!(found, [1.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]);
        let map = Tensor::<4>::from_floats([[[[0.25], [0.25]], [[0.25], [0.25]]]], &Device::flex());
        let wide = stretched(map, [6, 4]);
        assert_eq!(wide.dims(), [1, 6, 4, 1]);
        assert!(wide.into_data().iter::<f32>().all(|number| (number - 0.25).abs() < 1e-6));
    }
}
