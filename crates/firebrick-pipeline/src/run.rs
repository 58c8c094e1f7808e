//! Running a pipeline: skip what is finished, resume what was interrupted, make the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{debug, info_span};

use crate::pipeline::{Listing, Node};
use crate::record::{Begun, SCHEMA, Trace};
use crate::{Difference, Error, Identity, Pipeline, Plan, Record, StageContext, Status, files, layout};

/// What to run, and what to note beside it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The last stage to run; all by default.
    pub until: Option<String>,
    /// Stages to remove, with all that depend on them, even after [`until`](Self::until), before the run.
    ///
    /// Each run that asks for it starts them afresh: one that was killed is resumed by a run that does not ask again.
    pub rebuild: Vec<String>,
    /// Another run, of this pipeline or of another one: a finished stage of it that was made from the same is taken over.
    pub from: Option<PathBuf>,
    /// The versions of what makes the artifacts, for the records; they do not bear identity.
    pub versions: BTreeMap<String, String>,
}

/// What happens in a run, as it happens. Stages are numbered from 1.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// All that was found is consistent, and the run begins.
    Planned(&'a Plan),
    /// A finished stage of another run is taken over.
    TakenOver {
        /// Its number.
        index: usize,
        /// How many stages this run has.
        total: usize,
        /// Its name.
        name: &'a str,
    },
    /// A finished stage is left as it is.
    Skipped {
        /// Its number.
        index: usize,
        /// How many stages this run has.
        total: usize,
        /// Its name.
        name: &'a str,
    },
    /// A stage begins.
    Started {
        /// Its number.
        index: usize,
        /// How many stages this run has.
        total: usize,
        /// Its name.
        name: &'a str,
        /// Whether it goes on with the work of an interrupted run.
        resumed: bool,
    },
    /// A stage is finished and recorded.
    Finished {
        /// Its number.
        index: usize,
        /// How many stages this run has.
        total: usize,
        /// Its name.
        name: &'a str,
        /// How long it took.
        wall: Duration,
        /// The digest of its artifact.
        digest: &'a str,
    },
}

impl<E> Pipeline<E> {
    /// Runs the stages below `root`, in order: finished ones are skipped, interrupted ones resumed.
    ///
    /// Everything that can be known beforehand is checked before anything is removed or run. A finished artifact is
    /// trusted by its record and only opened, not read through. A process may be killed at any moment: the next run
    /// goes on from there.
    ///
    /// # Errors
    /// If a stage fails or its outside data is missing; if a finished or interrupted stage was made from something
    /// else; if `options` name an unknown stage; if the root cannot be used, is in use or belongs to another pipeline.
    pub fn run(
        &self,
        root: &Path,
        env: &E,
        options: &Options,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        if let Some(from) = &options.from
            && Listing::read(from)?.is_none()
        {
            return Err(Error::NoRun { root: from.clone() });
        }
        let total = match &options.until {
            Some(name) => self.position(name)? + 1,
            None => self.nodes.len(),
        };
        let rebuild = options.rebuild.iter().map(|name| self.position(name)).collect::<Result<Vec<_>, _>>()?;
        let rebuild = self.with_dependants(&rebuild);
        let _lock = layout::lock(root)?;
        let _pipeline = info_span!("pipeline", pipeline = self.name).entered();
        let standings = self.survey(root, env, &rebuild[..total])?;
        let plan =
            Plan { pipeline: self.name.clone(), stages: standings.iter().map(|one| one.planned.clone()).collect() };
        self.check_unchanged(root, &plan)?;
        observer(Event::Planned(&plan));

        layout::sweep(root)?;
        // Dependants first: a process killed in between leaves no artifact whose inputs are gone.
        for (node, _) in self.nodes.iter().zip(&rebuild).rev().filter(|(_, rebuild)| **rebuild) {
            layout::discard(root, &node.name)?;
        }
        self.register(root)?;
        let folders = self.nodes[..total].iter().enumerate();
        let folders: Vec<_> =
            folders.map(|(index, node)| layout::settle(root, index + 1, &node.name)).collect::<Result<_, _>>()?;

        let mut digests: Vec<String> = Vec::with_capacity(total);
        for (place, standing) in standings.into_iter().enumerate() {
            let node = &self.nodes[place];
            let (index, name) = (place + 1, node.name.as_str());
            let known: Vec<_> = node.inputs.iter().map(|&input| digests[input].as_str()).collect();
            let identity = Identity { inputs: self.inputs(place, &known), ..standing.own };
            let differences = standing.was.map_or(Vec::new(), |was| was.differences(&identity));
            if !differences.is_empty() {
                return Err(Error::Changed { root: root.to_owned(), stages: vec![name.to_owned()], differences });
            }
            if let Some(digest) = standing.digest {
                observer(Event::Skipped { index, total, name });
                digests.push(digest);
                continue;
            }
            let taken = options.from.as_deref().map(|from| take_over(node, from, &identity, &folders[place]));
            if let Some(digest) = taken.transpose()?.flatten() {
                observer(Event::TakenOver { index, total, name });
                digests.push(digest);
                continue;
            }
            let resumed = standing.planned.status == Status::Interrupted;
            observer(Event::Started { index, total, name, resumed });
            let _stage = info_span!("stage", stage = name).entered();
            debug!(index, total, resumed, "a stage begins");
            let start = Instant::now();
            let inputs: Vec<_> = node.inputs.iter().map(|&input| folders[input].join(layout::ARTIFACT)).collect();
            let digest = make(node, &folders[place], &identity, &inputs, env)?;
            let wall = start.elapsed();
            record(node, &folders[place], identity, digest.clone(), wall, options)?;
            debug!(seconds = wall.as_secs_f64(), digest, "a stage is finished");
            observer(Event::Finished { index, total, name, wall, digest: &digest });
            digests.push(digest);
        }
        Ok(())
    }

