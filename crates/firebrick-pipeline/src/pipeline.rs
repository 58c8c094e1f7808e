//! The graph of stages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::{Begun, SCHEMA, Trace, known_schema};
use crate::stage::sealed::Places as _;
use crate::{
    Artifact, BoxError, Error, Identity, Input, Inputs, Output, Plan, PlannedStage, Stage, StageContext, Status, files,
    layout,
};

/// A graph of stages, built by code and run below a folder.
///
/// A stage can only take what was added before it, so a cycle cannot be written, and only artifacts of the type it asks
/// for, so two of different types cannot be swapped:
///
/// ```compile_fail
/// # use std::path::Path;
/// # use firebrick_pipeline::{Artifact, BoxError, Output, Pipeline, Stage, StageContext};
/// # struct Policy; struct Reward;
/// # impl Artifact for Policy { const KIND: &str = "policy"; fn open(_: &Path) -> Result<Self, BoxError> { Ok(Self) } }
/// # impl Artifact for Reward { const KIND: &str = "reward"; fn open(_: &Path) -> Result<Self, BoxError> { Ok(Self) } }
/// # #[derive(serde::Serialize)] struct Ppo;
/// # impl Stage<()> for Ppo {
/// #     const VERSION: u32 = 1; type Inputs = (Output<Policy>, Output<Reward>); type Output = Policy;
/// #     fn run(&self, _: (Policy, Reward), _: &StageContext, _: &()) -> Result<(), BoxError> { Ok(()) }
/// # }
/// fn wire(p: &mut Pipeline<()>, policy: Output<Policy>, reward: Output<Reward>) {
///     p.add("ppo", Ppo, (reward, policy));
/// }
/// ```
pub struct Pipeline<E> {
    pub(crate) name: String,
    pub(crate) nodes: Vec<Node<E>>,
    id: u64,
}

/// A stage in its place, with its types forgotten.
pub(crate) struct Node<E> {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// The stages that it reads, slot after slot.
    pub(crate) inputs: Vec<usize>,
    /// How many stages each slot reads.
    slots: Vec<usize>,
    pub(crate) stage: Box<dyn AnyStage<E>>,
    version: u32,
    recipe: Value,
}

pub(crate) trait AnyStage<E> {
    fn fingerprints(&self, env: &E) -> Result<BTreeMap<String, String>, BoxError>;
    fn check(&self, artifact: &Path) -> Result<(), BoxError>;
    fn execute(&self, slots: &[Vec<PathBuf>], ctx: &StageContext, env: &E) -> Result<(), BoxError>;
}

impl<E, S: Stage<E>> AnyStage<E> for S {
    fn fingerprints(&self, env: &E) -> Result<BTreeMap<String, String>, BoxError> {
        self.external(env)
    }

    fn check(&self, artifact: &Path) -> Result<(), BoxError> {
        S::Output::open(artifact).map(drop)
    }

    fn execute(&self, slots: &[Vec<PathBuf>], ctx: &StageContext, env: &E) -> Result<(), BoxError> {
        self.run(S::Inputs::open(slots)?, ctx, env)
    }
}

impl<E> Node<E> {
    /// Runs the stage on the artifacts in these folders, one for each of its inputs.
    pub(crate) fn execute(&self, inputs: &[PathBuf], ctx: &StageContext, env: &E) -> Result<(), BoxError> {
        let mut rest = inputs;
        let slot = |&count: &usize| rest.split_off(..count).expect("a folder for each input").to_vec();
        self.stage.execute(&self.slots.iter().map(slot).collect::<Vec<_>>(), ctx, env)
    }
}

/// What `pipeline.json` says.
#[derive(PartialEq, Serialize, Deserialize)]
pub(crate) struct Listing {
    #[serde(deserialize_with = "known_schema")]
    schema: u32,
    pub(crate) name: String,
    pub(crate) stages: Vec<String>,
}

impl Listing {
    pub(crate) fn read(root: &Path) -> Result<Option<Self>, Error> {
        files::read_json(&root.join(layout::PIPELINE), || "remove it: the next run writes it anew".to_owned())
    }
}

/// How a stage stands on disk, next to what it would be made from now.
pub(crate) struct Standing {
    pub(crate) planned: PlannedStage,
    /// What it was made from, finished or not.
    pub(crate) was: Option<Identity>,
    /// What it would be made from now, but for its inputs.
    pub(crate) own: Identity,
    /// The digest of its artifact, if that can be used.
    pub(crate) digest: Option<String>,
}

