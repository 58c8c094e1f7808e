//! What a classifier or a question can be too strange for.

use std::path::PathBuf;

/// What a classifier or a question can be too strange for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer that the generative model has no counterpart of.
    #[error("layer {layer} ({kind}) cannot be modelled: {reason}")]
    Layer {
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
    NoImages {
        /// Which.
        class: usize,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold a model.
    #[error("{}: {what}; fit the model again", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The classifier cannot be read or written.
    #[error(transparent)]
    Classifier(#[from] firebrick_models::Error),
}
