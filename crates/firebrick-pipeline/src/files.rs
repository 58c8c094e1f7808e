//! Files that are either whole or not there.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Replaces the file at `path` by `bytes` as a whole: whoever looks, even after a crash, sees the old file or the new.
///
/// The bytes go to a hidden sibling, to the disk, and are then renamed.
///
/// # Errors
/// If the file cannot be written; the old one is then as it was.
///
/// # Panics
/// If `path` does not end in a file name.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let partial = partial(path);
    let write = || -> io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        rename(&partial, path)
    };
    write().map_err(|error| {
        // Give the space back; the error that matters is the first one.
        let _ = fs::remove_file(&partial);
        Error::io("write", path)(error)
    })
}

/// The BLAKE3 digest of a file, or of a folder's files with their relative paths, as 64 hexadecimal digits.
///
/// ```text
/// digest(folder) = BLAKE3(len(path₁) ‖ path₁ ‖ digest(file₁) ‖ len(path₂) ‖ …)      path₁ < path₂ < …
/// ```
///
/// Empty folders, times and permissions do not count.
///
/// # Errors
/// If something cannot be read, or a folder holds anything but files and folders with names in UTF-8.
pub fn digest(path: &Path) -> Result<String, Error> {
    if !path.is_dir() {
        return Ok(file_digest(path)?.to_hex().to_string());
    }
    let mut files = Vec::new();
    list(path, "", &mut files)?;
    files.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for relative in &files {
        let content = file_digest(&path.join(relative))?;
        hasher.update(&(relative.len() as u64).to_le_bytes()).update(relative.as_bytes()).update(content.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn file_digest(path: &Path) -> Result<blake3::Hash, Error> {
    let mut hasher = blake3::Hasher::new();
    File::open(path).and_then(|file| hasher.update_reader(file)).map_err(Error::io("read", path))?;
    Ok(hasher.finalize())
}

/// Adds the relative paths of all files below `folder`, joined by `/` on every system.
fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<(), Error> {
    for entry in entries(folder)? {
        let path = entry.path();
        let refuse = |reason| Error::io("take the digest of", &path)(io::Error::new(ErrorKind::InvalidInput, reason));
        let kind = entry.file_type().map_err(Error::io("read", &path))?;
        let name = entry.file_name().into_string().map_err(|_| refuse("its name is not UTF-8"))?;
        let relative = format!("{prefix}{name}");
        if kind.is_dir() {
            list(&path, &format!("{relative}/"), files)?;
        } else if kind.is_file() {
            files.push(relative);
        } else {
            return Err(refuse("it is neither a file nor a folder"));
        }
    }
    Ok(())
}

/// Copies a folder with all below it.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    copy_files(from, to)?;
    for entry in entries(from)?.into_iter().filter(|entry| entry.path().is_dir()) {
        copy_tree(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Copies the files of a folder, without the folders in it.
pub(crate) fn copy_files(from: &Path, to: &Path) -> Result<(), Error> {
    create(to)?;
    for entry in entries(from)?.into_iter().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).map_err(Error::io("copy", &entry.path()))?;
    }
    Ok(())
}

/// What is in a folder, in no order.
pub(crate) fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, Error> {
    fs::read_dir(folder).and_then(Iterator::collect).map_err(Error::io("read the folder", folder))
}

/// The hidden sibling that holds a file or folder while it is being written.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().expect("the path ends in a file name").to_string_lossy();
    path.with_file_name(format!(".{name}.partial"))
}

/// Renames, and makes the new name last.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or(Path::new(".")))
}

/// Puts a folder and all in it on the disk.
pub(crate) fn sync_tree(folder: &Path) -> Result<(), Error> {
    for entry in entries(folder)? {
        let path = entry.path();
        if path.is_dir() { sync_tree(&path)? } else { sync(&path).map_err(Error::io("save", &path))? }
    }
    sync(folder).map_err(Error::io("save", folder))
}

/// Puts one file or folder on the disk; only Unix can do so through a handle that reads.
fn sync(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Removes a folder with all in it; nothing happens when there is none.
pub(crate) fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}

/// Makes a folder, and those it is in; nothing happens when there is one.
pub(crate) fn create(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))
}

/// Writes a value as indented JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(value).expect("records are plain data with text for keys");
    text.push(b'\n');
    atomic_write(path, &text)
}

/// The value in a JSON file, if there is such a file; `fix` says what to do when it is damaged.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, fix: impl FnOnce() -> String) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| Error::Corrupt {
            path: path.to_owned(),
            fix: fix(),
            error,
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn digest_of(files: &[(&str, &str)]) -> String {
        digest(folder(files).path()).unwrap()
    }

    #[test]
    fn a_file_has_the_published_digest() {
        // The BLAKE3 test vector of the empty input.
        let folder = folder(&[("empty", "")]);
        assert_eq!(
            digest(&folder.path().join("empty")).unwrap(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn a_folders_digest_is_of_paths_and_contents() {
        let one = digest_of(&[("a", "1"), ("b/c", "2")]);
        assert_eq!(one, digest_of(&[("b/c", "2"), ("a", "1")]), "not of the order of writing");
        for other in [
            digest_of(&[("a", "1")]),
            digest_of(&[("a", "1"), ("b/c", "3")]),
            digest_of(&[("a", "1"), ("b/d", "2")]),
            digest_of(&[("a", "1"), ("c", "2")]),
            digest_of(&[("a", "2"), ("b/c", "1")]),
            digest_of(&[]),
        ] {
            assert_ne!(one, other);
        }
    }

    /// Recorded once: a change here would make every finished stage look changed.
    #[test]
    fn digests_are_stable_across_versions() {
        assert_eq!(
            digest_of(&[("a", "1"), ("b/c", "2")]),
            "2f1281e5281d0c2519debaeebed1d45cde8d1055f00a1c6575c647b0d85f59df"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = digest(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nowhere/at/all: "), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_has_no_digest() {
        let folder = folder(&[("a", "1")]);
        std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
        let error = digest(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("link: it is neither a file nor a folder"), "{error}");
    }

    #[test]
    fn writing_replaces_the_whole_file_and_leaves_nothing_else() {
        let folder = folder(&[("a.json", "a long old text"), (".a.json.partial", "left by a killed process")]);
        atomic_write(&folder.path().join("a.json"), b"new").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("a.json")).unwrap(), "new");
        assert_eq!(entries(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_state() {
        // A folder stands where the file should go, so the rename fails.
        let folder = folder(&[("a.json/inside", "kept")]);
        let path = folder.path().join("a.json");
        let error = atomic_write(&path, b"new").unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
        assert_eq!(entries(folder.path()).unwrap().len(), 1);
        assert_eq!(fs::read_to_string(path.join("inside")).unwrap(), "kept");
    }
}
