//! Where real data lies, when there is any.

use std::path::PathBuf;

/// The folder of real data: `$RLHF_DATA_DIR`, else `shared/data` beside the workspace.
///
/// When there is no such folder it prints a line `skipped: … not found` and returns `None`; the test then returns.
pub fn data_dir() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    existing(std::env::var_os("RLHF_DATA_DIR").map_or_else(beside, PathBuf::from))
}

#[expect(clippy::print_stdout, reason = "a test that skips must say so")]
fn existing(folder: PathBuf) -> Option<PathBuf> {
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} not found", folder.display());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_that_exists_is_given() {
        let crate_dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(existing(crate_dir.clone()), Some(crate_dir.clone()));
        assert_eq!(existing(crate_dir.join("Cargo.toml")), None);
        assert_eq!(existing(crate_dir.join("nowhere")), None);
        assert!(data_dir().is_none_or(|folder| folder.is_dir()));
    }
}
