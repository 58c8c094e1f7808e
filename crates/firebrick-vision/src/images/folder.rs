//! Labelled images in IDX files, as MNIST and Fashion-MNIST have them.
//!
//! A file begins with two bytes of 0, the kind of its numbers (8: bytes), the count of its dimensions, and each dimension as four
//! bytes, the most significant first; the numbers follow.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::file;
use super::picture::{Picture, Unreadable};
use super::set::Images;
use crate::Error;

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

/// The images of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Both parts.
    pub images: TrainTest,
    /// How many of them have transparent pixels in their files, which lie over black now.
    pub composited: usize,
}

/// The images of a folder: `train-…` to learn from, `t10k-…` to be tried on.
///
/// Where there is neither, the tables `train*.parquet` and `test*.parquet` in the folder's folders, as the Hugging Face Hub keeps images.
/// Where there are none of `train`, the first four fifths of `t10k` take their place and the last fifth is what is tried on.
///
/// # Errors
/// If there are no images of `t10k`, a file cannot be read or is none of images or labels, or all that an image of a table shows is in its
/// alpha channel.
pub fn read_folder(dir: &Path) -> Result<Folder, Error> {
    let mut composited = 0;
    let mut read = |idx: &str, table: &str| match read_part(dir, idx)? {
        None => read_tables(dir, table, &mut composited),
        found => Ok(found),
    };
    let test = read("t10k", "test")?.ok_or_else(|| Error::NoImages { dir: dir.into() })?;
    let images = match read("train", "train")? {
        Some(train) => TrainTest { train, test },
        None => {
            let kept = test.len() / 5 * 4;
            TrainTest { train: test.chosen(0..kept), test: test.chosen(kept..test.len()) }
        }
    };
    Ok(Folder { images, composited })
}

/// The files that [`read_folder`] reads.
///
/// # Errors
/// If a folder cannot be read.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for (idx, table) in [("train", "train"), ("t10k", "test")] {
        let pair = idx_files(dir, idx);
        if pair.iter().all(Option::is_none) {
            files.extend(tables(dir, table)?);
        }
        files.extend(pair.into_iter().flatten());
    }
    Ok(files)
}

/// The files of images and of labels of one part of a folder, where they are there.
fn idx_files(dir: &Path, part: &str) -> [Option<PathBuf>; 2] {
    ["images-idx3", "labels-idx1"].map(|kind| {
        let names = [format!("{part}-{kind}-ubyte"), format!("{part}-{kind}-ubyte.gz")];
        names.map(|name| dir.join(name)).into_iter().find(|path| path.exists())
    })
}

/// The images of one part of a folder, none where the part has no files.
fn read_part(dir: &Path, part: &str) -> Result<Option<Images>, Error> {
    match idx_files(dir, part) {
        [Some(images), Some(labels)] => read_idx(&images, &labels).map(Some),
        [None, None] => Ok(None),
        [images, _] => {
            let (there, missing) = if images.is_some() { ("images", "labels") } else { ("labels", "images") };
            let path = dir.join(format!("{part}-{missing}"));
            Err(Error::Idx { path, what: format!("not there, but the {there} of `{part}` are") })
        }
    }
}

/// The tables whose names begin so, in the folders of a folder, in the order of their names.
fn tables(dir: &Path, part: &str) -> Result<Vec<PathBuf>, Error> {
    let read = |path: &Path| std::fs::read_dir(path).map_err(|source| Error::Read { path: path.into(), source });
    let folders = read(dir)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut paths = Vec::new();
    for folder in folders {
        paths.extend(read(&folder)?.flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(part) && name.ends_with(".parquet")
        }));
    }
    paths.sort();
    Ok(paths)
}

/// The images of all those tables, none where there is no table; and how many more have transparent pixels.
fn read_tables(dir: &Path, part: &str, composited: &mut usize) -> Result<Option<Images>, Error> {
    let mut images = None;
    for path in tables(dir, part)? {
        read_table(&path, &mut images, composited)?;
    }
    Ok(images)
}

