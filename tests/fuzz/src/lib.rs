//! Fuzz targets: every decoder of foreign bytes, and what must hold whatever the bytes are.
//!
//! A target takes any bytes and panics when an invariant is broken; that it refuses them is always fine. `tests/replay.rs`
//! gives each target its corpus and some thousand seeded mutations of it, in every run of the tests; the binary (`make fuzz`)
//! goes on for as long as wanted, and keeps what reaches new code when the crates have been built with counters
//! (`scripts/fuzz` does). Both only need the stable toolchain.
//!
//! | module | owns |
//! | --- | --- |
//! | [`targets`] | the targets and their invariants |
//! | [`mutate`] | seeded mutation |
//! | [`corpus`] | the checked-in inputs, and the hand-made ones they grew from |
//! | [`meter`] | how much memory an input costs |
//! | [`coverage`] | which code an input reaches |
//!
//! This crate may panic: a panic is how a finding is told.

pub mod corpus;
pub mod coverage;
pub mod meter;
pub mod mutate;
pub mod targets;

pub use mutate::Mutator;
pub use targets::{TARGETS, Target};

/// Longest input that is made. Longer ones find nothing that short ones do not, and take longer.
pub const LENGTH_MAX: usize = 4096;

/// Most memory that one input may ask for in all. A decoder that believes a length field asks for far more.
pub const MEMORY_MAX: usize = 64 << 20;

/// Gives one input to a target, and holds what it costs against [`MEMORY_MAX`].
pub fn run(target: &Target, input: &[u8]) {
    let before = meter::asked();
    (target.run)(input);
    let asked = meter::asked() - before;
    assert!(asked <= MEMORY_MAX, "an input of {} bytes made the decoder ask for {asked} bytes", input.len());
}
