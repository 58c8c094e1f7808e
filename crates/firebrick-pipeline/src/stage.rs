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
    /// What it reads: a tuple of up to eight [`Output`]s or lists of them.
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

/// What a stage reads: a tuple of up to eight slots, each an [`Output`] or a list of outputs of one type, whose number need not be
/// known when the stage is written.
///
/// ```
/// # use std::path::Path;
/// # use firebrick_pipeline::{Artifact, BoxError, Output, Pipeline, Stage, StageContext};
/// # struct Model; struct Table;
/// # impl Artifact for Model { const KIND: &str = "model"; fn open(_: &Path) -> Result<Self, BoxError> { Ok(Self) } }
/// # impl Artifact for Table { const KIND: &str = "table"; fn open(_: &Path) -> Result<Self, BoxError> { Ok(Self) } }
/// # #[derive(serde::Serialize)] struct Train { seed: u64 }
/// # impl Stage<()> for Train {
/// #     const VERSION: u32 = 1; type Inputs = (); type Output = Model;
/// #     fn run(&self, (): (), _: &StageContext, _: &()) -> Result<(), BoxError> { Ok(()) }
/// # }
/// #[derive(serde::Serialize)]
/// struct Compare;
///
/// impl Stage<()> for Compare {
///     const VERSION: u32 = 1;
///     type Inputs = (Vec<Output<Model>>,);
///     type Output = Table;
///
///     fn run(&self, (models,): (Vec<Model>,), _ctx: &StageContext, _env: &()) -> Result<(), BoxError> {
///         assert_eq!(models.len(), 3);
///         Ok(())
///     }
/// }
///
/// let mut p = Pipeline::new("seeds");
/// let models = (0..3).map(|seed| p.add(format!("train-{seed}"), Train { seed }, ())).collect();
/// p.add("compare", Compare, (models,));
/// ```
pub trait Inputs: sealed::Places {
    /// The opened artifacts, in the same order.
    type Artifacts;

    /// Opens the artifacts in these folders, a list for each slot.
    ///
    /// # Errors
    /// If one does not open.
    fn open(slots: &[Vec<PathBuf>]) -> Result<Self::Artifacts, BoxError>;
}

/// One of a stage's [`Inputs`]: an [`Output`], or a list of them.
pub trait Slot: sealed::Slot {
    /// The artifact, or all of them.
    type Opened;

    /// Opens the artifacts in these folders.
    ///
    /// # Errors
    /// If one does not open.
    fn open(folders: &[PathBuf]) -> Result<Self::Opened, BoxError>;
}

impl<A: Artifact> Slot for Output<A> {
    type Opened = A;

    fn open(folders: &[PathBuf]) -> Result<A, BoxError> {
        A::open(&folders[0])
    }
}

impl<A: Artifact> Slot for Vec<Output<A>> {
    type Opened = Vec<A>;

    fn open(folders: &[PathBuf]) -> Result<Vec<A>, BoxError> {
        folders.iter().map(|folder| A::open(folder)).collect()
    }
}

pub(crate) mod sealed {
    use super::Output;

    /// A stage of one pipeline.
    #[derive(Clone, Copy, Debug)]
    pub struct Place {
        pub pipeline: u64,
        pub index: usize,
    }

    /// The stages that each slot reads.
    pub trait Places {
        fn places(&self) -> Vec<Vec<Place>>;
    }

    /// The stages that a slot reads.
    pub trait Slot {
        fn places(&self) -> Vec<Place>;
    }

    impl<A> Slot for Output<A> {
        fn places(&self) -> Vec<Place> {
            vec![self.place]
        }
    }

    impl<A> Slot for Vec<Output<A>> {
        fn places(&self) -> Vec<Place> {
            self.iter().map(|output| output.place).collect()
        }
    }
}

impl sealed::Places for () {
    fn places(&self) -> Vec<Vec<sealed::Place>> {
        Vec::new()
    }
}

impl Inputs for () {
    type Artifacts = ();

    fn open(_slots: &[Vec<PathBuf>]) -> Result<(), BoxError> {
        Ok(())
    }
}

macro_rules! inputs {
    ($($slot:ident $index:tt),+) => {
        impl<$($slot: Slot),+> sealed::Places for ($($slot,)+) {
            fn places(&self) -> Vec<Vec<sealed::Place>> {
                vec![$(self.$index.places()),+]
            }
        }

        impl<$($slot: Slot),+> Inputs for ($($slot,)+) {
            type Artifacts = ($($slot::Opened,)+);

            fn open(slots: &[Vec<PathBuf>]) -> Result<Self::Artifacts, BoxError> {
                Ok(($($slot::open(&slots[$index])?,)+))
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