/// Adds the rows of a table to images.
fn read_table(path: &Path, images: &mut Option<Images>, composited: &mut usize) -> Result<(), Error> {
    let parquet = |source| Error::Parquet { path: path.into(), source };
    let file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(parquet)?;
    let groups = reader.metadata().row_groups().iter();
    let bytes = groups.map(|group| u64::try_from(group.total_byte_size()).unwrap_or(u64::MAX));
    if bytes.fold(0, u64::saturating_add) > MAX_BYTES {
        return Err(Error::FileTooLarge { path: path.into(), limit: MAX_BYTES });
    }
    let mut rows = 0;
    for batch in reader.build().map_err(parquet)? {
        let batch = batch.map_err(|source| parquet(source.into()))?;
        for row in 0..batch.num_rows() {
            let wrong = |what: String| Error::ImageRow { path: path.into(), row: rows + row, what };
            let (bytes, label) = cell(&batch, row).map_err(wrong)?;
            let picture = decode(bytes).map_err(wrong)?;
            *composited += usize::from(picture.composited);
            let [height, width] = picture.size();
            let (size, pixels) = ([height, width, 1], picture.into_gray());
            let images = images.get_or_insert_with(|| Images::new(size));
            if size != images.size() {
                let [height, width, _] = images.size();
                let others = format!("the images before are {height} x {width}");
                return Err(wrong(format!("an image of {} x {}, and {others}", size[0], size[1])));
            }
            if (images.len() + 1) as u64 * pixels.len() as u64 > MAX_BYTES {
                return Err(wrong(format!("more than {MAX_BYTES} bytes of pixels")));
            }
            images.push(&pixels, label);
        }
        rows += batch.num_rows();
    }
    Ok(())
}

/// The file and the label of a row.
fn cell(batch: &RecordBatch, row: usize) -> Result<(&[u8], u8), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or(format!("no column `{name}`"));
    let image = column("image")?;
    let image = image.as_struct_opt().ok_or("`image` is no struct")?;
    let bytes = image.column_by_name("bytes").ok_or("`image` has no `bytes`")?;
    let bytes = match bytes.data_type() {
        _ if bytes.is_null(row) => return Err("`image.bytes` is null".into()),
        DataType::Binary => bytes.as_binary::<i32>().value(row),
        DataType::LargeBinary => bytes.as_binary::<i64>().value(row),
        other => return Err(format!("`image.bytes` is {other}")),
    };
    let label = column("label")?;
    let label = label.as_primitive_opt::<Int64Type>().ok_or("`label` is no whole number of 64 bits")?;
    if label.is_null(row) {
        return Err("`label` is null".into());
    }
    let label = label.value(row);
    Ok((bytes, u8::try_from(label).map_err(|_| format!("`label` is {label}"))?))
}

