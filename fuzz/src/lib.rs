//! Fuzz targets: one for each thing that reads what others write. Called by the programs in `fuzz_targets/`, which
//! `cargo xtask fuzz` builds and runs.
//!
//! Each module has one function `run` that takes any bytes and panics if something that must hold does not. What must hold
//! is said by assertions with a sentence, so that a crash explains itself.

pub mod control;
mod diagnostics;
pub mod engine;
mod frame;
pub mod list;
pub mod packet;
pub mod policy;
mod reject;
pub mod request;
mod rules;

/// The reference interpreter of the tests, the second opinion of `engine` and `policy`. As a file and not as a package: the
/// lab that is in the same package is no business of the fuzzer's.
#[path = "../../tests/src/reference/mod.rs"]
mod reference;
