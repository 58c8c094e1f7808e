//! What can be wrong with images, classifiers, models and questions.

use std::io;
use std::path::PathBuf;

use firebrick_tensor::ParametersError;

/// What can be wrong with images, classifiers, models and questions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read, or its compression is broken.
    #[error("{}: cannot be read; check that it is there, readable and whole", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written; check that its folder is there, writable and has space left", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds too much, for instance because it was compressed to harm.
    #[error("{}: more than {limit} bytes once decompressed, the limit of one file; divide it", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        limit: u64,
    },
    /// A table cannot be read.
    #[error("{}: not a whole Parquet file; write it again", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A file of images or of their labels is not one.
    #[error("{}: {what}; images are IDX files of bytes with three dimensions, labels with one", path.display())]
    Idx {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A table of images holds none, or others than its first one.
    #[error("{}, row {row}: {what}; a row is `image: {{bytes, path}}`, a PNG or JPEG file, and `label`, from 0 to 255", path.display())]
    ImageRow {
        /// The file.
        path: PathBuf,
        /// Counted from 0.
        row: usize,
        /// What is wrong.
        what: String,
    },
    /// A file is no picture.
    #[error("{} cannot be read as a PNG or JPEG picture", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// All that a picture shows is in its alpha channel.
    #[error(
        "{}: every pixel is {value} once the transparent ones lie over {background} (0 is black, 255 white); what the picture shows is in \
         its alpha channel: choose another background by `--background`, or save the picture without alpha",
        path.display()
    )]
    OnlyAlpha {
        /// The file.
        path: PathBuf,
        /// What every pixel is.
        value: u8,
        /// What they lie over.
        background: u8,
    },
    /// A folder holds no images.
    #[error(
        "{}: no images; looked for `train-images-idx3-ubyte` and `t10k-images-idx3-ubyte` with their `labels-idx1-ubyte`, \
         each also as `.gz`, and for `train*.parquet` and `test*.parquet` in its folders; \
         name one that holds the two of `t10k`, or a `test*.parquet`",
        dir.display()
    )]
    NoImages {
        /// The folder.
        dir: PathBuf,
    },
    /// A layer of a classifier fits nothing.
    #[error("layer {layer}: {what}")]
    Layer {
        /// Its index.
        layer: usize,
        /// Why.
        what: String,
    },
    /// An image has no pixels.
    #[error("images of {image:?} have no pixels; height, width and channels must be at least 1")]
    NoPixels {
        /// Height, width and channels.
        image: [usize; 3],
    },
    /// A weights file is of other layers than a classifier.
    #[error("{}: {reason}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A `config.json` is not one of ours.
    #[error("{}: {source}", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A weights file does not fit the classifier.
    #[error("{}: {source}", path.display())]
    Parameters {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ParametersError,
    },
    /// A layer that the generative model has no counterpart of.
    #[error("layer {layer} ({kind}) cannot be modelled: {reason}")]
    NotModelled {
        /// Its index.
        layer: usize,
        /// What it is.
        kind: &'static str,
        /// Why not.
        reason: String,
    },
    /// A classifier without a convolution.
    #[error("the classifier has no convolution whose activations could be modelled")]
    NoBlocks,
    /// Images of another size than the classifier's.
    #[error("images of {found:?} (height, width, channels), the classifier reads {expected:?}")]
    Size {
        /// Of the images.
        found: [usize; 3],
        /// Of the classifier.
        expected: [usize; 3],
    },
    /// A mask of another size than its image.
    #[error("a mask of {found:?} for images of {expected:?} (height, width)")]
    Mask {
        /// Of the mask.
        found: [usize; 2],
        /// Of the images.
        expected: [usize; 2],
    },
    /// A label that is none of the classes.
    #[error("class {class}: the classifier has {classes}, counted from 0")]
    Class {
        /// The label.
        class: usize,
        /// How many there are.
        classes: usize,
    },
    /// A class without an image to learn it from.
    #[error("no image of class {class} to learn it from")]
    EmptyClass {
        /// Which.
        class: usize,
    },
    /// A file does not hold a model.
    #[error("{}: {what}; fit the model again", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}
