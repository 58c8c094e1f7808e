//! Labelled images in IDX files, as MNIST and Fashion-MNIST have them.
//!
//! A file begins with two bytes of 0, the kind of its numbers (8: bytes), the count of its dimensions, and each dimension as four
//! bytes, the most significant first; the numbers follow.

use std::path::{Path, PathBuf};

use firebrick_types::Images;

use crate::{Error, file};

/// The most that a file of images may hold once decompressed, in bytes.
const MAX_BYTES: u64 = 2 << 30;

/// Images to learn from, and others to be tried on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainTest {
    /// To learn from.
    pub train: Images,
    /// To be tried on.
    pub test: Images,
}

/// The images of a folder: `train-…` to learn from, `t10k-…` to be tried on.
///
/// Where there are none of `train`, the first four fifths of `t10k` take their place and the last fifth is what is tried on.
///
/// # Errors
/// If there are no images of `t10k`, or a file cannot be read or is none of images or labels.
pub fn read_folder(dir: &Path) -> Result<TrainTest, Error> {
    let test = read_part(dir, "t10k")?.ok_or_else(|| Error::NoImages { dir: dir.into() })?;
    if let Some(train) = read_part(dir, "train")? {
        return Ok(TrainTest { train, test });
    }
    let kept = test.len() / 5 * 4;
    Ok(TrainTest { train: test.chosen(0..kept), test: test.chosen(kept..test.len()) })
}

/// The images of one part of a folder, none where the part has no files.
fn read_part(dir: &Path, part: &str) -> Result<Option<Images>, Error> {
    let find = |kind: &str| {
        let names = [format!("{part}-{kind}-ubyte"), format!("{part}-{kind}-ubyte.gz")];
        names.map(|name| dir.join(name)).into_iter().find(|path| path.exists())
    };
    match (find("images-idx3"), find("labels-idx1")) {
        (Some(images), Some(labels)) => read_idx(&images, &labels).map(Some),
        (None, None) => Ok(None),
        (images, _) => {
            let (there, missing) = if images.is_some() { ("images", "labels") } else { ("labels", "images") };
            let path = dir.join(format!("{part}-{missing}"));
            Err(Error::Idx { path, what: format!("not there, but the {there} of `{part}` are") })
        }
    }
}

/// The images of one file with the labels of another, each plain or as gzip.
///
/// # Errors
/// If a file cannot be read or is not such a file, or there is not one label of each image.
pub fn read_idx(images: &Path, labels: &Path) -> Result<Images, Error> {
    let ([count, height, width], pixels) = read_bytes(images)?;
    let ([labelled], labels_of) = read_bytes(labels)?;
    let wrong = |path: &Path, what: String| Err(Error::Idx { path: PathBuf::from(path), what });
    if count == 0 || height == 0 || width == 0 {
        return wrong(images, format!("{count} images of {height} x {width} pixels"));
    }
    if labelled != count {
        return wrong(labels, format!("{labelled} labels of the {count} images of {}", images.display()));
    }
    Ok(Images::of([height, width, 1], pixels, labels_of))
}

