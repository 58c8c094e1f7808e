//! Images: labelled sets of them, the files that hold them, made-up ones, and what may hide or spoil them.

pub mod degradations;
mod file;
mod folder;
pub mod glyphs;
mod picture;
mod set;

pub use folder::{Folder, TrainTest, files, read_folder, read_idx, write_idx};
pub use picture::Picture;
pub use set::{Images, pixels};
