//! What can go wrong, and the way on.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::Difference;

/// Any error of a stage or of an artifact.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a pipeline stopped.
///
/// Each message is complete: it holds the text of its causes, so [`source`](StdError::source) is always `None`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written, moved or removed.
    #[error("cannot {doing} {}: {error}", path.display())]
    Io {
        /// What was being done, for instance "write".
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// There is no room for what was being written.
    #[error("the disk is full (cannot {doing}); free space and run the same command again: finished work is kept")]
    DiskFull {
        /// What was being done, with its path or stage.
        doing: String,
    },
    /// The folder of the run is a file, or cannot be made or written to.
    #[error("cannot use {} for a run: {reason}; give another folder with `--out`", root.display())]
    Root {
        /// The folder of the run.
        root: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// Another process runs in the same folder.
    #[error("{} is in use by another run; wait until that ends, or give another folder with `--out`", root.display())]
    Busy {
        /// The folder of the run.
        root: PathBuf,
    },
    /// A folder from which stages were to be taken over is no run.
    #[error("{} is not the folder of a run, which has a pipeline.json", root.display())]
    NoRun {
        /// The folder.
        root: PathBuf,
    },
    /// An artifact is not what its record says.
    #[error("{} is not what stage `{stage}` made: its files were changed; make that stage again there", path.display())]
    Altered {
        /// The stage.
        stage: String,
        /// Its artifact.
        path: PathBuf,
    },
    /// The folder holds the run of a pipeline of another name.
    #[error("{} holds a run of pipeline `{was}`, not `{now}`; give another folder with `--out`", root.display())]
    OtherPipeline {
        /// The folder of the run.
        root: PathBuf,
        /// The pipeline that was run there.
        was: String,
        /// The pipeline that was asked for.
        now: String,
    },
    /// A stage was named that the pipeline does not have.
    #[error("no stage is called `{name}`{}; the stages are {}", guess(nearest), stages.join(", "))]
    UnknownStage {
        /// The name that was given.
        name: String,
        /// The most similar name, if one is similar.
        nearest: Option<String>,
        /// All names.
        stages: Vec<String>,
    },
    /// What was made, or begun, was made from something else than what is asked for now.
    #[error("{}", changed(root, stages, differences))]
    Changed {
        /// The folder of the run.
        root: PathBuf,
        /// The fewest stages to rebuild.
        stages: Vec<String>,
        /// Field by field, what differs.
        differences: Vec<Difference>,
    },
    /// A file of the run is not what this crate writes.
    #[error("{} is damaged: {error}; {fix}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        fix: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// A finished artifact does not open.
    #[error(
        "cannot open the artifact of stage `{stage}`, {}: {}; put it back or make it again with `--rebuild {stage}`",
        path.display(), chain(error.as_ref())
    )]
    Artifact {
        /// The stage that made it.
        stage: String,
        /// Its folder.
        path: PathBuf,
        /// Why it does not open.
        error: BoxError,
    },
    /// A finished artifact is of another kind than what is asked for.
    #[error(
        "stage `{stage}` in {} made a `{was}`, not a `{now}`; make it again with `--rebuild {stage}`",
        root.display()
    )]
    Kind {
        /// The folder of the run.
        root: PathBuf,
        /// The stage that made it.
        stage: String,
        /// The kind it made.
        was: String,
        /// The kind that was asked for.
        now: &'static str,
    },
    /// A stage's artifact or record was asked for before the stage finished.
    #[error("stage `{stage}` in {} is not finished; run the pipeline until it with `--until {stage}`", root.display())]
    Unfinished {
        /// The folder of the run.
        root: PathBuf,
        /// The stage.
        stage: String,
    },
    /// A stage failed.
    #[error("stage `{stage}`: {}", chain(error.as_ref()))]
    Stage {
        /// The stage.
        stage: String,
        /// What it said.
        error: BoxError,
    },
}

