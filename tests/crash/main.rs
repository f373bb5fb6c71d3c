//! Exactly once, whatever is killed: the daemon at random moments and at named places, the database, a broker.
//!
//! Every test runs a ledger beside the pipeline and has [`seachange_testkit::audit`] judge the topic as a read_committed
//! consumer sees it. Named places need the feature `failpoints`, in the daemon as in the test.

mod daemon;
mod rig;
mod servers;
mod snapshot;