impl<E> Pipeline<E> {
    /// A pipeline without stages. The name is recorded, and a folder serves one name only.
    pub fn new(name: impl Into<String>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { name: name.into(), nodes: Vec::new(), id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Adds a stage that reads `inputs`; returns the promise of what it makes.
    ///
    /// # Panics
    /// If the name is taken or is not of small letters, digits, `-`, `_` and `.` with a letter or digit at the start;
    /// if an input belongs to another pipeline; if the stage cannot be serialised as JSON.
    pub fn add<S: Stage<E>>(&mut self, name: impl Into<String>, stage: S, inputs: S::Inputs) -> Output<S::Output> {
        let name = name.into();
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        assert!(
            name.bytes().next().is_some_and(fits) && name.bytes().all(|byte| fits(byte) || b"-_.".contains(&byte)),
            "stage name `{name}`: use small letters, digits, `-`, `_` and `.`, with a letter or digit at the start"
        );
        assert!(
            self.nodes.iter().all(|node| node.name != name),
            "pipeline `{}` has a stage `{name}` already",
            self.name
        );
        let places = inputs.places();
        assert!(
            places.iter().flatten().all(|place| place.pipeline == self.id),
            "stage `{name}` of pipeline `{}` takes an output of another pipeline",
            self.name
        );
        // Through text, so that it compares equal to what is read from a file, and an `f32` is written as it was meant.
        let recipe = serde_json::to_string(&stage).and_then(|text| serde_json::from_str(&text));
        let recipe = recipe.unwrap_or_else(|error| panic!("stage `{name}` cannot be serialised as JSON: {error}"));
        self.nodes.push(Node {
            name,
            kind: S::Output::KIND,
            inputs: places.iter().flatten().map(|place| place.index).collect(),
            slots: places.iter().map(Vec::len).collect(),
            stage: Box::new(stage),
            version: S::VERSION,
            recipe,
        });
        Output::new(self.id, self.nodes.len() - 1)
    }

    /// How each stage stands below `root`, without changing anything there.
    ///
    /// A stage counts as finished even if one that it reads from is yet to be made again: whether that gives another
    /// artifact is only known then.
    ///
    /// # Errors
    /// If what is there cannot be read, or outside data is missing.
    pub fn plan(&self, root: &Path, env: &E) -> Result<Plan, Error> {
        let standings = self.survey(root, env, &vec![false; self.nodes.len()])?;
        Ok(Plan { pipeline: self.name.clone(), stages: standings.into_iter().map(|one| one.planned).collect() })
    }

    /// How the first stages stand, one for each element of `rebuild`; those to rebuild are not looked at.
    pub(crate) fn survey(&self, root: &Path, env: &E, rebuild: &[bool]) -> Result<Vec<Standing>, Error> {
        self.check_name(root)?;
        let mut standings: Vec<Standing> = Vec::with_capacity(rebuild.len());
        for (index, (node, &rebuild)) in self.nodes.iter().zip(rebuild).enumerate() {
            let external = node.stage.fingerprints(env).map_err(|error| Error::stage(&node.name, error))?;
            let own = Identity {
                stage: node.name.clone(),
                version: node.version,
                recipe: node.recipe.clone(),
                external,
                inputs: Vec::new(),
            };
            let trace = if rebuild { Trace::Nothing } else { Trace::read(root, &node.name)? };
            let (status, was, mut digest) = match trace {
                Trace::Nothing => (Status::ToDo, None, None),
                Trace::Begun(Begun { identity, .. }) => (Status::Interrupted, Some(identity), None),
                Trace::Finished(record) => {
                    record.check_kind(root, node.kind)?;
                    (Status::Finished, Some(record.identity), Some(record.digest))
                }
            };
            let differences = was.as_ref().map_or(Vec::new(), |was| {
                // What an unfinished stage will make is not known: until it is, take it to be what it was.
                let digests: Option<Vec<_>> =
                    node.inputs.iter().map(|&input| standings[input].digest.as_deref()).collect();
                let inputs = digests.map_or(was.inputs.clone(), |digests| self.inputs(index, &digests));
                was.differences(&Identity { inputs, ..own.clone() })
            });
            let status = if differences.is_empty() { status } else { Status::Changed };
            match status {
                Status::Changed => digest = None,
                Status::Finished => self.check_artifact(root, node)?,
                Status::Interrupted | Status::ToDo => {}
            }
            let planned = PlannedStage {
                index: index + 1,
                name: node.name.clone(),
                inputs: node.inputs.iter().map(|&input| self.nodes[input].name.clone()).collect(),
                kind: node.kind,
                status,
                differences,
            };
            standings.push(Standing { planned, was, own, digest });
        }
        Ok(standings)
    }

    fn check_artifact(&self, root: &Path, node: &Node<E>) -> Result<(), Error> {
        let path = layout::find(root, &node.name)?.expect("its record was read from there").join(layout::ARTIFACT);
        node.stage.check(&path).map_err(|error| Error::Artifact { stage: node.name.clone(), path, error })
    }

    fn check_name(&self, root: &Path) -> Result<(), Error> {
        match Listing::read(root)? {
            Some(Listing { name: was, .. }) if was != self.name => {
                Err(Error::OtherPipeline { root: root.to_owned(), was, now: self.name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Writes the list of stages, unless it is there.
    pub(crate) fn register(&self, root: &Path) -> Result<(), Error> {
        let listing = Listing { schema: SCHEMA, name: self.name.clone(), stages: self.names() };
        if Listing::read(root)?.as_ref() == Some(&listing) {
            return Ok(());
        }
        files::write_json(&root.join(layout::PIPELINE), &listing)
    }

    /// The artifacts that a stage reads; `digests` are those of its inputs.
    pub(crate) fn inputs(&self, index: usize, digests: &[&str]) -> Vec<Input> {
        let stages = self.nodes[index].inputs.iter().map(|&input| self.nodes[input].name.clone());
        stages.zip(digests).map(|(stage, digest)| Input { stage, digest: (*digest).to_owned() }).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// The place of a stage that somebody named.
    pub(crate) fn position(&self, name: &str) -> Result<usize, Error> {
        let position = self.nodes.iter().position(|node| node.name == name);
        position.ok_or_else(|| Error::unknown_stage(name, self.names()))
    }

    /// Marks the stages in `seeds` and all that depend on them.
    pub(crate) fn with_dependants(&self, seeds: &[usize]) -> Vec<bool> {
        let mut marked = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            marked[index] = seeds.contains(&index) || node.inputs.iter().any(|&input| marked[input]);
        }
        marked
    }
}
