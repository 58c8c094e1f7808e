//! Where things are below the root of a run.
//!
//! ```text
//! ROOT/.lock                      held while a process runs here
//! ROOT/pipeline.json              the pipeline's name and its stages
//! ROOT/NN-STAGE/record.json       there when the stage is finished: written last
//! ROOT/NN-STAGE/artifact/         what the stage made; `.artifact.partial/` while it is being made
//! ROOT/NN-STAGE/work/             checkpoints, metrics; `fingerprint.json` says of which recipe
//! ROOT/.removed-NN-STAGE/         on its way out
//! ```
//!
//! Every step from one state to the next is a single rename, so a process that is killed leaves one of: nothing, work
//! without a record (resumed, or begun anew where it holds nothing but the fingerprint), or a record (skipped). An artifact without a record is not trusted and made again from
//! the work. Folders are found by the stage's name; the number only sorts them.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, files};

pub(crate) const PIPELINE: &str = "pipeline.json";
pub(crate) const RECORD: &str = "record.json";
pub(crate) const ARTIFACT: &str = "artifact";
pub(crate) const WORK: &str = "work";
pub(crate) const BEGUN: &str = "work/fingerprint.json";

const REMOVED: &str = ".removed-";

/// Makes the root and takes its lock, which the kernel gives back when the process ends, however it ends.
pub(crate) fn lock(root: &Path) -> Result<File, Error> {
    if root.exists() && !root.is_dir() {
        return Err(Error::Root { root: root.to_owned(), reason: "it is a file".to_owned() });
    }
    let open = || -> io::Result<File> {
        std::fs::create_dir_all(root)?;
        File::options().create(true).write(true).truncate(false).open(root.join(".lock"))
    };
    let file = open().map_err(Error::root(root))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { root: root.to_owned() }),
        Err(TryLockError::Error(error)) => Err(Error::root(root)(error)),
    }
}

/// The folder of a stage, if it has one, whatever its number.
pub(crate) fn find(root: &Path, stage: &str) -> Result<Option<PathBuf>, Error> {
    if !root.exists() {
        return Ok(None);
    }
    let is_its = |path: &PathBuf| path.file_name().and_then(|name| stage_of(name.to_str()?)) == Some(stage);
    Ok(files::entries(root)?.iter().map(std::fs::DirEntry::path).filter(is_its).min())
}

/// The stage in a folder's name: `ppo` in `07-ppo`.
fn stage_of(folder: &str) -> Option<&str> {
    let (number, stage) = folder.split_once('-')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(stage)
}

/// The folder that a stage has as the `number`th; one that it had when fewer or more stages preceded it is renamed.
pub(crate) fn settle(root: &Path, number: usize, stage: &str) -> Result<PathBuf, Error> {
    let folder = root.join(format!("{number:02}-{stage}"));
    match find(root, stage)? {
        Some(old) if old != folder => files::rename(&old, &folder).map_err(Error::io("rename", &old))?,
        _ => {}
    }
    Ok(folder)
}

/// Removes all that a stage has, in one step as seen from the next run.
pub(crate) fn discard(root: &Path, stage: &str) -> Result<(), Error> {
    let Some(folder) = find(root, stage)? else { return Ok(()) };
    let name = folder.file_name().expect("it was found by its name").to_string_lossy();
    let removed = root.join(format!("{REMOVED}{name}"));
    files::rename(&folder, &removed).map_err(Error::io("remove", &folder))?;
    files::remove(&removed)
}

/// Removes what killed processes were removing.
pub(crate) fn sweep(root: &Path) -> Result<(), Error> {
    for entry in files::entries(root)? {
        if entry.file_name().to_string_lossy().starts_with(REMOVED) {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_by_number_and_stage() {
        assert_eq!(stage_of("07-ppo"), Some("ppo"));
        assert_eq!(stage_of("107-reward-model"), Some("reward-model"));
        assert_eq!(stage_of("-ppo"), None);
        assert_eq!(stage_of("x7-ppo"), None);
        assert_eq!(stage_of(".removed-07-ppo"), None);
        assert_eq!(stage_of("ppo"), None);
    }
}
