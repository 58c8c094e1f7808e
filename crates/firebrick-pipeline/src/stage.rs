//! One step of a pipeline, and how it names what it needs.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{Artifact, BoxError};

/// One step of a pipeline. The value is the step's recipe: what it serialises to bears identity.
///
/// `E` is what the program brings along to execute stages (device, threads, progress): it never bears identity. Numbers
/// that are not finite serialise to `null` and cannot be told apart; a recipe should have none.
pub trait Stage<E>: Serialize + 'static {
    /// Raised whenever the same recipe and inputs would give another artifact than before.
    const VERSION: u32;
    /// What it reads: a tuple of up to eight [`Output`]s.
    type Inputs: Inputs;
    /// What it makes.
    type Output: Artifact;

    /// Fingerprints by name of what it reads from outside of the pipeline, for instance of data files
    /// ([`digest`](crate::digest)); they bear identity.
    ///
    /// # Errors
    /// If something it needs is not there.
    fn external(&self, _env: &E) -> Result<BTreeMap<String, String>, BoxError> {
        Ok(BTreeMap::new())
    }

    /// Writes the artifact into [`StageContext::artifact`].
    ///
    /// [`StageContext::work`] may hold what an earlier run of the same fingerprint left when it was killed, at any
    /// moment up to its very end: a stage that saves checkpoints there goes on from them.
    ///
    /// # Errors
    /// Whatever stops it. The pipeline stops too; work is kept.
    fn run(&self, inputs: <Self::Inputs as Inputs>::Artifacts, ctx: &StageContext, env: &E) -> Result<(), BoxError>;
}

/// Where a stage writes.
#[derive(Clone, Debug)]
pub struct StageContext {
    pub(crate) stage: String,
    pub(crate) artifact: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) fingerprint: String,
}

impl StageContext {
    /// The stage's name in the pipeline.
    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// The empty folder to write the artifact into. It is renamed to its final place when the stage returns `Ok`.
    pub fn artifact(&self) -> &Path {
        &self.artifact
    }

    /// The folder for checkpoints and metrics. It outlives kills and the end of the stage; only a rebuild removes it.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The fingerprint of recipe, version, outside data and inputs, as 64 hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The promise of an artifact `A`: what [`Pipeline::add`](crate::Pipeline::add) returns and later stages take.
pub struct Output<A> {
    pub(crate) place: sealed::Place,
    artifact: PhantomData<fn() -> A>,
}

impl<A> Output<A> {
    pub(crate) fn new(pipeline: u64, index: usize) -> Self {
        Self { place: sealed::Place { pipeline, index }, artifact: PhantomData }
    }
}

// By hand: a promise of an artifact is `Copy` even if the artifact is not.
impl<A> Clone for Output<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Output<A> {}

impl<A: Artifact> fmt::Debug for Output<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output<{}>({})", A::KIND, self.place.index)
    }
}

/// What a stage reads: `()`, `(Output<A>,)`, … up to eight.
pub trait Inputs: sealed::Places {
    /// The opened artifacts, in the same order.
    type Artifacts;

    /// Opens the artifacts in these folders, one for each input.
    ///
    /// # Errors
    /// If one does not open.
    fn open(folders: &[PathBuf]) -> Result<Self::Artifacts, BoxError>;
}

pub(crate) mod sealed {
    /// A stage of one pipeline.
    #[derive(Clone, Copy, Debug)]
    pub struct Place {
        pub pipeline: u64,
        pub index: usize,
    }

    pub trait Places {
        fn places(&self) -> Vec<Place>;
    }
}

impl sealed::Places for () {
    fn places(&self) -> Vec<sealed::Place> {
        Vec::new()
    }
}

impl Inputs for () {
    type Artifacts = ();

    fn open(_folders: &[PathBuf]) -> Result<(), BoxError> {
        Ok(())
    }
}

macro_rules! inputs {
    ($($artifact:ident $slot:tt),+) => {
        impl<$($artifact: Artifact),+> sealed::Places for ($(Output<$artifact>,)+) {
            fn places(&self) -> Vec<sealed::Place> {
                vec![$(self.$slot.place),+]
            }
        }

        impl<$($artifact: Artifact),+> Inputs for ($(Output<$artifact>,)+) {
            type Artifacts = ($($artifact,)+);

            fn open(folders: &[PathBuf]) -> Result<Self::Artifacts, BoxError> {
                Ok(($($artifact::open(&folders[$slot])?,)+))
            }
        }
    };
}

inputs!(A 0);
inputs!(A 0, B 1);
inputs!(A 0, B 1, C 2);
inputs!(A 0, B 1, C 2, D 3);
inputs!(A 0, B 1, C 2, D 3, E 4);
inputs!(A 0, B 1, C 2, D 3, E 4, F 5);
inputs!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
inputs!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