/// Writes images of one channel and their labels as two files, `PART-images-idx3-ubyte` and `PART-labels-idx1-ubyte`, into a folder.
///
/// # Errors
/// If a file cannot be written, or the images have several channels.
pub fn write_idx(images: &Images, dir: &Path, part: &str) -> Result<(), Error> {
    let [height, width, channels] = images.size();
    let path = dir.join(format!("{part}-images-idx3-ubyte"));
    if channels != 1 {
        return Err(Error::Idx { path, what: format!("{channels} channels cannot be written") });
    }
    let pixels = (0..images.len()).flat_map(|index| images.image(index)).copied().collect::<Vec<_>>();
    let labels = dir.join(format!("{part}-labels-idx1-ubyte"));
    let files =
        [(path, vec![images.len(), height, width], pixels), (labels, vec![images.len()], images.labels().to_vec())];
    for (path, dims, numbers) in files {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        for dim in dims {
            let dim = u32::try_from(dim)
                .map_err(|_| Error::Idx { path: path.clone(), what: format!("{dim} are too many") })?;
            bytes.extend(dim.to_be_bytes());
        }
        bytes.extend(numbers);
        std::fs::write(&path, bytes).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

/// The dimensions and the numbers of a file of bytes.
fn read_bytes<const D: usize>(path: &Path) -> Result<([usize; D], Vec<u8>), Error> {
    let wrong = |what: String| Error::Idx { path: path.into(), what };
    let mut bytes = file::read(path, MAX_BYTES)?;
    let header = 4 + 4 * D;
    let Some(dims) = bytes.get(..header) else {
        return Err(wrong(format!("{} bytes, too few for a header of {header}", bytes.len())));
    };
    if dims[..4] != [0, 0, 8, D as u8] {
        return Err(wrong(format!("it begins with {:?}, not with [0, 0, 8, {D}]", &dims[..4])));
    }
    let dims: [usize; D] = std::array::from_fn(|axis| {
        let number = &dims[4 + 4 * axis..][..4];
        number.iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
    });
    let expected = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let found = bytes.len() - header;
    if expected != Some(found) {
        return Err(wrong(format!("{found} bytes after the header, which tells of {dims:?}")));
    }
    bytes.drain(..header);
    Ok((dims, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::file::tests::{gzip, real_data};

    fn idx(dims: &[u32], numbers: &[u8]) -> Vec<u8> {
        let dims_bytes = dims.iter().flat_map(|dim| dim.to_be_bytes());
        [0, 0, 8, dims.len() as u8].into_iter().chain(dims_bytes).chain(numbers.iter().copied()).collect()
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
        dir
    }

    #[test]
    fn both_parts_of_a_folder_are_read_plain_or_as_gzip() {
        let dir = folder(&[
            ("train-images-idx3-ubyte.gz", gzip(&idx(&[2, 1, 2], &[1, 2, 3, 4]))),
            ("train-labels-idx1-ubyte.gz", gzip(&idx(&[2], &[5, 6]))),
            ("t10k-images-idx3-ubyte", idx(&[1, 1, 2], &[7, 8])),
            ("t10k-labels-idx1-ubyte", idx(&[1], &[9])),
        ]);
        let TrainTest { train, test } = read_folder(dir.path()).unwrap();
        assert_eq!(train, Images::of([1, 2, 1], vec![1, 2, 3, 4], vec![5, 6]));
        assert_eq!(test, Images::of([1, 2, 1], vec![7, 8], vec![9]));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::of([2, 3, 1], (0..12).collect(), vec![4, 9]);
        write_idx(&images, dir.path(), "t10k").unwrap();
        write_idx(&images.chosen([1]), dir.path(), "train").unwrap();
        let TrainTest { train, test } = read_folder(dir.path()).unwrap();
        assert_eq!((train, test), (images.chosen([1]), images));
        let colours = Images::of([1, 1, 3], vec![0; 3], vec![0]);
        assert!(write_idx(&colours, dir.path(), "x").unwrap_err().to_string().contains("3 channels cannot be written"));
    }

    #[test]
    fn without_a_training_part_the_other_is_divided() {
        let dir = folder(&[
            ("t10k-images-idx3-ubyte", idx(&[6, 1, 1], &[1, 2, 3, 4, 5, 6])),
            ("t10k-labels-idx1-ubyte", idx(&[6], &[0; 6])),
        ]);
        let TrainTest { train, test } = read_folder(dir.path()).unwrap();
        assert_eq!((train.len(), test.len(), test.image(0)), (4, 2, &[5][..]));
    }

    #[test]
    fn files_that_are_none_are_told_with_what_is_wrong() {
        let labels = ("t10k-labels-idx1-ubyte", idx(&[1], &[9]));
        let told = |images: Option<Vec<u8>>| {
            let files = images.map(|images| ("t10k-images-idx3-ubyte", images)).into_iter().chain([labels.clone()]);
            read_folder(folder(&files.collect::<Vec<_>>()).path()).unwrap_err().to_string()
        };
        assert!(told(None).contains("t10k-images: not there, but the labels of `t10k` are"));
        assert!(told(Some(Vec::new())).contains("0 bytes, too few for a header of 16"));
        assert!(told(Some(idx(&[1], &[1]))).contains("too few for a header"));
        assert!(told(Some(idx(&[1, 1, 1, 1], &[1]))).contains("begins with [0, 0, 8, 4], not with [0, 0, 8, 3]"));
        assert!(told(Some(idx(&[1, 2, 2], &[1, 2, 3]))).contains("3 bytes after the header, which tells of [1, 2, 2]"));
        assert!(told(Some(idx(&[u32::MAX; 3], &[1]))).contains("1 bytes after the header"));
        assert!(told(Some(idx(&[0, 2, 2], &[]))).contains("0 images of 2 x 2 pixels"));
        assert!(told(Some(idx(&[2, 1, 1], &[1, 2]))).contains("1 labels of the 2 images"));
        let empty = tempfile::tempdir().unwrap();
        assert!(read_folder(empty.path()).unwrap_err().to_string().contains("no images; looked for"));
    }

    #[test]
    fn the_real_files_hold_what_they_are_known_for() {
        if let Some(dir) = real_data("mnist") {
            let TrainTest { train, test } = read_folder(&dir).unwrap();
            assert_eq!((train.len(), test.len(), train.size(), train.classes()), (60_000, 10_000, [28, 28, 1], 10));
            assert_eq!((&train.labels()[..5], &test.labels()[..5]), (&[5, 0, 4, 1, 9][..], &[7, 2, 1, 0, 4][..]));
        }
        if let Some(dir) = real_data("fashion-mnist-t10k") {
            let TrainTest { train, test } = read_folder(&dir).unwrap();
            assert_eq!((train.len(), test.len(), &train.labels()[..3]), (8_000, 2_000, &[9, 2, 1][..]));
        }
    }
}
