//! `firebrick generate`, `chat` and `serve` as a person runs them.
