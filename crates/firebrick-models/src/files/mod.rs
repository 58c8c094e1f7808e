//! Models as files: this project's own folders, those of `transformers`, and GGUF.

pub(crate) mod firebrick;
pub(crate) mod gguf;
pub(crate) mod hugging_face;
pub(crate) mod json;
