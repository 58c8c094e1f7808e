//! The state of a loop on disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firebrick_tensor::Parameters;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The state of a loop after a number of steps: all its tensors, and whatever else it counts.
#[derive(Clone, Debug)]
pub struct Checkpoint<T> {
    /// Steps done.
    pub steps: u64,
    /// Weights and moments by name.
    pub tensors: Parameters,
    /// Counters.
    pub counters: T,
}

#[derive(Serialize, Deserialize)]
struct State<T> {
    steps: u64,
    counters: T,
    digest: String,
}

/// A folder of checkpoints, of which the newest is kept.
///
/// A checkpoint is written beside and renamed, so a killed process leaves the one before it. It is due after a span of wall
/// time: where it falls changes no result, since a run goes on from any of them to the same bits.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    every: Duration,
    written: Instant,
}

const STATE: &str = "state.json";
const TENSORS: &str = "tensors.safetensors";

impl Checkpoints {
    /// Checkpoints in this folder, one due after every span of this length.
    pub fn new(dir: impl Into<PathBuf>, every: Duration) -> Self {
        Self { dir: dir.into(), every, written: Instant::now() }
    }

    /// Whether one is due.
    pub fn due(&self) -> bool {
        self.written.elapsed() >= self.every
    }

    /// The newest checkpoint's folder.
    pub fn newest(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.dir).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let newest = names.filter(|name| name.starts_with("step-") && !name.ends_with(".tmp")).max()?;
        Some(self.dir.join(newest))
    }

    /// Reads the newest checkpoint, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or its bytes are not those that were written.
    pub fn load<T: DeserializeOwned>(&self) -> Result<Option<Checkpoint<T>>, Error> {
        let Some(path) = self.newest() else { return Ok(None) };
        let read = |name: &str| {
            let path = path.join(name);
            fs::read(&path).map_err(|source| Error::Checkpoint { path, source })
        };
        let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
        let state: State<T> = serde_json::from_slice(&read(STATE)?).map_err(|error| damaged(error.to_string()))?;
        let bytes = read(TENSORS)?;
        if digest(&bytes) != state.digest {
            return Err(damaged(format!("{TENSORS} is not what was written")));
        }
        let tensors = Parameters::from_bytes(&bytes).map_err(|error| damaged(error.to_string()))?;
        Ok(Some(Checkpoint { steps: state.steps, tensors, counters: state.counters }))
    }

    /// Writes a checkpoint and removes those before it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save<T: Serialize>(&mut self, checkpoint: &Checkpoint<T>) -> Result<(), Error> {
        let name = format!("step-{:010}", checkpoint.steps);
        let (path, tmp) = (self.dir.join(&name), self.dir.join(format!("{name}.tmp")));
        let bytes = checkpoint.tensors.to_bytes();
        let state = State { steps: checkpoint.steps, counters: &checkpoint.counters, digest: digest(&bytes) };
        let state = serde_json::to_vec_pretty(&state).expect("counters can be written as JSON");
        let before = self.newest();
        write(&tmp, &path, &[(TENSORS, &bytes), (STATE, &state)])
            .map_err(|source| Error::Checkpoint { path: path.clone(), source })?;
        if let Some(before) = before.filter(|before| *before != path) {
            fs::remove_dir_all(&before).map_err(|source| Error::Checkpoint { path: before, source })?;
        }
        self.written = Instant::now();
        Ok(())
    }
}

fn write(tmp: &Path, path: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    if tmp.exists() {
        fs::remove_dir_all(tmp)?;
    }
    fs::create_dir_all(tmp)?;
    for (name, bytes) in files {
        let mut file = fs::File::create(tmp.join(name))?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
    }
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    fs::rename(tmp, path)
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(steps: u64) -> Checkpoint<u32> {
        let mut tensors = Parameters::default();
        tensors.insert("a.b", vec![2], vec![steps as f32, 0.1]);
        Checkpoint { steps, tensors, counters: 7 }
    }

    #[test]
    fn the_newest_is_kept_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::new(dir.path(), Duration::ZERO);
        assert!(checkpoints.load::<u32>().unwrap().is_none());
        checkpoints.save(&checkpoint(9)).unwrap();
        checkpoints.save(&checkpoint(10)).unwrap();
        let read = checkpoints.load::<u32>().unwrap().unwrap();
        assert_eq!((read.steps, read.counters, read.tensors), (10, 7, checkpoint(10).tensors));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_half_written_checkpoint_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::new(dir.path(), Duration::ZERO);
        checkpoints.save(&checkpoint(3)).unwrap();
        fs::create_dir(dir.path().join("step-0000000004.tmp")).unwrap();
        assert_eq!(checkpoints.load::<u32>().unwrap().unwrap().steps, 3);
        checkpoints.save(&checkpoint(4)).unwrap();
        assert_eq!(checkpoints.load::<u32>().unwrap().unwrap().steps, 4);
    }

    #[test]
    fn a_damaged_checkpoint_names_itself_and_the_way_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::new(dir.path(), Duration::ZERO);
        checkpoints.save(&checkpoint(3)).unwrap();
        let tensors = checkpoints.newest().unwrap().join(TENSORS);
        let mut bytes = fs::read(&tensors).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&tensors, bytes).unwrap();
        let message = checkpoints.load::<u32>().unwrap_err().to_string();
        assert!(message.contains("step-0000000003 is damaged"), "{message}");
        assert!(message.contains("delete that folder and run the same command again"), "{message}");
    }
}
