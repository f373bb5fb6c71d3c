//! What a network and an operator do to a pipeline: connections that break or go silent, servers that come late, a slot,
//! a publication or a state topic that is gone. Nothing is lost or repeated where that can be; where it cannot, the
//! pipeline says so and stands, and the others go on.

mod lost;
mod network;
#[path = "../crash/rig.rs"]
mod rig;
