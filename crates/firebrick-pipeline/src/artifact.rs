//! What a stage leaves behind.

use std::path::Path;

use crate::{BoxError, Error, layout, read_record};

/// A typed folder: the finished product of a stage.
///
/// A stage writes it into [`StageContext::artifact`](crate::StageContext::artifact); whoever needs it opens it.
pub trait Artifact: Sized {
    /// What the folder holds, in a word or two: `"corpus"`, `"policy"`. It is recorded and checked when opened.
    const KIND: &'static str;

    /// The artifact in `folder`.
    ///
    /// It is opened before each run and once for each stage that reads it, so it should check what is cheap to check
    /// and leave big things on disk.
    ///
    /// # Errors
    /// If the folder does not hold such an artifact.
    fn open(folder: &Path) -> Result<Self, BoxError>;
}

/// The finished artifact of a stage, found by the stage's name below the root of a run.
///
/// # Errors
/// If no such stage is known or finished there, if it made an artifact of another kind, or if that does not open.
pub fn open<A: Artifact>(root: &Path, stage: &str) -> Result<A, Error> {
    let record = read_record(root, stage)?;
    record.check_kind(root, A::KIND)?;
    let folder = layout::find(root, stage)?.expect("its record was read from there").join(layout::ARTIFACT);
    A::open(&folder).map_err(|error| Error::Artifact { stage: stage.to_owned(), path: folder, error })
}
