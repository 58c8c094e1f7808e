//! The prompt of a helpful, honest, harmless assistant.