    /// Stops if a stage changed, naming the fewest stages to rebuild: those that no other rebuild would make again.
    fn check_unchanged(&self, root: &Path, plan: &Plan) -> Result<(), Error> {
        let changed: Vec<_> =
            (0..plan.stages.len()).filter(|&index| plan.stages[index].status == Status::Changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let marked = self.with_dependants(&changed);
        let is_first = |index: &&usize| !self.nodes[**index].inputs.iter().any(|&input| marked[input]);
        let stages = changed.iter().filter(is_first).map(|&index| self.nodes[index].name.clone()).collect();
        let differences: Vec<Difference> = plan.stages.iter().flat_map(|stage| stage.differences.clone()).collect();
        Err(Error::Changed { root: root.to_owned(), stages, differences })
    }
}

/// Runs a stage and puts its artifact in place; returns the artifact's digest.
fn make<E>(node: &Node<E>, folder: &Path, identity: &Identity, inputs: &[PathBuf], env: &E) -> Result<String, Error> {
    let artifact = folder.join(layout::ARTIFACT);
    let partial = files::partial(&artifact);
    // Left by a process killed while it ran, or after the rename and before the record.
    files::remove(&partial)?;
    files::remove(&artifact)?;
    let ctx = StageContext {
        stage: node.name.clone(),
        artifact: partial.clone(),
        work: folder.join(layout::WORK),
        fingerprint: identity.fingerprint(),
    };
    files::create(&ctx.work)?;
    let begun = Begun { schema: SCHEMA, identity: identity.clone(), fingerprint: ctx.fingerprint.clone() };
    files::write_json(&folder.join(layout::BEGUN), &begun)?;
    files::create(&partial)?;
    let check = |()| {
        node.stage.check(&partial).map_err(|error| format!("it wrote an artifact that does not open: {error}").into())
    };
    node.execute(inputs, &ctx, env).and_then(check).map_err(|error| Error::stage(&node.name, error))?;
    files::sync_tree(&partial)?;
    let digest = files::digest(&partial)?;
    files::rename(&partial, &artifact).map_err(Error::io("rename", &partial))?;
    Ok(digest)
}

/// Writes the record, which makes the stage a finished one.
/// Copies what another run has made from the same, if it has; its digest.
fn take_over<E>(node: &Node<E>, from: &Path, identity: &Identity, folder: &Path) -> Result<Option<String>, Error> {
    let Trace::Finished(record) = Trace::read(from, &node.name)? else { return Ok(None) };
    if record.identity != *identity || record.kind != node.kind {
        return Ok(None);
    }
    let there = layout::find(from, &node.name)?.expect("its record was read from there");
    let (artifact, work) = (folder.join(layout::ARTIFACT), folder.join(layout::WORK));
    let partial = files::partial(&artifact);
    for left in [&partial, &artifact, &work] {
        files::remove(left)?;
    }
    files::copy_tree(&there.join(layout::ARTIFACT), &partial)?;
    // What was measured on the way, without what a run would go on from.
    files::copy_files(&there.join(layout::WORK), &work)?;
    let digest = files::digest(&partial)?;
    if digest != record.digest {
        return Err(Error::Altered { stage: node.name.clone(), path: there.join(layout::ARTIFACT) });
    }
    files::sync_tree(&partial)?;
    files::rename(&partial, &artifact).map_err(Error::io("rename", &partial))?;
    files::write_json(&folder.join(layout::RECORD), &record)?;
    Ok(Some(digest))
}

fn record<E>(
    node: &Node<E>,
    folder: &Path,
    identity: Identity,
    digest: String,
    wall: Duration,
    options: &Options,
) -> Result<(), Error> {
    let record = Record {
        schema: SCHEMA,
        fingerprint: identity.fingerprint(),
        identity,
        kind: node.kind.to_owned(),
        digest,
        versions: options.versions.clone(),
        wall_seconds: wall.as_secs_f64(),
        finished_at_unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
    };
    files::write_json(&folder.join(layout::RECORD), &record)
}
