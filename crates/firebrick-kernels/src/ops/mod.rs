//! One operation a file: its public function, its plain reference, and the fused path of the processor backend with its backward
//! pass.

pub(crate) mod activation;
pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod boltzmann;
pub(crate) mod conv;
pub(crate) mod embedding;
pub(crate) mod linear;
pub(crate) mod log_probs;
pub(crate) mod norm;
pub(crate) mod pool;
pub(crate) mod rotary;
pub(crate) mod unpool;
pub(crate) mod window;