impl Error {
    /// The error of doing something to a file, to be given to `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| match is_full(&error) {
            true => Self::DiskFull { doing: format!("{doing} {}", path.display()) },
            false => Self::Io { doing, path: path.to_owned(), error },
        }
    }

    /// The error of a folder that cannot serve as the root of a run, to be given to `map_err`.
    pub(crate) fn root(root: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| match is_full(&error) {
            true => Self::DiskFull { doing: format!("write to {}", root.display()) },
            false => Self::Root { root: root.to_owned(), reason: error.to_string() },
        }
    }

    /// The error of a stage; a full disk is told as such, however deep in the error it is.
    pub(crate) fn stage(stage: &str, error: BoxError) -> Self {
        if causes(error.as_ref()).any(is_full) {
            return Self::DiskFull { doing: format!("go on with stage `{stage}`: {}", chain(error.as_ref())) };
        }
        Self::Stage { stage: stage.to_owned(), error }
    }

    /// The error of a stage name that is not among `stages`.
    pub(crate) fn unknown_stage(name: &str, stages: Vec<String>) -> Self {
        let similarity = |stage: &String| strsim::jaro_winkler(name, stage);
        let nearest = stages.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let nearest = nearest.filter(|stage| similarity(stage) >= 0.7).cloned();
        Self::UnknownStage { name: name.to_owned(), nearest, stages }
    }
}

/// Whether an error, without its causes, says that the disk or the quota is used up.
fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
        || matches!(error.downcast_ref(), Some(Error::DiskFull { .. }))
}

/// An error, its cause, the cause of that, and so on.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// The text of an error and of its causes, each told once.
fn chain(error: &(dyn StdError + 'static)) -> String {
    causes(error).map(ToString::to_string).fold(String::new(), |text, more| match text.as_str() {
        "" => more,
        told if told.contains(&more) => text,
        told => format!("{told}: {more}"),
    })
}

fn guess(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |name| format!(" (did you mean `{name}`?)"))
}

fn changed(root: &Path, stages: &[String], differences: &[Difference]) -> String {
    let quoted: Vec<_> = stages.iter().map(|stage| format!("`{stage}`")).collect();
    let flags: Vec<_> = stages.iter().map(|stage| format!("--rebuild {stage}")).collect();
    let lines: String = differences.iter().map(|difference| format!("  {difference}\n")).collect();
    let (subject, verb, object) = if stages.len() == 1 { ("stage", "was", "it") } else { ("stages", "were", "them") };
    format!(
        "{subject} {} in {} {verb} made from something else:\n{lines}\
         to make {object} again, and all that depends on {object}: `{}`\n\
         to keep {object}: give another folder with `--out`",
        quoted.join(", "),
        root.display(),
        flags.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot save the checkpoint")]
    struct Save(#[source] io::Error);

    #[test]
    fn causes_are_told_once() {
        assert_eq!(chain(&Save(io::Error::other("no such device"))), "cannot save the checkpoint: no such device");
        assert_eq!(chain(&io::Error::other(Save(io::Error::other("x")))), "cannot save the checkpoint: x");
    }

    #[test]
    fn a_full_disk_is_seen_through_the_errors_around_it() {
        let error = Error::stage("ppo", Box::new(Save(ErrorKind::StorageFull.into())));
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        let error = Error::stage("ppo", Box::new(Error::DiskFull { doing: "write a".into() }));
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        let error = Error::io("write", Path::new("a/b.json"))(ErrorKind::QuotaExceeded.into());
        assert_eq!(
            error.to_string(),
            "the disk is full (cannot write a/b.json); free space and run the same command again: finished work is kept"
        );
        let error = Error::stage("ppo", Box::new(Save(ErrorKind::NotFound.into())));
        assert!(matches!(error, Error::Stage { .. }), "{error}");
    }

    #[test]
    fn only_a_similar_name_is_suggested() {
        let stages = || vec!["pretrain".to_owned(), "reward-model".to_owned()];
        assert_eq!(
            Error::unknown_stage("reward_modle", stages()).to_string(),
            "no stage is called `reward_modle` (did you mean `reward-model`?); the stages are pretrain, reward-model"
        );
        assert_eq!(
            Error::unknown_stage("xyz", stages()).to_string(),
            "no stage is called `xyz`; the stages are pretrain, reward-model"
        );
    }
}
