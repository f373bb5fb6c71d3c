//! The `seachange` binary.
fn main() {}
