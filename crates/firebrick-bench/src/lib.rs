#![doc = include_str!("../README.md")]

pub mod agree;
pub mod cell;
pub mod kernels;
pub mod machine;
pub mod page;
pub mod peers;
pub mod protocol;
pub mod quiet;
pub mod serve;
pub mod spread;
pub mod turns;
pub mod work;