/// The gray picture of a PNG or JPEG file, over black.
fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let picture = Picture::decode(bytes, 0).map_err(|error| match error {
        Unreadable::Format(error) => error.to_string(),
        Unreadable::OnlyAlpha { value } => {
            format!(
                "every pixel is {value} over black; what the image shows is in its alpha channel: save it without one"
            )
        }
    })?;
    // Some keep gray pictures in three equal colours.
    if !picture.is_gray() {
        return Err("an image of colours; gray ones are read".into());
    }
    Ok(picture)
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

    use image::ExtendedColorType;

    use super::*;
    use crate::images::file::tests::gzip;
    use crate::images::picture::tests::png as picture;

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
        let TrainTest { train, test } = read_folder(dir.path()).unwrap().images;
        assert_eq!(train, Images::of([1, 2, 1], vec![1, 2, 3, 4], vec![5, 6]));
        assert_eq!(test, Images::of([1, 2, 1], vec![7, 8], vec![9]));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::of([2, 3, 1], (0..12).collect(), vec![4, 9]);
        write_idx(&images, dir.path(), "t10k").unwrap();
        write_idx(&images.chosen([1]), dir.path(), "train").unwrap();
        let TrainTest { train, test } = read_folder(dir.path()).unwrap().images;
        assert_eq!((train, test), (images.chosen([1]), images));
        let colours = Images::of([1, 1, 3], vec![0; 3], vec![0]);
        assert!(write_idx(&colours, dir.path(), "x").unwrap_err().to_string().contains("3 channels cannot be written"));
    }

    fn png(pixels: &[u8], width: u32) -> Vec<u8> {
        picture(pixels, width, ExtendedColorType::L8)
    }

    /// A table as the hub has them.
    fn table(dir: &Path, name: &str, rows: &[(Vec<u8>, i64)]) {
        use std::sync::Arc;

        use arrow_array::{ArrayRef, BinaryArray, Int64Array, StringArray, StructArray};
        use arrow_schema::Field;
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(rows.iter().map(|(bytes, _)| bytes)));
        let path: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "x.png")));
        let image = StructArray::from(vec![
            (Arc::new(Field::new("bytes", DataType::Binary, true)), bytes),
            (Arc::new(Field::new("path", DataType::Utf8, true)), path),
        ]);
        let label: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, label)| *label)));
        let batch = RecordBatch::try_from_iter([("image", Arc::new(image) as ArrayRef), ("label", label)]).unwrap();
        fs::create_dir_all(dir.join("mnist")).unwrap();
        let file = File::create(dir.join("mnist").join(name)).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn tables_of_the_hub_are_read() {
        let dir = tempfile::tempdir().unwrap();
        table(dir.path(), "train-00001-of-00002.parquet", &[(png(&[9, 8, 7, 6], 2), 3)]);
        table(dir.path(), "train-00000-of-00002.parquet", &[(png(&[1, 2, 3, 4], 2), 0), (png(&[5; 4], 2), 255)]);
        table(dir.path(), "test-00000-of-00001.parquet", &[(png(&[0, 1, 0, 1], 2), 7)]);
        let TrainTest { train, test } = read_folder(dir.path()).unwrap().images;
        assert_eq!(train, Images::of([2, 2, 1], vec![1, 2, 3, 4, 5, 5, 5, 5, 9, 8, 7, 6], vec![0, 255, 3]));
        assert_eq!(test, Images::of([2, 2, 1], vec![0, 1, 0, 1], vec![7]));
        let names = files(dir.path()).unwrap();
        assert_eq!(names.len(), 3);
        assert!(
            names[0].ends_with("mnist/train-00000-of-00002.parquet")
                && names[2].ends_with("test-00000-of-00001.parquet")
        );
        let told = |rows: &[(Vec<u8>, i64)]| {
            table(dir.path(), "test-00000-of-00001.parquet", rows);
            read_folder(dir.path()).unwrap_err().to_string()
        };
        let good = || (png(&[0; 4], 2), 1);
        let message = told(&[good(), (png(&[0; 6], 3), 1)]);
        assert!(message.contains("row 1: an image of 2 x 3, and the images before are 2 x 2"), "{message}");
        assert!(told(&[good(), (png(&[0; 4], 2), 256)]).contains("row 1: `label` is 256"));
        assert!(told(&[(b"no picture".to_vec(), 1)]).contains("row 0: "));
        fs::write(dir.path().join("mnist/test-00000-of-00001.parquet"), b"PAR1").unwrap();
        assert!(read_folder(dir.path()).unwrap_err().to_string().contains("test-00000-of-00001.parquet"));
    }

    #[test]
    fn transparent_images_of_tables_lie_over_black_and_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        // White ink on nothing, a little of it half there.
        let white = || picture(&[255, 255, 255, 0, 255, 128, 255, 0], 2, ExtendedColorType::La8);
        let colors = picture(
            &[[7, 7, 7, 255], [9, 9, 9, 255], [1, 2, 3, 0], [5, 5, 5, 255]].concat(),
            2,
            ExtendedColorType::Rgba8,
        );
        table(dir.path(), "train.parquet", &[(white(), 1), (png(&[0, 1, 0, 1], 2), 0), (colors, 0)]);
        table(dir.path(), "test.parquet", &[(white(), 1)]);
        let Folder { images: TrainTest { train, test }, composited } = read_folder(dir.path()).unwrap();
        assert_eq!(
            (train.image(0), train.image(2), test.image(0)),
            (&[255, 0, 128, 0][..], &[7, 9, 0, 5][..], train.image(0))
        );
        assert_eq!(composited, 3);
        // Black ink on nothing is nothing over black.
        let black = picture(&[0, 255, 0, 0, 0, 255, 0, 0], 2, ExtendedColorType::La8);
        table(dir.path(), "test.parquet", &[(white(), 1), (black, 0)]);
        let told = read_folder(dir.path()).unwrap_err().to_string();
        assert!(told.contains("test.parquet, row 1: every pixel is 0 over black") && told.contains("alpha"), "{told}");
    }

    #[test]
    fn without_a_training_part_the_other_is_divided() {
        let dir = folder(&[
            ("t10k-images-idx3-ubyte", idx(&[6, 1, 1], &[1, 2, 3, 4, 5, 6])),
            ("t10k-labels-idx1-ubyte", idx(&[6], &[0; 6])),
        ]);
        let TrainTest { train, test } = read_folder(dir.path()).unwrap().images;
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

    /// A part of the real data, if it is there.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn real_data(part: &str) -> Option<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let data = std::env::var_os("RLHF_DATA_DIR").map_or_else(|| root.join("shared/data"), PathBuf::from);
        let path = data.join(part);
        if !path.exists() {
            eprintln!("skipped: {} not found", path.display());
            return None;
        }
        Some(path)
    }

    #[test]
    fn the_real_files_hold_what_they_are_known_for() {
        if let Some(dir) = real_data("mnist") {
            let TrainTest { train, test } = read_folder(&dir).unwrap().images;
            assert_eq!((train.len(), test.len(), train.size(), train.classes()), (60_000, 10_000, [28, 28, 1], 10));
            assert_eq!((&train.labels()[..5], &test.labels()[..5]), (&[5, 0, 4, 1, 9][..], &[7, 2, 1, 0, 4][..]));
        }
        if let Some(dir) = real_data("fashion-mnist-t10k") {
            let TrainTest { train, test } = read_folder(&dir).unwrap().images;
            assert_eq!((train.len(), test.len(), &train.labels()[..3]), (8_000, 2_000, &[9, 2, 1][..]));
        }
    }
}
